"""One update on the device beside the same one on the CPU: equal weights, images and draws; how far the results are."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from galirep.game.step import Game, Rules, compute_gradients
from galirep.game.variant import Variant
from gpu_checks.harness.check import Figure, Setup, require
from gpu_checks.subjects import HostDraws, images, session, settings

Update = Mapping[str, Mapping[str, Tensor]]
"""What an update leaves: `losses`, gradients by network (E, G, D) and parameter, `buffers of E` and the others."""

LOSS_TOLERANCE = 1e-5
NET_TOLERANCE = 3e-2
PARAMETER_TOLERANCE = 5e-2
EXACT_TOLERANCE = 1e-5
"""Largest relative distances from the update on the CPU in float64 that are let pass.

The device computes it twice. In float64 nothing but the order of sums differs, and M(.), which is float32 always: a
distance of more than 1e-5 (EXACT) in a loss or in the gradient of any parameter is another computation. In float32, as
in training, rounding now and then turns the sign of a LeakyReLU's input and with it a slope, so gradients jump: the
CPU's own float32 is up to 2e-7 away in a loss, 9e-3 in the gradient of a network and 1e-2 in that of one parameter, in
the cases here. A GPU rounds as often in another order: 1e-5 (LOSS), 3e-2 (NET) and 5e-2 (PARAMETER). A gradient that is
zero but for rounding, as of a bias before BatchNorm, is measured against a hundredth of the largest of its network.
"""


def one_update(
    setup: Setup,
    variant: str,
    networks: str = "compact",
    rules: Rules | None = None,
    parsed: Variant | None = None,
    **changes: Any,
) -> Figure:
    """Compare losses, penalties, gradients, spectral-norm vectors and running statistics after one update.

    `parsed` is the variant where it was read from a TOML file.
    """
    rules = Rules() if rules is None else rules
    small = {"width": 4, "latent_dim": 8, "batch_size": 4} if setup.quick else {"batch_size": 16}
    sides = {"svhn32": 32, "celeba64": 64}
    size = sides.get(networks, 16 if setup.quick else 32)
    data = images(64, size)
    config = settings(setup.quick, variant=variant, networks=networks, **{**small, **changes})
    reference = session(config, data, torch.device("cpu"), parsed)
    here = session(config, data, setup.device, parsed)
    for name, net in here.game.players().items():
        net.load_state_dict(reference.game.players()[name].state_dict())
    x = reference.batches.images(reference.batches.indices(0))

    exact = _run(_double(reference.game), x.double(), rules)
    here_x = here.batches.images(here.batches.indices(0))
    before = copy.deepcopy({name: net.state_dict() for name, net in here.game.players().items()})
    in_float32 = _run(here.game, here_x, rules)
    for name, net in here.game.players().items():
        net.load_state_dict(before[name])
    in_float64 = _run(_double(here.game), here_x.double(), rules)
    setup.synchronize()
    return judge(in_float32, in_float64, exact)


def judge(in_float32: Update, in_float64: Update, exact: Update) -> Figure:
    """Compare what the updates left, part by part, and require the tolerances."""
    found = {
        "loss": (_loss_distance(in_float32, exact), LOSS_TOLERANCE),
        "net": (max((net_distance(in_float32[k], exact[k]), k) for k in "EGD"), NET_TOLERANCE),
        "parameter": (_parameter_distance(in_float32, exact), PARAMETER_TOLERANCE),
        "loss64": (_loss_distance(in_float64, exact), EXACT_TOLERANCE),
        "parameter64": (_parameter_distance(in_float64, exact), EXACT_TOLERANCE),
    }
    values = {key: {"distance": d, "where": where, "tolerance": most} for key, ((d, where), most) in found.items()}
    faults = [f"{key} {d:.1e} > {most:g} ({where})" for key, ((d, where), most) in found.items() if not d <= most]
    shown = ", ".join(f"{key} {d:.0e}" for key, ((d, _), _) in found.items())
    return require(not faults, "; ".join(faults) or shown, values)


def _loss_distance(found: Update, exact: Update) -> tuple[float, str]:
    if found["losses"].keys() != exact["losses"].keys():
        return math.inf, "not the same losses"
    # of the loss, but of 0.1 where it is smaller: a penalty may be next to nothing
    return max(
        (_relative(found["losses"][k], v, max(0.0, 0.1 - float(v.abs()))), k) for k, v in exact["losses"].items()
    )


def _parameter_distance(found: Update, exact: Update) -> tuple[float, str]:
    worst = (0.0, "")
    for part in (*"EGD", "buffers of E", "buffers of D"):
        distance, name = furthest(found[part], exact[part])
        worst = max(worst, (distance, f"{part} {name}"))
    return worst


def net_distance(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    """Return the relative distance of all gradients of a network taken together."""
    if found.keys() != exact.keys():
        return math.inf
    both = (torch.cat([side[name].cpu().double().flatten() for name in exact]) for side in (found, exact))
    return _relative(*both)


def furthest(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> tuple[float, str]:
    """Return the largest relative distance of a tensor and its name."""
    if found.keys() != exact.keys():
        return math.inf, f"not the same names: {sorted(found.keys() ^ exact.keys())[0]}"
    floor = 1e-2 * max((float(v.norm()) for v in exact.values()), default=0.0)
    return max(((_relative(found[name], value, floor), name) for name, value in exact.items()), default=(0.0, ""))


def _relative(found: Tensor, exact: Tensor, floor: float = 0.0) -> float:
    """Return |found - exact| / (|exact| + floor); infinite where it is NaN, so that no comparison lets it pass."""
    distance = float((found.cpu().double() - exact.cpu().double()).norm()) / max(float(exact.norm()) + floor, 1e-30)
    return math.inf if math.isnan(distance) else distance


def _double(game: Game) -> Game:
    for net in game.players().values():
        net.double()
    # M stays in float32, as it is in training
    extract = game.extract
    if extract is not None:
        game.extract = lambda x: extract(x.float()).double()
    return game


def _run(game: Game, x: Tensor, rules: Rules) -> Update:
    with HostDraws(x.dtype):
        statistics = compute_gradients(game, x, torch.Generator(x.device), rules, noise=0.1)
    statistics.pop("probs")
    left: dict[str, dict[str, Tensor]] = {"losses": {k: v.cpu().double() for k, v in statistics.items()}}
    for letter, net in game.players().items():
        left[letter] = {k: p.grad.detach().clone() for k, p in net.named_parameters() if p.grad is not None}
        left[f"buffers of {letter}"] = {k: b.clone() for k, b in net.named_buffers() if b.is_floating_point()}
    return left
