"""A supervised run in memory: net, optimizer and position."""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galirep.data.tensors import image_blocks, to_float
from galirep.errors import ConfigError, DataError
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.nets import build_net
from galirep.supervised.targets import Targets

_EVALUATED = 500  # images a batch
# what a checkpoint holds
_MODULES = ("net", "optimizer", "scaler")
_PLAIN = ("step", "loss_sum", "history", "best", "best_epoch")


class ClassifierTask:
    """The state of a run at `step`; everything random is derived from the seed and the step.

    `config` is complete: its image size and channels are those of `pixels`.
    """

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
        count = math.ceil(config.val_fraction * len(order))
        if count >= len(order):
            raise DataError(f"{len(order)} labelled images are too few to hold {config.val_fraction:g} of them out")
        self.held_out, self.train_on = order[:count].sort().values, order[count:].sort().values
        self.steps_per_epoch = math.ceil(len(self.train_on) / config.batch_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net = build_net(config.net, pixels.shape[-1], pixels.shape[1], len(targets.names))
        # channels_last: 1.7 times the speed on a CPU
        self.net = net.to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.net.parameters(), config.lr)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.step, self.best_epoch = 0, 0
        self.loss_sum = 0.0
        self._order, self._order_epoch = self.train_on, -1
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    @property
    def done(self) -> bool:
        """True after `epochs` epochs, or `patience` epochs without a lower validation loss."""
        epochs = len(self.history)
        return epochs >= self.config.epochs or epochs - self.best_epoch >= self.config.patience

    def advance(self) -> None:
        """Make one update on the next images of this epoch's order."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            order = np.random.default_rng((self.config.seed, 1, epoch)).permutation(len(self.train_on))
            self._order, self._order_epoch = self.train_on[torch.from_numpy(order)], epoch
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
        """Validate, keep the best net, and return the epoch's row of metrics."""
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
                f"the loss is {loss} after epoch {row['epoch']}: "
                f"begin anew with a lower learning rate than {self.config.lr:g}"
            )
        if all(loss < earlier["val_loss"] for earlier in self.history):
            self.best_epoch, self.best = row["epoch"], copy.deepcopy(self.net.state_dict())
        self.history.append(row)
        self.loss_sum = 0.0
        return row

    @torch.no_grad()
    def logits(self, pixels: Tensor, index: Tensor) -> Tensor:
        """Return the logits of some images in eval mode, (len(index), n) float32."""
        self.net.eval()
        with self.autocast():
            blocks = image_blocks(pixels[index], _EVALUATED, self.device)
            return torch.cat([self.net(x).float() for x in blocks])

    def state_dict(self) -> dict[str, Any]:
        """Return what cannot be derived from the settings."""
        modules = {name: getattr(self, name).state_dict() for name in _MODULES}
        return modules | {name: getattr(self, name) for name in _PLAIN}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        for name in _MODULES:
            getattr(self, name).load_state_dict(state[name])
        for name in _PLAIN:
            setattr(self, name, state[name])
