"""Group `waiting`: nothing in an update makes the host wait for the device; time waited for data; peak memory."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from galirep.training.plan import estimate_update
from galirep.training.session import Session
from gpu_checks.harness.check import Check, Figure, Setup, Skip, require
from gpu_checks.subjects import images, session, settings

RESIDENT_SHARE = 0.1
HOST_SHARE = 0.25
"""Largest shares of an interval that the host spends on data: indices alone (RESIDENT), or images from host memory too.

The device works meanwhile, as far as the host runs ahead; so a share below these costs little or nothing.
"""
ESTIMATE_BOUNDS = (0.7, 1.5)
"""Bounds of the measured peak over the estimate.

The estimate has the CPU's way of computing, without cuDNN's workspaces, the allocator's rounding, fused optimizers and
the images of the set.
"""
_WAITS = ("_local_scalar_dense", "nonzero", "item", "equal", "masked_select", "unique_dim", "_unique2")
_WARM_UP = 4  # updates: one with a gradient penalty, which is made every fourth time


class NoHostSync(TorchDispatchMode):
    """Raise where a value of a tensor is asked for, which on a GPU would make the host wait; for the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := func.overloadpacket.__name__) in _WAITS:
            raise RuntimeError(f"aten.{name} waits for the device")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_waiting(setup: Setup) -> Iterator[None]:
    """Raise at whatever makes the host wait: by torch's own debug mode on a card, by the operators' names on a CPU."""
    if not setup.on_card:
        with NoHostSync():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def advance(setup: Setup, resident: bool = True, **changes: Any) -> Figure:
    """Make updates under `no_waiting`, after a warm-up in which libraries may wait."""
    if changes.get("precision") == "fp16" and not setup.on_card:
        raise Skip("a CPU has no fp16")
    run = session(settings(setup.quick, **changes), images(256, 16), setup.device)
    if not resident:
        _keep_on_host(run)
    for _ in range(_WARM_UP):
        run.advance()
    updates = 2 if setup.quick else _WARM_UP + 1
    setup.synchronize()
    with no_waiting(setup):
        for _ in range(updates):
            run.advance()
    return Figure(f"{updates} updates")


def _keep_on_host(run: Session) -> None:
    """Put the images where they are if they take more than half of the device's memory."""
    run.batches._pixels = run.batches._pixels.cpu()


def share_waited(setup: Setup, resident: bool) -> Figure:
    """Measure the share of time that Session itself counts as waiting for data."""
    size = 16 if setup.quick else 32
    run = session(settings(setup.quick), images(256 if setup.quick else 20_000, size), setup.device)
    if not resident:
        _keep_on_host(run)
    for _ in range(_WARM_UP):
        run.advance()
    run.report()
    for _ in range(2 if setup.quick else 200):
        run.advance()
    row = run.report()
    waited = row.seconds["data_wait"] / max(row.seconds["interval"], 1e-9)
    values = {"share": waited, **row.seconds, "images_per_second": row.images_per_second}
    most = RESIDENT_SHARE if resident else HOST_SHARE
    # a CPU is the device itself, and two updates are no measurement
    return require(waited <= most or not setup.on_card, f"{100 * waited:.1f} % (at most {100 * most:.0f} %)", values)


def _peaks_of(setup: Setup, **changes: Any) -> tuple[float, float]:
    """Return the peak of some updates as measured, and as `galirep train --dry-run` estimates it, in MiB."""
    if setup.on_card:
        torch.cuda.reset_peak_memory_stats(setup.device)
    run: Session = session(settings(setup.quick, **changes), images(256, 16 if setup.quick else 32), setup.device)
    for _ in range(_WARM_UP + 1):
        run.advance()
    plan = run.plan
    return run.report().peak_memory_mib, estimate_update(plan.config, plan.variant, plan.shapes).memory / 2**20


def _cases(setup: Setup) -> dict[str, dict[str, Any]]:
    """Return the preset `default` and the paper's networks at batch 100."""
    if setup.quick:
        return {"default": {}}
    return {"default": {}, "svhn32, batch 100": {"networks": "svhn32", "batch_size": 100, "d_regularizer": "sn"}}


def peak_memory(setup: Setup) -> Figure:
    """Measure the peak memory of an update."""
    values = {name: _peaks_of(setup, **changes)[0] for name, changes in _cases(setup).items()}
    return Figure("; ".join(f"{name}: {mib:.0f} MiB" for name, mib in values.items()), values)


def against_dry_run(setup: Setup) -> Figure:
    """Compare the peak with what `galirep train --dry-run` estimates."""
    if not setup.on_card:
        raise Skip("the memory of a process is not that of its tensors")
    values, texts = {}, []
    for name, changes in _cases(setup).items():
        measured, estimated = _peaks_of(setup, **changes)
        values[name] = {"measured": measured, "estimated": estimated}
        texts.append(f"{name}: {measured:.0f} MiB, estimated {estimated:.0f}")
        low, high = ESTIMATE_BOUNDS
        require(low <= measured / estimated <= high, f"{texts[-1]} (ratio from {low} to {high})")
    return Figure("; ".join(texts), values)


CHECKS = [
    Check("no host sync, gali-4 with r1r2", advance),
    Check(
        "no host sync, gali-mix with spectral norm and augmentation",
        partial(advance, variant="gali-mix", d_regularizer="sn", d_augment="color,translation,cutout"),
    ),
    Check("no host sync, gali-pt", partial(advance, variant="gali-pt")),
    Check("no host sync, relativistic, five steps of D", partial(advance, objective="relativistic", d_steps=5)),
    Check(
        "no host sync, fp16 with clipping",
        partial(advance, precision="fp16", d_regularizer="sn-scale", grad_clip=1.0),
    ),
    Check("no host sync, images in host memory", partial(advance, resident=False)),
    Check("share waited, images on the device", partial(share_waited, resident=True)),
    Check("share waited, images in pinned host memory", partial(share_waited, resident=False)),
    Check("peak memory of an update", peak_memory),
    Check("peak memory against --dry-run", against_dry_run),
]
