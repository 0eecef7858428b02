"""Runs of training small enough for tests, and what they leave."""

import dataclasses
import hashlib
import json
import signal
from pathlib import Path

import numpy as np
import torch

from galirep.data.memory import Images
from galirep.runs.checkpoint import load_checkpoint
from galirep.training.config import TrainConfig
from galirep.training.held_out import HeldOut
from galirep.training.session import Session

TINY = {
    "data": "tiny",
    "networks": "compact",
    "width": 4,
    "latent_dim": 4,
    "batch_size": 8,
    "log_every": 1,
    "sample_every": 0,
    "holdout": 0,
    "device": "cpu",
}
TIMING = ("seconds", "images_per_second", "peak_memory_mib")


def tiny(seed=0, n=20, size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    return Images(pixels, [str(i) for i in range(n)], None, (), f"{seed:064x}", "tiny", None)


def labelled(n=40, classes=4):
    images = tiny(n=n)
    images.labels = np.arange(n) % classes
    return images


def config(**settings):
    return TrainConfig(**{**TINY, "steps": 3, **settings})


def metrics_of(run):
    """Read the lines of metrics.jsonl without what a clock or a machine decides."""
    rows = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def info_of(run):
    return json.loads((run / "run.json").read_text())


def flat(value, prefix=""):
    """Every leaf of a checkpoint by its path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, inner in enumerate(value) for k, v in flat(inner, f"{prefix}/{i}").items()}
    return {prefix: value}


def assert_same_checkpoint(one, other):
    """Equal to the bit, tensors and plain values."""
    one, other = (flat(load_checkpoint(run / "checkpoints" / "last.pt")) for run in (one, other))
    assert one.keys() == other.keys() and len(one) > 100
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


def contents(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """Send the process a real signal within that update."""
    advance = Session.advance

    def advance_and_signal(self):
        advance(self)
        if self.step == step:
            signal.raise_signal(number)

    monkeypatch.setattr(Session, "advance", advance_and_signal)


def break_weights(monkeypatch, times, at=5):
    """G's weights become NaN at a step, the first `times` times that it is reached."""
    advance, left = Session.advance, [times]

    def advance_and_break(self):
        advance(self)
        if self.step == at and left[0]:
            left[0] -= 1
            with torch.no_grad():
                self.game.generator.bias.fill_(float("nan"))

    monkeypatch.setattr(Session, "advance", advance_and_break)


def scripted_evaluations(monkeypatch, values):
    """Let the evaluations give these numbers."""
    evaluate, left = HeldOut.evaluate, iter(values)
    monkeypatch.setattr(
        HeldOut, "evaluate", lambda self, *nets: dataclasses.replace(evaluate(self, *nets), pixel_mse=next(left))
    )
