"""The metrics by name."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from galirep.errors import ConfigError, unknown
from galirep.evaluation.measures.distributions import FID, KID
from galirep.evaluation.measures.inpainting import INPAINTING
from galirep.evaluation.measures.latents import POSTERIOR
from galirep.evaluation.measures.probing import PROBE
from galirep.evaluation.measures.reconstruction import FEATURE_MSE, PIXEL_MSE
from galirep.evaluation.measures.scene import Measure
from galirep.evaluation.subjects import Subject

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "pixel-mse": PIXEL_MSE,
        "feature-mse": FEATURE_MSE,
        "fid": FID,
        "kid": KID,
        "inpainting": INPAINTING,
        "posterior": POSTERIOR,
        "probe": PROBE,
    }
)
"""Metric name -> metric, in the order in which they are measured and printed."""
ALL = "all"


def choose_metrics(metrics: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of metrics, given as a list or as one text with commas, in the order of `MEASURES`.

    Raises:
        ConfigError: there are none, or one is unknown.
    """
    given = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    if not given or not all(given):
        raise ConfigError(f"metrics {metrics!r}: name one or more of {', '.join(MEASURES)}, or {ALL}")
    for name in given:
        if name not in (*MEASURES, ALL):
            raise ConfigError(unknown("metric", name, (*MEASURES, ALL)))
    return tuple(name for name in MEASURES if name in given or ALL in given)


def missing_functions(subject: Subject, metric: str) -> str:
    """Return why a metric cannot be had of a subject, or an empty text."""
    lacking = [name for name in MEASURES[metric].needs if getattr(subject, name) is None]
    if not lacking:
        return ""
    possible = [
        name for name, measure in MEASURES.items() if all(getattr(subject, need) is not None for need in measure.needs)
    ]
    what = {
        "rebuild": "reconstructions",
        "complete": "reconstructions",
        "generate": "generator",
        "posterior": "posterior",
    }
    wanted = what.get(lacking[0], "features")
    article = "an" if subject.kind[0] in "aeiou" else "a"
    return (
        f"{metric} cannot be had of {subject.name}, {article} {subject.kind} without {wanted}: "
        f"it has {', '.join(possible) or 'no metric'}"
    )
