"""Open the images and labels of a run and complete its settings. Nothing is written to disk."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from galirep.data.catalog import open_data
from galirep.data.handed.datasets import chosen_data, open_images
from galirep.data.memory import load_images, native_side
from galirep.data.report import announce
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError, DataError
from galirep.supervised.config import EPOCHS, ClassifierConfig
from galirep.supervised.nets import fitting_size, require_size
from galirep.supervised.targets import Targets, attribute_targets, class_targets
from galirep.system.files import sha256_file

_log = logging.getLogger("galirep.supervised")
# views by the number of channels: what has colour is taken for a photograph, what has none for writing or a drawing
_VIEWS = {3: "crop,flip,color,grey", 1: "crop,color"}


@dataclass(frozen=True)
class ReportedSplit:
    """A split that is only reported on, with the CSV file of its attributes where the labels are attributes."""

    split: str | None = None
    labels: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to begin: the complete settings, images and labels, and what run.json records.

    `targets` are None where the objective takes no labels.
    """

    config: ClassifierConfig
    pixels: Tensor
    targets: Targets | None
    test: tuple[Tensor, Targets | None] | None
    identity: dict[str, str | None]
    facts: dict[str, Any]


def prepare(
    config: ClassifierConfig,
    data: ImageSource | Any,
    test: ReportedSplit,
    *,
    data_root: str | Path | None,
    download: bool,
) -> Prepared:
    """Open and decode the images and labels of a run.

    Raises:
        ConfigError: a setting does not fit the data.
        DataError: images or labels cannot be used.
    """
    given = chosen_data(config.data, data)
    source = open_images(given, config.split, splits=config.splits, root=data_root, download=download)
    if not config.supervised:
        config, test = _without_labels(config, source, test)
    labels = None if config.labels is None else Path(config.labels)
    targets = _open_targets(config, source, labels)
    if targets is not None and targets.notes:
        source.tell(source.report.adding(notes=targets.notes))
    config = _resolve(config, source, targets)
    announce(source.report)
    pixels = _decode(source, config)
    config = dataclasses.replace(config, channels=pixels.shape[1])
    if not config.supervised and config.views is None:
        config = dataclasses.replace(config, views=_VIEWS[pixels.shape[1]])
    _warn_of_unused(config)
    test_set = _open_test(test, config, source, targets, data_root, download)
    identity = {"data": source.fingerprint, "labels": None if labels is None else sha256_file(labels)}
    data = {"spec": source.spec, "split": source.split, "images": len(source), "report": source.report.to_dict()}
    facts = {
        "kind": "classifier",
        "objective": config.objective,
        "labels_used": config.supervised,
        "identity": identity,
        "data": data,
    }
    return Prepared(config, pixels, targets, test_set, identity, facts)


def _warn_of_unused(config: ClassifierConfig) -> None:
    """Tell of settings that change nothing on these images."""
    if config.supervised:
        return
    if config.patience != ClassifierConfig.patience:
        _log.warning("patience %d is not used: training without labels makes all its epochs", config.patience)
    if "grey" in config.view_names and config.channels == 1:
        _log.warning("the view grey changes nothing: the images are grey")


def _open_targets(config: ClassifierConfig, source: ImageSource, labels: Path | None) -> Targets | None:
    if not config.supervised:
        return None
    return class_targets(source) if labels is None else attribute_targets(labels, source.ids)


def _without_labels(
    config: ClassifierConfig, source: ImageSource, test: ReportedSplit
) -> tuple[ClassifierConfig, ReportedSplit]:
    """Leave out the files of labels that were given, with a note in the report of the data."""
    given = {"labels": config.labels, "test_labels": test.labels}
    notes = tuple(
        f"{name} {str(path)!r} was not read: the objective {config.objective} takes no labels"
        for name, path in given.items()
        if path is not None
    )
    source.tell(source.report.adding(notes=notes))
    return dataclasses.replace(config, labels=None), ReportedSplit(test.split)


def _resolve(config: ClassifierConfig, source: ImageSource, targets: Targets | None) -> ClassifierConfig:
    """Fill in what the data decides, but for `channels` and `views`, which decoding tells."""
    net = config.net
    if net == "auto":
        net = "compact" if targets is None else "attributes" if targets.binary else "digits"
    size = config.image_size or fitting_size(net, native_side(source))
    # refused before any image is decoded
    require_size(net, size)
    epochs = EPOCHS if config.steps is None and config.epochs is None else config.epochs
    return dataclasses.replace(config, data=source.spec, split=source.split, net=net, image_size=size, epochs=epochs)


def _decode(source: ImageSource, config: ClassifierConfig) -> Tensor:
    assert config.image_size is not None
    return load_images(source, config.image_size, config.channels, num_workers=config.num_workers).tensor()


def _open_test(
    test: ReportedSplit,
    config: ClassifierConfig,
    train: ImageSource,
    targets: Targets | None,
    data_root: str | Path | None,
    download: bool,
) -> tuple[Tensor, Targets | None] | None:
    """Return the images and labels of the test split, numbered as in training; None if there is none."""
    if test.split is None:
        if test.labels is not None:
            raise ConfigError(f"labels {str(test.labels)!r} of a test split: name the split too, --test-split")
        return None
    if targets is not None and targets.binary and test.labels is None:
        raise ConfigError(f"test split {test.split!r}: name the CSV file of its attributes with --test-labels")
    source = open_data(train.spec, test.split, splits=train.splits, root=data_root, download=download)
    if targets is None:
        return _decode(source, config), None
    if targets.binary and test.labels is not None:
        return _decode(source, config), attribute_targets(test.labels, source.ids, targets.names)
    classes = class_targets(source)
    if classes.names != targets.names:
        raise DataError(
            f"the split {test.split!r} has the classes {', '.join(classes.names)}, not {', '.join(targets.names)}"
        )
    labelled = np.flatnonzero(classes.values.numpy() >= 0)
    return _decode(source.subset(labelled), config), dataclasses.replace(classes, values=classes.values[labelled])
