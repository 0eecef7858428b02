"""Group `state`: a run that is killed or moved goes on as if nothing had happened; its export is read on a CPU."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galirep.features.gali import build_run
from galirep.networks.saved import export_networks
from galirep.runs.checkpoint import load_checkpoint, save_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.training.session import Session
from gpu_checks.harness.check import Check, Figure, Setup, Skip, require
from gpu_checks.subjects import images, session, settings
from gpu_checks.train_job import EVERY
from gpu_checks.train_job import main as train_job

EXPORT_TOLERANCE = 1e-4
"""Largest difference of a feature read on a CPU from the one on the device: a hundred times the rounding of float32 in
features whose size is about 1."""
_KILL_SECONDS = 60.0


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="gpu_check-") as folder:
        yield Path(folder)


def _need(*modules: str) -> None:
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise Skip(f"{' and '.join(missing)} not installed")


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return every leaf of a checkpoint by its path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, inner in enumerate(value) for k, v in flat(inner, f"{prefix}/{i}").items()}
    return {prefix: value}


def differing(one: Any, other: Any) -> list[str]:
    """Return the paths of the leaves that are not equal to the bit."""
    one, other = flat(one), flat(other)

    def same(a: Any, b: Any) -> bool:
        return torch.equal(a.cpu(), b.cpu()) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)

    return sorted(one.keys() ^ other.keys()) + [k for k in one.keys() & other.keys() if not same(one[k], other[k])]


def _session(setup: Setup, device: torch.device | None = None) -> Session:
    return session(settings(setup.quick), images(128, 16), device or setup.device)


def _advance(run: Session, updates: int) -> Session:
    for _ in range(updates):
        run.advance()
    return run


def resumed_in_memory(setup: Setup) -> Figure:
    """Resume from a checkpoint in a new session: the bits of a session that went on, under deterministic algorithms."""
    torch.use_deterministic_algorithms(True)
    half = setup.updates
    whole = _advance(_session(setup), 2 * half)
    with _folder() as folder:
        save_checkpoint(folder / "half.pt", _advance(_session(setup), half).state_dict())
        resumed = _session(setup)
        resumed.load_state_dict(load_checkpoint(folder / "half.pt"))
    faults = differing(_advance(resumed, half).state_dict(), whole.state_dict())
    count = len(flat(whole.state_dict()))
    text = f"{count - len(faults)} of {count} values equal to the bit after {half} + {half} updates"
    return require(not faults, text + (f"; the first other: {faults[0]}" if faults else ""), {"differing": faults[:20]})


def moved_and_back(setup: Setup) -> Figure:
    """Take a checkpoint from the device to a CPU session, train there, and take it back: nothing is lost on the way."""
    here = _advance(_session(setup), setup.updates)
    with _folder() as folder:
        save_checkpoint(folder / "here.pt", here.state_dict())
        there = _session(setup, torch.device("cpu"))
        there.load_state_dict(load_checkpoint(folder / "here.pt"))
        lost = differing(there.state_dict(), here.state_dict())
        _advance(there, 2)
        row = there.report()
        save_checkpoint(folder / "there.pt", there.state_dict())
        back = _session(setup)
        back.load_state_dict(load_checkpoint(folder / "there.pt"))
        lost += differing(back.state_dict(), there.state_dict())
    _advance(back, 2)
    final = back.report()
    sound = row.is_finite(gradients=True) and final.is_finite(gradients=True)
    on_device = all(p.device.type == setup.device.type for p in back.game.encoder.parameters())
    text = f"{setup.device.type} -> cpu -> {setup.device.type}: {len(lost)} values changed, then {back.step} updates"
    return require(not lost and sound and on_device, text, {"changed": lost[:20], "finite": sound})


def _start_job(folder: Path, out: Path, setup: Setup, steps: int, resume: bool) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "gpu_checks.train_job", str(folder / "data.npz"), str(out), str(setup.device)]
    with (folder / "job.log").open("ab") as log:
        rest = [str(steps), str(int(resume)), str(torch.get_num_threads())]
        return subprocess.Popen([*command, *rest], stdout=log, stderr=log)


def _finish(folder: Path, job: "subprocess.Popen[bytes]") -> None:
    if job.wait():
        last = (folder / "job.log").read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"the training job ended with {job.returncode}: {last[-1] if last else ''}")


def _kill_between_checkpoints(folder: Path, job: "subprocess.Popen[bytes]", out: Path) -> int:
    """Kill the job once it has logged an update behind a checkpoint; return that update."""
    deadline = time.monotonic() + _KILL_SECONDS
    while job.poll() is None and time.monotonic() < deadline:
        directory = RunDirectory(out)
        with contextlib.suppress(OSError, ValueError):
            rows = directory.metrics() if directory.last.exists() else []
            if rows and rows[-1]["step"] > EVERY and rows[-1]["step"] % EVERY:
                os.kill(job.pid, signal.SIGKILL)
                job.wait()
                return int(rows[-1]["step"])
        time.sleep(0.002)
    job.kill()
    _finish(folder, job)
    raise RuntimeError("the training job was over before it could be killed in its midst")


def killed_and_resumed(setup: Setup) -> Figure:
    """Kill `galirep.train` by SIGKILL, resume it, and compare its last checkpoint with that of a run never killed."""
    _need("tqdm", "safetensors")
    steps = (3 if setup.quick else 20) * EVERY
    with _folder() as folder:
        np.savez(folder / "data.npz", images=images(128, 16).pixels)
        job = _start_job(folder, folder / "killed", setup, steps, resume=False)
        try:
            at = _kill_between_checkpoints(folder, job, folder / "killed")
            job = _start_job(folder, folder / "killed", setup, steps, resume=True)
            # meanwhile, and here, for a job spends most of its time on starting torch
            threads = str(torch.get_num_threads())
            train_job(str(folder / "data.npz"), str(folder / "whole"), str(setup.device), str(steps), "0", threads)
            _finish(folder, job)
        finally:
            job.kill()
            job.wait()
        states = [load_checkpoint(RunDirectory(folder / name).last) for name in ("whole", "killed")]
        faults = differing(*states)
    text = f"killed at update {at}, resumed to {steps}: {len(faults)} of {len(flat(states[0]))} values differ"
    return require(not faults, text, {"killed_at": at, "steps": steps, "differing": faults[:20]})


def exported(setup: Setup) -> Figure:
    """Export the averaged encoder from the device, read it on a CPU, and compare the features of images."""
    _need("safetensors")
    run = _advance(_session(setup), setup.updates)
    run.calibrate()
    about = {"name": "gpu-check", "networks": run.config.networks, "shapes": vars(run.plan.shapes), "step": run.step}
    encoder, generator = run.average.nets["E"], run.average.nets["G"]
    x = run.batches.images(torch.arange(64))
    with _folder() as folder, torch.inference_mode():
        export_networks(folder, {"encoder": encoder, "generator": generator}, about, "")
        extractor = build_run(str(folder))
        extractor = extractor.with_layers(tuple(extractor.known_layers))
        there = extractor(x.cpu())
        values = encoder.layers(x)
        here = torch.cat([values[layer] for layer in extractor.layers], 1).float().cpu()
    away = float((there - here).abs().max())
    text = f"{there.shape[1]} features of 64 images, at most {away:.1e} apart (tolerance {EXPORT_TOLERANCE:g})"
    return require(away <= EXPORT_TOLERANCE, text, {"distance": away, "largest": float(here.abs().max())})


CHECKS = [
    Check("resume from a checkpoint, deterministic", resumed_in_memory, 90),
    Check("checkpoint to a CPU and back", moved_and_back, 90),
    Check("SIGKILL and resume of galirep.train", killed_and_resumed, 150),
    Check("export read on a CPU", exported),
]
