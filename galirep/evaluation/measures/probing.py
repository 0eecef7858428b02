"""`probe`: a protocol of `galirep probe` on the features of the encoder, in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from galirep.data.memory import Images
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError, DataError, format_list, unknown
from galirep.evaluation.images import note_unreadable
from galirep.evaluation.measures.scene import Measure, Scene, Score, features_of, train_key
from galirep.metrics.arrays import F32
from galirep.probing.labelled import RareClassError, from_arrays
from galirep.probing.probe import fit_probe
from galirep.probing.protocols import PROTOCOLS

_REPEATED = (
    "protocol",
    "settings",
    "seed",
    "n_train",
    "n_classes",
    "n_features",
    "C",
    "error_stderr",
    "baseline_error",
)


def _probe(scene: Scene) -> Score:
    train, test = _labelled(scene)
    train_names, test_names = _classes(train), _classes(test)
    unseen = sorted(set(test_names) - set(train_names) - {""})
    if unseen:
        raise DataError(
            f"classes of {_where(test)} that {_where(train)} lacks: {format_list(map(repr, unseen))}: "
            "give training images that have them with --probe-train"
        )
    features = [_features(scene, images, what) for images, what in ((train, "training"), (test, "test"))]
    notes: list[str] = []
    try:
        result = fit_probe(
            from_arrays(features[0], train_names, _where(train), "TRAIN", notes),
            from_arrays(features[1], test_names, _where(test), "TEST", notes),
            protocol=scene.options.protocol,
            seed=scene.options.seed,
            settings=scene.options.protocol_settings,
            progress=scene.progress,
        )
    except RareClassError as err:
        raise DataError(f"{err}: give training images that have more of it with --probe-train") from None
    values = result.to_dict()
    notes += result.notes
    details = {key: values[key] for key in _REPEATED}
    details |= {"layers": dict(scene.subject.layers), "errors": result.errors, "notes": notes}
    read = {"images": len(train), "errors": len(train.errors)}
    details |= {"converged": result.converged, "train": {**(scene.train_about or {}), **read}}
    warnings = (*note_unreadable(train, "training"), *(f"probe of {scene.subject.name}: {note}" for note in notes))
    return Score(result.error_mean, result.error_std, "draws", result.n_test, details, warnings=warnings)


def _labelled(scene: Scene) -> tuple[Images, Images]:
    """Return the training and the test images, both with labels.

    Raises:
        ConfigError: there are no training images.
        DataError: one side has no labels.
    """
    train = scene.train(None)
    if train is None:
        raise ConfigError(_NO_TRAIN)
    _require_labels(train)
    _require_labels(scene.images)
    return train, scene.images


_NO_TRAIN = (
    "probe needs labelled training images, and the data has no other split for them: "
    "name a split or a data set with --probe-train"
)


def _require_labels(images: Images | ImageSource) -> None:
    if images.labels is None or not (images.labels >= 0).any():
        raise DataError(f"{_where(images)} has no labels: a probe needs the class of each image")


def _classes(images: Images) -> list[str]:
    """Return the name of each image's class, its number where it has no name; "" for no label."""
    assert images.labels is not None
    named = images.label_names
    return ["" if k < 0 else named[k] if k < len(named) else str(k) for k in images.labels.tolist()]


def _where(images: Images | ImageSource) -> str:
    return f"{images.spec}" + (f" ({images.split})" if images.split else "")


def _features(scene: Scene, images: Images, what: str) -> F32:
    who = f"{scene.subject.name} on the {what} images"
    features = features_of(scene.need("extract"), scene.blocks(f"probe, {what}", images.pixels), who)
    return np.ascontiguousarray(features)


def _plan(scene: Scene) -> dict[str, Any]:
    options = scene.options
    if options.protocol not in PROTOCOLS:
        raise ConfigError(unknown("protocol", options.protocol, PROTOCOLS))
    if scene.train_about is None:
        raise ConfigError(_NO_TRAIN)
    _require_labels(scene.source)
    return {
        "seed": options.seed,
        "protocol": options.protocol,
        "settings": PROTOCOLS[options.protocol].merge_settings(options.protocol, options.protocol_settings),
        "layers": dict(scene.subject.layers),
        "train": train_key(scene),
    }


def _line(entry: Mapping[str, Any]) -> str:
    spread = "" if entry["std"] is None else f" ± {100 * entry['std']:.2f}"
    return (
        f"{100 * entry['mean']:.2f}{spread} % error  ({entry['protocol']}, {entry['n_train']} training rows of "
        f"{entry['n_classes']} classes, {', '.join(entry['layers'])}; standard error {100 * entry['error_stderr']:.2f})"
    )


PROBE = Measure("test error of --protocol on the features of the encoder", ("extract",), _plan, _probe, _line)
