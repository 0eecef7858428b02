"""`galirep sample` and `galirep reconstruct`: pictures of a trained run."""

from pathlib import Path

import click

from .common import emit, shared

_out = click.option("--out", required=True, type=click.Path(path_type=Path), help="PNG file to write.")
_columns = click.option("--columns", type=click.IntRange(1), default=8, show_default=True, help="Images in a row.")


@click.command("sample", epilog="Example: galirep sample runs/digits --out prior.png")
@click.argument("run", type=click.Path(path_type=Path))
@_out
@click.option("--count", type=click.IntRange(1), default=64, show_default=True, help="Images to draw.")
@_columns
@shared("seed", "device", "overwrite")
def sample_command(
    run: Path, out: Path, count: int, columns: int, seed: int, device: str, overwrite: bool, as_json: bool
) -> None:
    """Draw images from the prior of RUN as one PNG grid."""
    from galirep.evaluation.pictures import sample

    sample(run, out, count=count, columns=columns, seed=seed, device=device, overwrite=overwrite)
    emit(as_json, {"out": str(out), "count": count, "seed": seed}, f"{out}: {count} samples")


@click.command(
    "reconstruct", epilog="Example: galirep reconstruct runs/digits --data sklearn:digits --split test --out pairs.png"
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Data set whose images are shown.")
@click.option("--split", default=None, help="Split of the data set, where it has splits.")
@_out
@click.option(
    "--count",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Images to show, each beside its reconstruction.",
)
@_columns
@shared("seed", "device", "overwrite", "splits", "data-root", "download")
def reconstruct_command(
    run: Path,
    data: str,
    split: str | None,
    out: Path,
    count: int,
    columns: int,
    seed: int,
    device: str,
    overwrite: bool,
    splits: str,
    data_root: str | None,
    download: bool,
    as_json: bool,
) -> None:
    """Show images drawn from a data set, each followed by its reconstruction G(mu(x)) by RUN."""
    from galirep.evaluation.pictures import reconstruct

    result = reconstruct(
        run,
        data,
        out,
        split=split,
        splits=splits,
        count=count,
        columns=columns,
        seed=seed,
        device=device,
        overwrite=overwrite,
        data_root=data_root,
        download=download,
    )
    emit(
        as_json,
        result.to_dict(),
        f"{out}: {result.images} images and their reconstructions, pixel-MSE {result.pixel_mse:.4f} in [0, 1]",
    )
