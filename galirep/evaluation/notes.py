"""What a reader of an evaluation must know, and options that serve no metric that is measured."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from galirep.errors import ConfigError
from galirep.evaluation.measures.scene import Scene
from galirep.probing.probe import DEFAULT_PROTOCOL

_WITH_SAMPLES = ("fid", "kid")
# option -> the metrics that it serves
_SERVED = {
    "--layers": ("probe",),
    "--set": ("probe",),
    "--protocol": ("probe",),
    "--probe-train": ("probe", *_WITH_SAMPLES),
    "--samples": _WITH_SAMPLES,
    "--inception": _WITH_SAMPLES,
    "--extractor": ("feature-mse", "inpainting", *_WITH_SAMPLES),
}


def require_used(given: Mapping[str, Any], metrics: Collection[str]) -> None:
    """Check that each option that was given serves a metric that is measured; `given` are options -> values.

    Raises:
        ConfigError: one serves none.
    """
    for option, served in _SERVED.items():
        value = given.get(option)
        unset = value is None or value == {} or (option == "--protocol" and value == DEFAULT_PROTOCOL)
        if not unset and not set(served) & set(metrics):
            raise ConfigError(
                f"{option} is for {', '.join(served)}, and what is measured is {', '.join(metrics)}: "
                f"leave it out, or name {served[0]} in --metrics"
            )


def note_training_images(scene: Scene) -> list[str]:
    """Return a warning if a run was trained on the images that it is measured on, or nothing."""
    trained_on = scene.subject.facts.get("trained_on", {})
    if trained_on.get("fingerprint") != scene.source.fingerprint:
        return []
    return [f"{scene.subject.name} was trained on these images: the numbers do not tell of others"]


def note_shapes(scenes: Sequence[Scene]) -> list[str]:
    """Return a warning if the images of several runs differ in size or channels, or nothing."""
    shapes: dict[str, list[str]] = {}
    for scene in scenes:
        shapes.setdefault(format_shape(*scene.shape), []).append(scene.subject.name)
    if len(shapes) < 2:
        return []
    listed = "; ".join(f"{shape}: {', '.join(names)}" for shape, names in shapes.items())
    return [f"the runs are measured on images of different shapes, so their numbers do not compare ({listed})"]


def format_shape(size: int, channels: int) -> str:
    """Return the shape of an image in words: `3x32x32`."""
    return f"{channels}x{size}x{size}"
