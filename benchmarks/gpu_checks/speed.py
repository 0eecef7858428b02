"""Group `speed`: images/s of updates and embedding, beside the published structure, the card's peak, the bare network.

Figures, not verdicts: a check passes where it can be measured.
"""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from step_cost import Published
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from galirep.game.variants import get_variant
from galirep.networks.parts import Shapes
from galirep.training.session import Session
from gpu_checks.embed_speed import embed_speed
from gpu_checks.harness.check import Check, Figure, Setup
from gpu_checks.harness.child import use_tf32
from gpu_checks.subjects import images, session, settings

_CYCLE = 4  # updates: one with a gradient penalty, which is made every fourth time
_SECONDS = 1.0  # that a speed is measured over, at least
_PEAK_SIDE = 8192

# preset or networks -> side of the images, settings
_CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "small": (16, {"preset": "small"}),
    "default": (32, {"preset": "default"}),
    "large": (64, {"preset": "large"}),
    "svhn32": (32, {"preset": "paper", "networks": "svhn32", "batch_size": 100}),
    "celeba64": (64, {"preset": "paper", "networks": "celeba64", "batch_size": 100}),
}
_VARIANTS = ("gali-4", "gali-8", "gali-mix")


class _CountFlops(TorchDispatchMode):
    """Count with torch's own formulas. torch's FlopCounterMode also tells modules apart, by hooks that cannot stand
    `torch.autograd.grad`, with which an update takes its gradients."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _seconds_of(step: Callable[[], object], setup: Setup, cycle: int = 1) -> float:
    """Return the seconds of one step: of as many cycles as take a second, after one cycle of warm-up."""
    if setup.quick:
        cycle = 1
    for _ in range(cycle):
        step()
    setup.synchronize()
    count, before = 0, time.perf_counter()
    while count == 0 or (time.perf_counter() - before < _SECONDS and not setup.quick):
        for _ in range(cycle):
            step()
        setup.synchronize()
        count += cycle
    return (time.perf_counter() - before) / count


@lru_cache
def _peak(setup: Setup, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large square product, of float32 with TF32."""
    side = 256 if setup.quick else _PEAK_SIDE
    a, b = torch.randn(2, side, side, device=setup.device, dtype=dtype)
    out = torch.empty(side, side, device=setup.device, dtype=dtype)
    use_tf32(True)
    return 2 * side**3 / _seconds_of(lambda: torch.mm(a, b, out=out), setup, 10)


def _precisions(setup: Setup) -> dict[str, tuple[str, torch.dtype]]:
    """Return what is measured: its name, the setting of a run, the type of a product."""
    plain = "TF32" if setup.on_card else "float32"
    return {plain: ("fp32", torch.float32), "bf16": ("bf16", torch.bfloat16)}


def matmul_peak(setup: Setup) -> Figure:
    """Measure what the card reaches in one large product: the measure for the others."""
    values = {name: _peak(setup, dtype) for name, (_, dtype) in _precisions(setup).items()}
    return Figure(", ".join(f"{name} {rate / 1e12:.1f} TFLOP/s" for name, rate in values.items()), values)


def _session(setup: Setup, case: str, **changes: Any) -> Session:
    side, chosen = _CASES[case]
    small = {"batch_size": 2} if setup.quick else {}
    if setup.quick and "networks" not in chosen:
        small |= {"width": 4}
    base = {key: value for key, value in settings(False, **chosen).to_dict().items() if key != "epochs"}
    config = settings(False, **{**base, **small, **changes, "steps": 100_000})
    return session(config, images(512, side), setup.device)


def _flops(run: Session, setup: Setup) -> float:
    """Return the floating-point operations of an update, over a cycle of gradient penalties."""
    cycle = 1 if setup.quick else _CYCLE
    with _CountFlops() as counter:
        for _ in range(cycle):
            run.advance()
    return counter.total / cycle


def update_speed(setup: Setup, case: str, variant: str) -> Figure:
    """Measure updates in TF32 and in bf16, as images/s and as a share of the product's rate in the same arithmetic."""
    values, parts, flops = {}, [], 0.0
    for name, (precision, dtype) in _precisions(setup).items():
        use_tf32(True)
        run = _session(setup, case, variant=variant, precision=precision)
        seconds = _seconds_of(run.advance, setup, _CYCLE)
        flops = flops or _flops(run, setup)
        rate, share = run.config.batch_size / seconds, flops / seconds / _peak(setup, dtype)
        values[name] = {"images_per_second": rate, "share_of_peak": share, "flops_of_an_update": flops}
        parts.append(f"{name} {rate:,.0f} images/s ({100 * share:.0f} % of peak)")
    return Figure(", ".join(parts), values)


def beside_published(setup: Setup, variant: str) -> Figure:
    """Measure svhn32 at batch 100 in galirep and in the structure of the published code, both in TF32."""
    use_tf32(True)
    run = _session(setup, "svhn32", variant=variant)
    here = _seconds_of(run.advance, setup, _CYCLE)
    published = Published(get_variant(variant), Shapes(32, 3, 256), setup.device)
    x = run.batches.images(run.batches.indices(0)).contiguous()
    there = _seconds_of(lambda: published.step(x), setup, _CYCLE)
    batch = run.config.batch_size
    text = f"{batch / here:,.0f} images/s, published structure {batch / there:,.0f}: {there / here:.2f} times as fast"
    return Figure(text, {"seconds": here, "seconds_published": there, "ratio": there / here})


def compiled_speed(setup: Setup, case: str) -> Figure:
    """Measure updates with compiled networks beside eager ones, in bf16."""
    torch._dynamo.reset()
    # compiling gives no second derivatives
    changes = {"variant": "gali-4", "precision": "bf16", "d_regularizer": "sn"}
    eager = _seconds_of(_session(setup, case, **changes).advance, setup, _CYCLE)
    before = time.perf_counter()
    run = _session(setup, case, **changes, compile=True)
    for _ in range(_CYCLE):
        run.advance()
    setup.synchronize()
    warm_up = time.perf_counter() - before
    compiled = _seconds_of(run.advance, setup, _CYCLE)
    batch = run.config.batch_size
    text = f"{batch / compiled:,.0f} images/s, eager {batch / eager:,.0f}; {warm_up:.0f} s to compile"
    return Figure(text, {"compiled": batch / compiled, "eager": batch / eager, "seconds_to_compile": warm_up})


CHECKS = [
    Check("peak of a large product", matmul_peak, 60),
    *(
        Check(
            f"{case}, {variant}",
            partial(update_speed, case=case, variant=variant),
            60,
            quick=(case, variant) in (("default", "gali-4"), ("small", "gali-mix")),
        )
        for case in _CASES
        for variant in _VARIANTS
    ),
    *(
        Check(
            f"beside the published structure, {variant}",
            partial(beside_published, variant=variant),
            60,
            # its networks take seconds an update on a CPU
            quick=variant == "gali-4",
        )
        for variant in ("gali-4", "gali-8")
    ),
    *(
        Check(f"embed, {network}", partial(embed_speed, network=network), 90, quick=network == "resnet50")
        for network in ("resnet50", "vit_b_16")
    ),
    *(
        Check(f"compiled, {case}", partial(compiled_speed, case=case), 120, quick=False)
        for case in ("svhn32", "default", "celeba64")
    ),
]
