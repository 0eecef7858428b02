"""`galirep probe`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import emit, layers_option, shared, show_report

if TYPE_CHECKING:
    from galirep.probing.result import ProbeResult


@click.command("probe")
@click.argument("train", type=click.Path())
@click.option("--test", type=click.Path(), metavar="TEST.h5", help="Embeddings to test on [default: a fifth of TRAIN].")
@click.option(
    "--protocol",
    default="linear-svm/v2",
    show_default=True,
    metavar="NAME",
    help="Probe protocol; galirep list protocols describes them.",
)
@layers_option("Layers by name, separated by commas [default: all layers of the file].")
@click.option(
    "--choose-layers",
    is_flag=True,
    help="Choose among these layers by cross-validation on the rows the probe is fitted on, never on TEST.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a number of the protocol; the result is named NAME/custom.",
)
@click.option(
    "--min-per-class",
    type=click.IntRange(1),
    metavar="N",
    help="Leave out the classes with fewer than N training rows, on both sides.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.json", help="Write the result here too."
)
@shared("seed", "overwrite")
def probe_command(
    train: str,
    test: str | None,
    protocol: str,
    layers: list[str] | None,
    choose_layers: bool,
    settings: tuple[str, ...],
    min_per_class: int | None,
    out: Path | None,
    seed: int,
    overwrite: bool,
    force_unlock: bool,
    as_json: bool,
) -> None:
    """Fit a classifier on the embeddings TRAIN.h5 and report its error on TEST.h5.

    \b
    Example:
      galirep probe train.h5 --test test.h5 --layers mu
      galirep probe train.h5 --test test.h5 --protocol logistic/v1 --choose-layers
      galirep probe train.h5 --test test.h5 --protocol ali-l2svm/v1 --set draws=10
    """
    from galirep.probing.probe import probe
    from galirep.system.files import require_free, require_suffix, write_json
    from galirep.system.outputs.holding import hold
    from galirep.system.outputs.inputs import require_apart
    from galirep.system.settings import parse_assignments

    if out:
        require_apart([out], [train, test])
    with hold(*([out] if out else []), force=force_unlock):
        if out:
            require_free(out, overwrite)
            require_suffix(out, ".json")
        result = probe(
            train,
            test,
            protocol=protocol,
            layers=layers,
            choose_layers=choose_layers,
            seed=seed,
            settings=parse_assignments(settings),
            min_per_class=min_per_class,
            progress=sys.stderr.isatty(),
        )
        if out:
            write_json(out, result.to_dict(), overwrite)
    for report in (result.data_report or {}).values():
        show_report(report)
    emit(as_json, result.to_dict(), _format(result, out))


def _format(result: "ProbeResult", out: Path | None) -> str:
    n_draws = len(result.errors)
    spread = "" if result.error_std is None else f" ± {100 * result.error_std:.2f} over {n_draws} draws"
    stderr = f"standard error on {result.n_test}: {100 * result.error_stderr:.2f}"
    by_k = [f"{k}: {_format_error(error)}" for k, error in (result.errors_by_k or {}).items()]
    rows = [
        ("protocol", result.protocol),
        ("train", f"{result.train}: {result.n_train} rows of {result.n_classes} classes"),
        ("test", f"{result.test}: {result.n_test} rows"),
        ("features", f"{', '.join(result.layers)} ({result.n_features} columns)"),
        ("chosen", "" if result.chosen_layers is None else _format_choice(result.chosen_layers)),
        ("scaling", result.scaling or ""),
        ("C", "" if result.C is None else f"{result.C:.3g}"),
        ("by k", ", ".join(by_k)),
        ("error", f"{100 * result.error_mean:.2f} %{spread} ({stderr})"),
        ("baseline", result.baseline),
        *(("note", note) for note in result.notes),
        ("written", str(out or "")),
    ]
    return "\n".join(f"{name:9} {value}" for name, value in rows if value)


def _format_choice(choice: dict[str, Any]) -> str:
    return (
        f"{len(choice['layers'])} layers after {len(choice['path'])} sets tried on {choice['n_rows']} training rows; "
        f"cross-validation error {100 * choice['error']:.2f} %"
    )


def _format_error(error: float | None) -> str:
    return "too few rows" if error is None else f"{100 * error:.2f} %"
