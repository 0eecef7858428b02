"""Nets that an E of `tiny_runs` can stand on."""

import functools
import shutil
import tempfile
from pathlib import Path

import torch

from galirep.supervised.config import ClassifierConfig
from galirep.supervised.loop import train_classifier


def images(n=6, seed=3):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make_classifier(folder, seed=0):
    """Put a digits net of 8 x 8 images, which has BatchNorm, into the folder; return its spec."""
    shutil.copytree(_trained(seed), folder)
    return f"classifier:{folder}"


@functools.cache
def _trained(seed):
    folder = Path(tempfile.mkdtemp()) / "m"
    settings = {"data": "sklearn:digits", "net": "digits", "epochs": 1, "device": "cpu", "num_workers": 0}
    train_classifier(ClassifierConfig(**settings, seed=seed), out=folder)
    return folder
