"""`galirep train-classifier`: every setting of ClassifierConfig is an option; files and --set give them too."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from galirep.supervised.config import ClassifierConfig

from .common import emit, shared
from .settings import build_settings, run_options, settings_command

if TYPE_CHECKING:
    from galirep.supervised.loop import ClassifierResult


_COMMON = ("data", "labels", "objective", "net", "image_size", "epochs")
_SECTIONS = {
    "Data": "data",
    "Objective and net": "objective",
    "Optimisation": "steps",
    "Machine": "seed",
}


@settings_command(
    ClassifierConfig,
    "train-classifier",
    epilog="Example: galirep train-classifier --data mnist.tar --test-split test --out runs/m",
    common=_COMMON,
    sections=_SECTIONS,
)
@run_options
@click.option(
    "--test-split", help="Split of the data to report the accuracy on, or the loss of an objective without labels."
)
@click.option("--test-labels", type=click.Path(), help="CSV file of the attributes of the test split.")
@shared("data-root", "download", "max-pixels", "force-unlock")
def train_classifier_command(
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    test_split: str | None,
    test_labels: str | None,
    resume: bool,
    overwrite: bool,
    force_unlock: bool,
    data_root: str | None,
    download: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a net, to serve by the name classifier:DIR as M(.) of GALI-PT, as an encoder or a yardstick.

    Without --labels the net learns the classes of the data, with --labels binary attributes; with --objective vicreg or
    info-nce it takes no labels, and learns that two views show the same image. Its last hidden layer is the feature.
    """
    config = build_settings(
        ClassifierConfig, out, config_file=config_file, assignments=assignments, resume=resume, options=options
    )
    from galirep.supervised.loop import train_classifier

    result = train_classifier(
        config,
        out=out,
        test_split=test_split,
        test_labels=test_labels,
        data_root=data_root,
        resume=resume,
        overwrite=overwrite,
        download=download,
        force_unlock=force_unlock,
        on_epoch=_print_epoch,
    )
    emit(as_json, result.to_dict(), _text(result, test_split))


def _print_epoch(row: Mapping[str, Any]) -> None:
    held_out = f"loss {row['val_loss']:.4f}, "
    if "val_accuracy" in row:
        held_out += f"accuracy {row['val_accuracy']:.4f}"
    else:
        held_out += f"feature rank {row['val_feature_rank']:.1f}"
    click.echo(f"epoch {row['epoch']}: loss {row['loss']:.4f}; held out: {held_out}", err=True)


def _text(result: "ClassifierResult", test_split: str | None) -> str:
    report, images = result.report, f"{result.report['n']} held-out images"
    if result.test is not None:
        left = result.test.get("images", result.test["n"]) - result.test["n"]
        note = f" ({left} that fill no batch are left out)" if left else ""
        report, images = result.test, f"{result.test['n']} images of the split {test_split!r}{note}"
    if "accuracy" not in report:
        rank = f"loss {report['loss']:.4f} and effective rank of the features {report['feature_rank']:.1f}"
        return f"{result.run}: {result.epochs} epochs without labels; {rank} on {images}"
    lines = [
        f"{result.run}: {result.epochs} epochs, the best one {result.best_epoch}; "
        f"accuracy {report['accuracy']:.4f} on {images}"
    ]
    for name, value in report.get("attributes", {}).items():
        lines.append(f"  {name}: {value['accuracy']:.4f} (commonest answer {value['commonest']:.4f})")
    return "\n".join(lines)
