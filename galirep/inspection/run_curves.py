"""What of a run's metrics is drawn: a chart for each quantity, a curve for each run, and what to compare it with."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galirep.game.objectives import OBJECTIVES, chance
from galirep.inspection.opened_run import OpenedRun
from galirep.visuals.chart import Chart, Line

Levels = Callable[[OpenedRun], list[tuple[str, float]]]


@dataclass(frozen=True)
class Quantity:
    """A column of `OpenedRun.table`, its title, and the levels that a run is compared with."""

    column: str
    title: str
    levels: Levels = lambda _: []


def _chance_of(player: str) -> Levels:
    def levels(run: OpenedRun) -> list[tuple[str, float]]:
        classes, objective = classes_of(run), str(run.config.get("objective"))
        if not classes or objective not in OBJECTIVES:
            return []
        return [("chance", float(getattr(chance(classes, objective), player)))]

    return levels


def _mean_image(run: OpenedRun) -> list[tuple[str, float]]:
    values = [value for value in run.table().get("evaluation.mean_image_mse", []) if value is not None]
    return [("mean image", values[-1])] if values else []


def classes_of(run: OpenedRun) -> int:
    """Return the number of classes of the game of a run; 0 where it is no game."""
    variant = run.info.get("variant")
    classes = variant.get("classes") if isinstance(variant, Mapping) else None
    return len(classes) if isinstance(classes, Sequence) else 0


_GAME = (
    Quantity("loss_d", "Loss of D", _chance_of("d")),
    Quantity("loss_g", "Loss of G and E", _chance_of("g")),
    Quantity("true_class", "D's probability of the true class", lambda run: [("chance", 1 / classes_of(run))]),
    Quantity("evaluation.pixel_mse", "Held-out pixel-MSE", _mean_image),
    Quantity("evaluation.knn_error", "Held-out kNN error"),
    Quantity("evaluation.latent_mse", "Cycle of latents, MSE", lambda _: [("variance of the prior", 1.0)]),
    Quantity("evaluation.mu_variance", "Posterior: variance of mu"),
    Quantity("evaluation.sigma", "Posterior: mean sigma"),
    Quantity("evaluation.kl", "Posterior: KL to the prior, nats"),
    Quantity("evaluation.mu_rank", "Effective rank of mu"),
    Quantity("evaluation.feature_rank", "Effective rank of the last hidden layer"),
    Quantity("gradient_norms.G", "Gradient norm of G"),
    Quantity("gradient_norms.D", "Gradient norm of D"),
    Quantity("r1", "Gradient penalty of D"),
    Quantity("penalty", "Penalties of the variant"),
    Quantity("lr", "Learning rate"),
    Quantity("images_per_second", "Images a second"),
)
_NOT_DRAWN = {"step", "epoch", "seconds"}


def charts(runs: Mapping[str, OpenedRun]) -> list[Chart]:
    """Return the charts of runs by name: what none of them measured is left out."""
    tables = {name: _columns(run) for name, run in runs.items()}
    known = {quantity.column for quantity in _GAME}
    quantities = list(_GAME)
    if any(run.kind != "train" for run in runs.values()):
        others = dict.fromkeys(column for table in tables.values() for column in table if column not in known)
        quantities = [Quantity(name, name.replace("_", " ")) for name in others if name not in _NOT_DRAWN] + quantities
    drawn = []
    for quantity in quantities:
        lines: list[Line] = []
        levels: dict[tuple[tuple[str, float], ...], list[str]] = {}
        for colour, (name, run) in enumerate(runs.items()):
            column, steps = tables[name].get(quantity.column, []), tables[name].get("step", [])
            points = [(s, v) for s, v in zip(steps, column, strict=False) if v is not None and math.isfinite(v)]
            if points:
                lines.append(Line(name, points, colour))
                levels.setdefault(tuple(quantity.levels(run)), []).append(name)
        # a rate that nobody changed is among the settings
        if lines and not (quantity.column == "lr" and len({y for line in lines for _, y in line.points}) == 1):
            drawn.append(Chart(quantity.title, lines, _named(levels)))
    return drawn


def _named(levels: Mapping[tuple[tuple[str, float], ...], Sequence[str]]) -> list[tuple[str, float]]:
    """Return the levels once each; where runs have different ones, with the names of the runs."""
    some = {level: names for level, names in levels.items() if level}
    if len(some) < 2:
        return [one for level in some for one in level]
    return [(f"{text} ({', '.join(names)})", value) for level, names in some.items() for text, value in level]


def _columns(run: OpenedRun) -> dict[str, list[Any]]:
    """Return the run's table, with the mean of D's matrix on its diagonal."""
    table = run.table()
    if any("probs" in row for row in run.metrics):
        table["true_class"] = [_diagonal(row.get("probs")) for row in run.metrics]
    return table


def _diagonal(probs: Sequence[Sequence[float]] | None) -> float | None:
    return sum(row[i] for i, row in enumerate(probs)) / len(probs) if probs else None
