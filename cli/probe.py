"""`galirep probe`."""

import sys
from pathlib import Path
from typing import Any

import click

from .common import emit, layers_option, shared


@click.command("probe")
@click.argument("train", type=click.Path())
@click.option("--test", type=click.Path(), metavar="TEST.h5", help="Embeddings to test on [default: a fifth of TRAIN].")
@click.option(
    "--protocol",
    default="linear-svm/v1",
    show_default=True,
    metavar="NAME",
    help="linear-svm/v1, ali-l2svm/v1 or knn/v1; galirep list protocols tells what they are.",
)
@layers_option("Layers by name, with commas [default: all that the file holds].")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a number of the protocol; the result is called custom.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.json", help="Write the result here too."
)
@shared("seed", "overwrite")
def probe_command(settings: tuple[str, ...], out: Path | None, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Fit a classifier on the embeddings TRAIN.h5 and report its error on TEST.h5.

    \b
    Example:
      galirep probe train.h5 --test test.h5 --layers mu
      galirep probe train.h5 --test test.h5 --protocol ali-l2svm/v1 --set draws=10
    """
    from galirep.probing.probe import probe
    from galirep.system.files import require_free, write_json
    from galirep.system.settings import parse_assignments

    if out:
        require_free(out, overwrite)
    result = probe(settings=parse_assignments(settings), progress=sys.stderr.isatty(), **options)
    if out:
        write_json(out, result, overwrite)
    emit(as_json, result, _text(result, out))


def _text(result: dict[str, Any], out: Path | None) -> str:
    spread = (
        f" ± {100 * result['error_std']:.2f} over {len(result['errors'])} draws" if len(result["errors"]) > 1 else ""
    )
    by_k = result.get("errors_by_k", {}).items()
    rows = [
        ("protocol", result["protocol"]),
        ("train", f"{result['train']}: {result['n_train']} rows of {result['n_classes']} classes"),
        ("test", f"{result['test']}: {result['n_test']} rows"),
        ("features", f"{', '.join(result['layers'])} ({result['n_features']} columns)"),
        ("C", f"{result['C']:.3g}" if result["C"] is not None else ""),
        ("by k", ", ".join(f"{k}: {'too few rows' if error is None else f'{100 * error:.2f} %'}" for k, error in by_k)),
        (
            "error",
            f"{100 * result['error_mean']:.2f} %{spread} (standard error on {result['n_test']}: {100 * result['error_stderr']:.2f})",
        ),
        ("baseline", result["baseline"]),
        *(("note", note) for note in result["notes"]),
        ("written", str(out or "")),
    ]
    return "\n".join(f"{name:9} {value}" for name, value in rows if value)
