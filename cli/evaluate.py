"""`galirep evaluate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import emit, layers_option, say, shared

if TYPE_CHECKING:
    from galirep.evaluation.result import EvaluationResult


@click.command("evaluate")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--data", required=True, metavar="SPEC", help="Data set to measure on, as for galirep embed.")
@click.option("--split", help="Split of the data set  [default: test or val, where it has one]")
@click.option(
    "--metrics",
    metavar="LIST",
    help="Of pixel-mse, feature-mse, fid, kid, inpainting, posterior, probe, with commas, or all  "
    "[default: all but probe that need no more than what is given]",
)
@click.option(
    "--extractor",
    metavar="EXTRACTOR",
    help="Network of features for feature-mse, inpainting, fid and kid: classifier:DIR, timm:NAME@FILE, ...",
)
@click.option(
    "--inception",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Weights of FID's Inception, in whose features fid and kid are then measured.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    metavar="N",
    help="Samples that fid and kid compare with as many images  [default: all images, at most 10,000]",
)
@click.option(
    "--probe-train",
    metavar="SPLIT|SPEC",
    help="Training images of the probe and of the floor of fid: a split of the data, or a data set  "
    "[default: its training split]",
)
@click.option("--protocol", default="linear-svm/v2", show_default=True, metavar="NAME", help="Protocol of the probe.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a number of the probe's protocol.")
@layers_option("Layers of the encoder to probe, with commas  [default: its own choice]")
@click.option(
    "--image-size", type=click.IntRange(1), metavar="N", help="Side of the images for an extractor that takes any."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    metavar="FILE.json",
    help="Keep every finished metric here; what it has of the same run, data and settings is not measured again.",
)
@click.option(
    "--save-values", type=click.Path(dir_okay=False), metavar="FILE.h5", help="Write the values of each image here."
)
@shared("seed", "device", "workers", "overwrite", "splits", "data-root", "download", "trust-encoder", "max-pixels")
def evaluate_command(runs: tuple[str, ...], as_json: bool, settings: tuple[str, ...], **options: Any) -> None:
    """Measure RUN on a data set, or several RUNs in one table.

    RUN is a run directory or an export; or an extractor, of which the probe can be had. docs/evaluation.md defines the
    metrics.

    \b
    Example:
      galirep evaluate runs/mnist --data mnist.tar --extractor classifier:m --out mnist.json
      galirep evaluate runs/ali runs/gali-4 --data mnist.tar --metrics pixel-mse,inpainting
    """
    from galirep.evaluation.evaluate import evaluate_runs
    from galirep.system.settings import parse_assignments

    results = evaluate_runs(runs, settings=parse_assignments(settings), progress=sys.stderr.isatty(), **options)
    for result in results:
        for text in result.warnings:
            say(text)
    values = [result.to_dict() for result in results]
    text = _describe(results[0]) if len(results) == 1 else _table(results)
    written = [f"written {path}" for path in (options["out"], options["save_values"]) if path]
    emit(as_json, values[0] if len(values) == 1 else {"runs": values}, "\n".join([text, *written]))


def _describe(result: "EvaluationResult") -> str:
    from galirep.evaluation.measures.registry import MEASURES

    run, data = result.run, result.data
    step = f", {run['variant']}, {run['step']} updates" if "step" in run else ""
    split = f" ({data['split']})" if data["split"] else ""
    rows = [
        ("run", f"{run['path']}{step}"),
        ("data", f"{data['spec']}{split}: {data['images']} images {data['channels']}x{data['size']}x{data['size']}"),
        *((name, MEASURES[name].line(entry)) for name, entry in result.metrics.items()),
    ]
    return "\n".join(f"{name:12} {value}" for name, value in rows)


def _table(results: Sequence["EvaluationResult"]) -> str:
    """Return one line a run; ± is the std of each metric, which `--json` explains."""
    from galirep.evaluation.notes import format_shape

    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    shapes = [format_shape(result.data["size"], result.data["channels"]) for result in results]
    several = len(set(shapes)) > 1
    rows = [["run", *(["images"] if several else []), *names]]
    for result, shape in zip(results, shapes, strict=True):
        about = [str(Path(result.run["path"])), *([shape] if several else [])]
        rows.append([*about, *(_cell(result.metrics.get(name)) for name in names)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    data = results[0].data
    split = f" ({data['split']})" if data["split"] else ""
    return "\n".join([f"{data['spec']}{split}: {data['images']} images", *lines])


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    return f"{entry['mean']:.4g}" + ("" if entry["std"] is None else f" ± {entry['std']:.2g}")
