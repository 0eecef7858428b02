"""Group `right`: every variant trains, begins at chance, and one update is the CPU's."""

from collections.abc import Callable
from functools import partial

import torch

from galirep.game import masks
from galirep.game.objectives import OBJECTIVES, chance
from galirep.game.step import Rules
from galirep.game.variant import Variant
from galirep.game.variants import VARIANTS
from gpu_checks.equality import one_update
from gpu_checks.harness.check import Check, Figure, Setup, require
from gpu_checks.subjects import HostDraws, images, session, settings, toml_variant

CHANCE_TOLERANCE = 0.02
"""How far the first losses may be from chance.

D's last layer begins with weights of deviation 0.01, so its logits are near 0 and every class equally likely; on the
CPU the largest distance over objectives and networks is 0.004.
"""


def updates(setup: Setup, variant: str) -> Figure:
    """Train some updates of `compact` and of the paper's networks: first losses near chance, everything finite."""
    values = {}
    parsed = Variant.from_toml(variant) if variant.endswith(".toml") else None
    n = (parsed or VARIANTS[variant]).n
    # the paper's networks take seconds an update on a CPU, so --quick makes only one variant with them
    networks = ["compact", *(["svhn32"] if not setup.quick or variant == "gali-4" else [])]
    for name in networks:
        data = images(256, 32 if name == "svhn32" or not setup.quick else 16)
        run = session(settings(setup.quick, variant=variant, networks=name), data, setup.device, parsed)
        run.advance()
        first = run.report()
        wanted = dict(zip(("loss_d", "loss_g"), chance(n), strict=True))
        away = max(abs(getattr(first, key) - level) for key, level in wanted.items())
        require(away <= CHANCE_TOLERANCE, f"{name}: the first losses are {away:.3f} from chance {wanted}")
        for _ in range(setup.updates - 1):
            run.advance()
        last = run.report()
        require(last.is_finite(gradients=True), f"{name}: not finite after {run.step} updates")
        values[name] = {"first": [first.loss_d, first.loss_g], "last": [last.loss_d, last.loss_g], "chance": wanted}
    shown = "; ".join(f"{k} D {v['last'][0]:.3f} GE {v['last'][1]:.3f}" for k, v in values.items())
    return Figure(f"{shown} after {setup.updates} updates", values)


def with_toml(check: Callable[..., Figure], setup: Setup) -> Figure:
    """Do a check with the variant of a TOML file."""
    with toml_variant() as path:
        if check is updates:
            return updates(setup, str(path))
        return one_update(setup, str(path), parsed=Variant.from_toml(path))


def first_losses(setup: Setup) -> Figure:
    """Compare the first losses of every objective with the level that it has at uniform logits."""
    away = {}
    for objective in OBJECTIVES:
        config = settings(setup.quick, objective=objective)
        run = session(config, images(128, 16), setup.device)
        run.advance()
        row = run.report()
        level = chance(4, objective)
        away[objective] = max(abs(row.loss_d - level.d), abs(row.loss_g - level.g))
    worst = max(away.values())
    return require(worst <= CHANCE_TOLERANCE, f"at most {worst:.4f} from chance ({', '.join(away)})", away)


def the_same_masks(setup: Setup) -> Figure:
    """Draw boxes from equal numbers on both devices: they must agree to the pixel."""
    both = []
    for device in (torch.device("cpu"), setup.device):
        with HostDraws():
            both.append(masks.random_boxes(256, 32, torch.Generator(device), device).cpu())
    differing = int((both[0] != both[1]).sum())
    area = float(both[1].float().mean())
    text = f"{differing} pixels of 256 boxes differ, mean area {area:.3f}"
    return require(differing == 0, text, {"differing": differing, "area": area})


_PENALIZED = Rules(r1_gamma=1.0)
_PAIRS = Rules(r1_gamma=1.0, r1_on="pairs", r1_features=True)
_AUGMENTED = Rules(augment=("color", "translation", "cutout"))

CHECKS = [
    *(Check(f"updates, {name}", partial(updates, variant=name), 90) for name in VARIANTS),
    Check("updates, a TOML variant", partial(with_toml, updates), 90),
    Check("first losses of every objective", first_losses),
    Check("masks", the_same_masks, 30),
    *(
        Check(f"one update as on the CPU, {name}", partial(one_update, variant=name, d_regularizer="none"))
        for name in VARIANTS
    ),
    Check("one update as on the CPU, a TOML variant", partial(with_toml, one_update)),
    Check("double backward of r1r2", partial(one_update, variant="gali-4", rules=_PENALIZED)),
    Check(
        "double backward of r1r2, resnet", partial(one_update, variant="gali-8", networks="resnet", rules=_PENALIZED)
    ),
    Check("double backward of r1r2, pairs and features", partial(one_update, variant="gali-pt", rules=_PAIRS)),
    Check("spectral norm", partial(one_update, variant="gali-4", d_regularizer="sn")),
    Check(
        "spectral norm, scale and r1r2",
        partial(one_update, variant="gali-mix", d_regularizer="sn-scale+r1r2", rules=_PENALIZED),
    ),
    Check("augmentation", partial(one_update, variant="gali-mix", d_regularizer="none", rules=_AUGMENTED)),
    Check(
        "one update as on the CPU, svhn32",
        partial(one_update, variant="gali-4", networks="svhn32", d_regularizer="sn"),
    ),
    Check(
        "one update as on the CPU, celeba64",
        partial(one_update, variant="gali-4", networks="celeba64", d_regularizer="sn", batch_size=4),
        quick=False,
    ),
]
