"""Group `arithmetic`: bf16, fp16 with its scaler and TF32 train as float32 does; what torch.compile makes of it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from galirep.training.session import Session
from gpu_checks.harness.check import Check, Failed, Figure, Setup, Skip, require
from gpu_checks.harness.child import use_tf32
from gpu_checks.subjects import images, session, settings

SPREAD_TOLERANCE = 1.5
"""Largest distance of the losses from float32's, as a multiple of that between two seeds in float32.

The distance is the mean over the updates of |loss - float32's loss| at the same seed, of D and of G and E. A game is
chaotic: after some updates any rounding has grown until the run is one of the many that a seed could have given. So a
precision is as good as float32 if its run is no further away than another seed's; one and a half times, for one pair of
seeds is one draw. Before the chaos, over the first updates, the seed (other images, other noise) must make by far the
larger difference: there the distance may be half the spread.
"""
EARLY_TOLERANCE = 0.5
_EARLY = 10
COMPILED_TOLERANCE = 1e-4
"""Largest relative distance of a compiled first update's losses from the eager one's: fused kernels round otherwise."""
_UPDATES = 200
_COMPILED_UPDATES = 20

Losses = list[tuple[float, float]]


def _session(setup: Setup, **changes: Any) -> Session:
    config = settings(setup.quick, d_regularizer="sn-scale", **changes)
    return session(config, images(512, 16 if setup.quick else 32), setup.device)


def _losses(run: Session, updates: int) -> Losses:
    """Return the losses of D and of G and E of each update."""
    found = []
    for _ in range(updates):
        run.advance()
        row = run.report()
        found.append((row.loss_d, row.loss_g))
    return found


def _distance(one: Losses, other: Losses) -> float:
    pairs = zip(one, other, strict=True)
    return sum(abs(a - c) + abs(b - d) for (a, b), (c, d) in pairs) / (2 * len(one))


def beside_float32(setup: Setup, precision: str) -> Figure:
    """Train with equal seeds in float32 and in `precision`, and in float32 with another seed."""
    if not setup.on_card and precision in ("fp16", "tf32"):
        raise Skip(f"a CPU has no {precision}")
    updates = 2 if setup.quick else _UPDATES
    plain = _losses(_session(setup), updates)
    other = _losses(_session(setup, seed=1), updates)
    spread = _distance(other, plain)
    use_tf32(precision == "tf32")
    run = _session(setup, precision="fp32" if precision == "tf32" else precision)
    found = _losses(run, updates)
    use_tf32(False)
    distance = _distance(found, plain)
    early, early_spread = _distance(found[:_EARLY], plain[:_EARLY]), _distance(other[:_EARLY], plain[:_EARLY])
    values = {"distance": distance, "spread_of_seeds": spread, "updates": updates, "last": found[-1]}
    values |= {"early_distance": early, "early_spread_of_seeds": early_spread}
    text = f"{distance:.1e} from float32 over {updates} updates, two seeds {spread:.1e}"
    text += f"; over {min(_EARLY, updates)}: {early:.1e}, {early_spread:.1e}"
    if precision == "fp16":
        values["scale"] = run.optimizers.scaler.get_scale()
        text += f"; loss scale {values['scale']:g}"
        # 2 ** 16 halves at every overflow: below 1 nothing but overflows was seen
        require(values["scale"] >= 1, text, values)
    holds = distance <= SPREAD_TOLERANCE * spread and early <= EARLY_TOLERANCE * early_spread
    return require(holds, text, values)


def compiled(setup: Setup) -> Figure:
    """Compile the networks, train, and compare the first update with the eager one; say what fell back and why."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    eager = _losses(_session(setup), 1)[0]
    run = _session(setup, compile=True)
    found = _losses(run, _COMPILED_UPDATES)
    away = max(abs(a - b) / abs(b) for a, b in zip(found[0], eager, strict=True))
    breaks = {reason: int(count) for reason, count in counters["graph_break"].items()}
    graphs = int(counters["stats"]["unique_graphs"])
    values = {"first": found[0], "eager": eager, "graphs": graphs, "graph_breaks": breaks}
    text = f"{graphs} graphs, first losses {away:.0e} from eager; {_reasons(list(breaks))}"
    if graphs == 0:
        raise Failed(f"nothing was compiled; {_reasons(list(breaks))}", values)
    finite = all(abs(v) < 1e3 for pair in found for v in pair)
    return require(away <= COMPILED_TOLERANCE and finite, text, values)


def _reasons(breaks: Sequence[str]) -> str:
    if not breaks:
        return "nothing falls back"
    first = breaks[0].strip().splitlines()[0]
    return f"{len(breaks)} kinds of graph breaks, the first: {first}"


CHECKS = [
    Check("bf16", partial(beside_float32, precision="bf16"), 60),
    Check("fp16 with its scaler", partial(beside_float32, precision="fp16"), 60),
    Check("TF32", partial(beside_float32, precision="tf32"), 60),
    Check("--compile", compiled, 150, quick=False),
]
