"""Toy extractors as a user writes them without a package, named by `galirep_toy:FUNCTION`."""

import time
from typing import ClassVar

import torch


class Toy(torch.nn.Module):
    name, dim, image_size, exact_size, channels, sha256 = "toy", 6, 8, True, 3, "12ab"
    layers: ClassVar = {"hidden": 4, "mu": 2}
    preprocessing: ClassVar = {"size": (8, 8)}
    delay, poison = 0.0, None

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(192, 64), torch.nn.ReLU(), torch.nn.Linear(64, 6)
        )

    def with_layers(self, names):
        other = Toy()
        other.net, other.layers = self.net, {name: self.layers[name] for name in names}
        other.dim = sum(other.layers.values())
        return other

    def forward(self, images):
        time.sleep(self.delay)
        out = self.net(images)
        if self.poison:
            out = torch.where(images.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] > self.poison, torch.nan, out)
        return torch.cat([out[:, :4] if name == "hidden" else out[:, 4:] for name in self.layers], 1)


class Slow(Toy):
    delay = 0.05


class Poisoned(Toy):
    poison = 0.9


class Free(Toy):
    """An extractor of images of any size, so that batches have several shapes."""

    exact_size = False

    def forward(self, images):
        return super().forward(torch.nn.functional.adaptive_avg_pool2d(images, 8))


def build():
    return Toy()


def slow():
    return Slow()


def poisoned():
    return Poisoned()


def free():
    return Free()
