"""`galirep train-classifier`: a supervised net to serve as M or as a yardstick."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .common import Choice, emit, shared


@click.command(
    "train-classifier", epilog="Example: galirep train-classifier --data mnist.tar --test-split test --out runs/m"
)
@click.option(
    "--data",
    required=True,
    help="Training images: a folder or .tar of class subfolders, sklearn:digits, torchvision:NAME, ...",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Run directory to make, or with --resume to go on with.",
)
@click.option(
    "--labels",
    type=click.Path(),
    help="CSV file of binary attributes: id,NAME,... with 0 and 1.  [default: the data's classes]",
)
@click.option("--split", help="Split of the data to train on.  [default: its training split]")
@click.option("--test-split", help="Split of the data to report the accuracy on.")
@click.option("--test-labels", type=click.Path(), help="CSV file of the attributes of the test split.")
@click.option(
    "--net",
    type=Choice(["auto", "digits", "attributes"]),
    default="auto",
    show_default=True,
    help="auto: attributes with --labels.",
)
@click.option(
    "--image-size",
    type=click.IntRange(8, 512),
    help="Side of the images, pixels.  [default: theirs, rounded up for the net]",
)
@click.option("--channels", type=Choice(["1", "3"]), help="Colour channels.  [default: those of the images]")
@click.option(
    "--epochs", type=click.IntRange(1), default=10, show_default=True, help="Most passes over the training images."
)
@click.option("--batch-size", type=click.IntRange(2), default=128, show_default=True, help="Images an update.")
@click.option(
    "--lr",
    type=float,
    default=1e-3,
    show_default=True,
    help="Adam's learning rate at the start; a cosine takes it to 0.",
)
@click.option(
    "--val-fraction", type=float, default=0.1, show_default=True, help="Share of the training images held out."
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Epochs without a lower validation loss till it stops.",
)
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@shared("seed", "device", "precision", "workers", "overwrite", "data-root", "download")
def train_classifier_command(
    out: Path,
    channels: str | None,
    test_split: str | None,
    test_labels: str | None,
    resume: bool,
    overwrite: bool,
    data_root: str | None,
    download: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a supervised net to serve as M(.) of GALI-PT, as an encoder or as a yardstick; `classifier:DIR` names it then.

    Without --labels the net learns the classes of the data, with --labels binary attributes. Its hidden layer, 256 wide, is the feature.
    """
    from galirep.supervised.loop import train_classifier
    from galirep.supervised.task import ClassifierConfig

    def tell(row: Mapping[str, Any]) -> None:
        text = f"epoch {row['epoch']}: loss {row['loss']:.4f}; held out: loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
        click.echo(text, err=True)

    config = ClassifierConfig(channels=int(channels) if channels else None, **settings)
    result = train_classifier(
        config,
        out=out,
        test_split=test_split,
        test_labels=test_labels,
        data_root=data_root,
        resume=resume,
        overwrite=overwrite,
        download=download,
        on_epoch=tell,
    )
    report = result.report if result.test is None else result.test
    where = "held-out images" if result.test is None else f"the split {test_split!r}"
    lines = [
        f"{out}: {result.epochs} epochs, the best one {result.best_epoch}; accuracy {report['accuracy']:.4f} on {report['n']} of {where}"
    ]
    for name, value in report.get("attributes", {}).items():
        lines.append(f"  {name}: {value['accuracy']:.4f} (commonest answer {value['commonest']:.4f})")
    emit(as_json, {**dataclasses.asdict(result), "run": str(out)}, "\n".join(lines))
