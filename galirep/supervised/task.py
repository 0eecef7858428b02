"""The supervised training task: its settings, and net, optimizer and position of a run."""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galirep.data.tensors import image_blocks, to_float
from galirep.errors import ConfigError, DataError, unknown
from galirep.supervised.nets import NETS, build_net
from galirep.supervised.targets import Targets

_EVALUATED = 500  # images a batch


@dataclass(frozen=True)
class ClassifierConfig:
    """The settings of a supervised net.

    Args:
        data, split: the training images, see `open_data`; validation images are taken from them.
        labels: a CSV file of binary attributes, see `attribute_targets`; None: the classes of the data set.
        net: `digits`, `attributes`, or `auto`: digits for classes, attributes for attributes.
        image_size: side in pixels; None: the images' own, rounded up to what the net takes.
        channels: 1 or 3; None: those of the images.
        epochs: most passes over the training images. lr: Adam's learning rate at the start; a cosine takes it to 0 over `epochs`.
        batch_size: images an update.
        val_fraction: share of the images held out for early stop and report, above 0, below 1.
        patience: epochs without a lower validation loss after which training stops.
        seed: of initial weights, held-out images and order.
        device, precision, num_workers: see `device_of`, `autocast_of` and `decode`.

    Raises:
        ConfigError: a value is out of bounds.
    """

    data: str
    split: str | None = None
    labels: str | None = None
    net: str = "auto"
    image_size: int | None = None
    channels: int | None = None
    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    val_fraction: float = 0.1
    patience: int = 3
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    num_workers: int | None = None

    FREE = frozenset(
        {"data", "labels", "device", "num_workers"}
    )  # may differ on resume: paths are told apart by their content

    def __post_init__(self) -> None:
        if self.net not in ("auto", *NETS):
            raise ConfigError(unknown("net", self.net, ["auto", *NETS]))
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: must be 1 or more")
        if not 0 < self.val_fraction < 1 or not self.lr > 0:
            raise ConfigError(
                f"val_fraction {self.val_fraction:g}, lr {self.lr:g}: expected a fraction between 0 and 1, and a rate above 0"
            )


class ClassifierTask:
    """Net, optimizer and position of a run; everything random is derived from the seed and the position."""

    def __init__(
        self,
        config: ClassifierConfig,
        pixels: Tensor,
        targets: Targets,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.config, self.pixels, self.device, self.autocast = config, pixels, device, autocast
        self.targets = dataclasses.replace(targets, values=targets.values.to(device))
        usable = np.arange(len(pixels)) if targets.binary else np.flatnonzero(targets.values.numpy() >= 0)
        order = torch.from_numpy(np.random.default_rng((config.seed, 0)).permutation(usable))
        held = math.ceil(config.val_fraction * len(order))
        if held >= len(order):
            raise DataError(f"{len(order)} labelled images are too few to hold {config.val_fraction:g} of them out")
        self.held_out, self.train_on = order[:held].sort().values, order[held:].sort().values
        self.steps_per_epoch = math.ceil(len(self.train_on) / config.batch_size)
        assert config.image_size and config.channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net = build_net(config.net, config.image_size, config.channels, len(targets.names))
        self.net = net.to(device).to(memory_format=torch.channels_last)  # 1.7 times the speed on a CPU
        self.optimizer = torch.optim.Adam(self.net.parameters(), config.lr)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.step, self.loss_sum, self.best_epoch = 0, 0.0, 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    @property
    def done(self) -> bool:
        """Whether all epochs are made, or the last `patience` ones brought nothing."""
        epochs = len(self.history)
        return epochs >= self.config.epochs or epochs - self.best_epoch >= self.config.patience

    def advance(self) -> None:
        """One update on the next images of this epoch's order."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if place == 0 or not hasattr(self, "_order"):
            self._order = self.train_on[
                torch.from_numpy(np.random.default_rng((self.config.seed, 1, epoch)).permutation(len(self.train_on)))
            ]
        index = self._order[place * self.config.batch_size : (place + 1) * self.config.batch_size]
        progress = self.step / (self.steps_per_epoch * self.config.epochs)
        self.optimizer.param_groups[0]["lr"] = self.config.lr * (1 + math.cos(math.pi * progress)) / 2
        self.net.train()
        with self.autocast():
            logits = self.net(to_float(self.pixels[index], self.device))
        loss = self.targets.loss(logits.float(), index.to(self.device))
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.loss_sum += float(loss.detach()) * len(index)
        self.step += 1

    def close_epoch(self) -> dict[str, Any]:
        """Validate, keep the best net, and give the epoch's line of metrics."""
        logits = self.logits(self.pixels, self.held_out)
        loss = float(self.targets.loss(logits, self.held_out.to(self.device)))
        row = {
            "epoch": len(self.history) + 1,
            "step": self.step,
            "loss": self.loss_sum / len(self.train_on),
            "val_loss": loss,
            "val_accuracy": self.targets.report(logits, self.held_out)["accuracy"],
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        if not math.isfinite(row["loss"]) or not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} after epoch {row['epoch']}: begin anew with a lower learning rate than {self.config.lr:g}"
            )
        if all(loss < earlier["val_loss"] for earlier in self.history):
            self.best_epoch, self.best = row["epoch"], copy.deepcopy(self.net.state_dict())
        self.history.append(row)
        self.loss_sum = 0.0
        return row

    @torch.no_grad()
    def logits(self, pixels: Tensor, index: Tensor) -> Tensor:
        """The logits of some images in eval mode, (len(index), n) float32."""
        self.net.eval()
        with self.autocast():
            blocks = image_blocks(pixels[index], _EVALUATED, self.device)
            return torch.cat([self.net(x).float() for x in blocks])

    def state_dict(self) -> dict[str, Any]:
        """Everything that cannot be derived from the settings."""
        names = ("step", "loss_sum", "history", "best", "best_epoch")
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        } | {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        for name in ("net", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("step", "loss_sum", "history", "best", "best_epoch"):
            setattr(self, name, state[name])
