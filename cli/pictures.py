"""`galirep sample`, `reconstruct`, `inpaint` and `interpolate`: pictures of trained runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .common import Choice, F, emit, shared

_run = click.argument("run", type=click.Path(path_type=Path))
_out = click.option("--out", required=True, type=click.Path(path_type=Path), help="PNG file to write: FILE.png.")
_columns = click.option("--columns", type=click.IntRange(1), default=8, show_default=True, help="Images in a row.")
_split = click.option(
    "--split", default=None, help="Split of the data set  [default: its training split, if it has splits]"
)
_data = click.option("--data", required=True, help="Data set whose images are shown.")
_ids = click.option(
    "--id", "ids", multiple=True, metavar="ID", help="Show this image: its id, or its position in the data; repeatable."
)
_captions = click.option("--captions", is_flag=True, help="Write before each row what it is.")
_zoom = click.option(
    "--zoom",
    type=click.IntRange(1),
    metavar="N",
    help="Enlarge each pixel to N x N.  [default: so that an image has about 48 pixels or more]",
)


def _count(default: str, help: str) -> Callable[[F], F]:
    return click.option("--count", type=click.IntRange(1), help=f"{help}  [default: {default}, or all there are]")


@click.command("sample", epilog="Example: galirep sample runs/digits --out prior.png")
@_run
@_out
@click.option("--count", type=click.IntRange(1), default=64, show_default=True, help="Images to draw.")
@_columns
@shared("seed", "device", "overwrite", "trust-encoder")
def sample_command(run: Path, out: Path, count: int, seed: int, as_json: bool, **options: Any) -> None:
    """Draw images from the prior of RUN as one PNG grid."""
    from galirep import sample

    sample(run, out, count=count, seed=seed, **options)
    emit(as_json, {"out": str(out), "count": count, "seed": seed}, f"{out}: {count} samples")


@click.command(
    "reconstruct", epilog="Example: galirep reconstruct runs/digits --data sklearn:digits --split test --out pairs.png"
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_data
@_split
@_out
@_ids
@_count("32", "Images to show.")
@_columns
@_captions
@_zoom
@shared("seed", "device", "overwrite", "splits", "data-root", "download", "trust-encoder")
def reconstruct_command(
    runs: tuple[Path, ...], data: str, out: Path, ids: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Show images of a data set and their reconstructions G(mu(x)).

    By one RUN, each image is followed by its reconstruction. By several, or with --captions, the images are a row and
    the reconstructions of each run are a row below.
    """
    from galirep import reconstruct

    result = reconstruct(runs, data, out, ids=ids, **options)
    if len(runs) == 1:
        text = f"{out}: {result.images} images and their reconstructions, pixel-MSE {result.pixel_mse:.4f} in [0, 1]"
    else:
        errors = (f"{error:.4f} by {run}" for run, error in result.runs)
        text = f"{out}: {result.images} images and their reconstructions, pixel-MSE in [0, 1]: {', '.join(errors)}"
    emit(as_json, result.to_dict(), text)


@click.command(
    "inpaint", epilog="Example: galirep inpaint runs/mix --data sklearn:digits --split test --captions --out boxes.png"
)
@_run
@_data
@_split
@_out
@_ids
@_count("16", "Images to show.")
@_columns
@_captions
@_zoom
@shared("seed", "device", "overwrite", "splits", "data-root", "download", "trust-encoder")
def inpaint_command(run: Path, data: str, out: Path, ids: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Show images of a data set, the same with a random box erased, and with the box filled in by RUN.

    Outside the box is the image, inside G(mu(M(x))), M(x) being the image with the box erased.
    """
    from galirep import inpaint

    result = inpaint(run, data, out, ids=ids, **options)
    errors = f"{result.pixel_mse:.4f}, of the erased pixels alone {result.masked_pixel_mse:.4f}"
    emit(as_json, result.to_dict(), f"{out}: {result.images} images inpainted, pixel-MSE in [0, 1] {errors}")


@click.command(
    "interpolate",
    epilog="Example: galirep interpolate runs/digits --data sklearn:digits --split test --steps 6 --out way.png",
)
@_run
@click.option("--data", default=None, help="Data set; the ends are mu of two of its images.")
@click.option("--prior", is_flag=True, help="The ends are two z from the prior.")
@_split
@_out
@click.option(
    "--pair",
    "pairs",
    nargs=2,
    multiple=True,
    metavar="ID ID",
    help="From this image to this one: ids, or positions in the data; repeatable.",
)
@_count("4", "Pairs to draw.")
@click.option(
    "--path", type=Choice(["linear", "spherical"]), default="linear", show_default=True, help="Way between both ends."
)
@click.option(
    "--steps", type=click.IntRange(2), default=8, show_default=True, help="Images that G makes, both ends included."
)
@_captions
@_zoom
@shared("seed", "device", "overwrite", "splits", "data-root", "download", "trust-encoder")
def interpolate_command(
    run: Path, data: str | None, out: Path, pairs: tuple[tuple[str, str], ...], as_json: bool, **options: Any
) -> None:
    """Show what RUN makes of the latents between those of two images, or between two z."""
    from galirep import interpolate

    result = interpolate(run, data, out, pairs=pairs, **options)
    ends = "z of the prior" if result.pixel_mse is None else f"images (pixel-MSE {result.pixel_mse:.4f} in [0, 1])"
    emit(
        as_json,
        result.to_dict(),
        f"{out}: {result.count} {result.path} paths of {result.steps} steps between two {ends}",
    )
