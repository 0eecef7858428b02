"""What a net learns, and how that is measured on images it has not seen: labels, or that two views are of one image."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galirep.data.batches import derive_seed
from galirep.data.tensors import image_blocks
from galirep.errors import ConfigError, DataError
from galirep.game import views
from galirep.game.view_losses import MIN_BATCH, VIEW_LOSSES
from galirep.metrics.posterior import effective_rank
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.nets import Classifier
from galirep.supervised.targets import Targets

_EVALUATED = 500  # images a batch
_RANKED = 2000  # images whose features' rank is taken
# what the seeds of views are derived with, beside the run's
_TRAIN, _VALIDATE = 2, 3

Forward = Callable[[nn.Module, Tensor], Tensor]
"""Runs a module on images or hidden values in the run's precision: float32 comes out."""


class Learning(Protocol):
    """What a net learns.

    `early_stop`: whether the validation loss chooses the net that is exported, and ends training.
    """

    early_stop: bool

    def usable(self, n: int) -> NDArray[np.intp]:
        """Return the positions of the images, of n, that it can learn from."""
        ...

    def batches(self, n: int) -> int:
        """Return the number of batches of one pass over n training images.

        Raises:
            ConfigError: they are too few.
        """
        ...

    def loss(self, forward: Forward, net: Classifier, images: Tensor, index: Tensor, step: int) -> Tensor:
        """Return the loss of the images at `index` (B, C, S, S) in [-1, 1] at an update."""
        ...

    def evaluate(
        self, forward: Forward, net: Classifier, pixels: Tensor, index: Tensor
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the loss and what else a row of metrics has, and the report, on the images at `index`."""
        ...


class Supervised:
    """Cross-entropy of classes or attributes."""

    early_stop = True

    def __init__(self, targets: Targets, config: ClassifierConfig, device: torch.device) -> None:
        self.targets, self._device, self._batch = targets.to(device), device, config.batch_size

    def usable(self, n: int) -> NDArray[np.intp]:
        """Return the images that have labels."""
        return np.arange(n) if self.targets.binary else np.flatnonzero(self.targets.values.cpu().numpy() >= 0)

    def batches(self, n: int) -> int:
        """Count a last batch that is not full, but not one of a single image, which has no batch statistics."""
        return max(1, -(-n // self._batch) - (n % self._batch == 1))

    def loss(self, forward: Forward, net: Classifier, images: Tensor, index: Tensor, step: int) -> Tensor:  # noqa: ARG002
        """Return the mean cross-entropy, nats."""
        return self.targets.loss(forward(net, images), index.to(self._device))

    def evaluate(
        self, forward: Forward, net: Classifier, pixels: Tensor, index: Tensor
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the loss and the accuracy, and the accuracy by class or attribute."""
        logits = torch.cat([forward(net, x) for x in image_blocks(pixels[index], _EVALUATED, self._device)])
        report = self.targets.report(logits, index)
        loss = float(self.targets.loss(logits, index.to(self._device)))
        return {"loss": loss, "accuracy": report["accuracy"]}, report


class SelfSupervised:
    """A loss between two views of the same images; batches are full, since the loss depends on their size.

    `config` is complete. The views of an update are derived from the seed and the step; held-out images have the same
    views whenever they are evaluated.
    """

    early_stop = False

    def __init__(self, config: ClassifierConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._loss, self._generator = VIEW_LOSSES[config.objective], torch.Generator(device)

    def usable(self, n: int) -> NDArray[np.intp]:
        """Return all images."""
        return np.arange(n)

    def batches(self, n: int) -> int:
        """Count full batches only."""
        if n < self._config.batch_size:
            raise ConfigError(
                f"batch_size {self._config.batch_size}: {self._config.objective} needs full batches, "
                f"and there are {n} images to train on: take a smaller one, {MIN_BATCH} or more"
            )
        return n // self._config.batch_size

    def loss(self, forward: Forward, net: Classifier, images: Tensor, index: Tensor, step: int) -> Tensor:  # noqa: ARG002
        """Return the loss of two views of each image."""
        return self._loss(*forward(net, self._views(images, _TRAIN, step)).chunk(2))

    def evaluate(
        self, forward: Forward, net: Classifier, pixels: Tensor, index: Tensor
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the mean loss over batches, and the effective rank of the features of whole images.

        The rank tells a collapse: it is that of up to 2,000 images.
        """
        if len(index) < MIN_BATCH:
            raise DataError(
                f"{len(index)} held-out image is too few for {self._config.objective}: hold out {MIN_BATCH} or more"
            )
        size = self._config.batch_size
        blocks = list(torch.split(index, size))
        # a last batch that is not full has another loss
        if len(blocks) > 1 and len(blocks[-1]) < size:
            blocks.pop()
        losses = []
        for k, block in enumerate(blocks):
            (images,) = image_blocks(pixels[block], size, self._device)
            losses.append(self._loss(*forward(net, self._views(images, _VALIDATE, k)).chunk(2)))
        ranked = pixels[index[:_RANKED]]
        features = torch.cat([forward(net.trunk, x) for x in image_blocks(ranked, _EVALUATED, self._device)])
        measured = {"loss": float(torch.stack(losses).mean()), "feature_rank": effective_rank(features)}
        return measured, {"n": sum(map(len, blocks)), "images": len(index), **measured}

    def _views(self, images: Tensor, *position: int) -> Tensor:
        """Return two views of each image, one behind the other: (2 B, C, S, S)."""
        self._generator.manual_seed(derive_seed(self._config.seed, *position))
        names, (batch, channels, size, _) = self._config.view_names, images.shape
        drawn = [views.draw(names, batch, size, self._generator, self._device, channels) for _ in range(2)]
        return torch.cat([view(images) for view in drawn])
