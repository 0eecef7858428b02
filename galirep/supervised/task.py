"""A run in memory: net, optimizer and position."""

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from galirep.data.tensors import image_blocks, to_float
from galirep.errors import ConfigError, DataError
from galirep.runs.checkpoint import load_optimizer, require_like
from galirep.supervised.config import EPOCHS, ClassifierConfig
from galirep.supervised.learning import Learning, SelfSupervised, Supervised
from galirep.supervised.nets import build_net, has_batch_statistics, net_shapes
from galirep.supervised.targets import Targets

# batches and images a batch that BatchNorm's statistics are taken on
_CALIBRATION = (16, 256)
# the share of the updates without labels that warm up, where nothing is set
_WARMUP = 20
# what a checkpoint holds
_MODULES = ("net", "optimizer", "scaler")
_PLAIN = ("step", "loss_sum", "history", "best", "best_epoch")


class ClassifierTask:
    """The state of a run at `step`; everything random is derived from the seed and the step.

    `config` is complete: its image size and channels are those of `pixels`. `targets` are None where the objective
    takes no labels.

    Raises:
        DataError: there are too few images to hold some out.
        ConfigError: there are too few for a batch.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        pixels: Tensor,
        targets: Targets | None,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.config, self.pixels, self.device, self.autocast = config, pixels, device, autocast
        self.learning: Learning = (
            SelfSupervised(config, device) if targets is None else Supervised(targets, config, device)
        )
        usable = self.learning.usable(len(pixels))
        order = torch.from_numpy(np.random.default_rng((config.seed, 0)).permutation(usable))
        count = math.ceil(config.val_fraction * len(order))
        if count >= len(order):
            kind = "images" if targets is None else "labelled images"
            raise DataError(f"{len(order)} {kind} are too few to hold {config.val_fraction:g} of them out")
        self.held_out, self.train_on = order[:count].sort().values, order[count:].sort().values
        self.steps_per_epoch = self.learning.batches(len(self.train_on))
        self.steps = config.steps or (config.epochs or EPOCHS) * self.steps_per_epoch
        self.shapes = net_shapes(config.net, pixels.shape[-1], pixels.shape[1], config.width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            if targets is None:
                net = build_net(config.net, self.shapes, projector=config.projector)
            else:
                net = build_net(config.net, self.shapes, classes=len(targets.names))
        # channels_last: 1.7 times the speed on a CPU
        self.net = net.to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), config.lr, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.step, self.best_epoch = 0, 0
        self.loss_sum = 0.0
        self._order, self._order_epoch = self.train_on, -1
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    @property
    def done(self) -> bool:
        """True after the last update, or `patience` epochs without a lower validation loss where that may stop it."""
        stalled = len(self.history) - self.best_epoch >= self.config.patience
        return self.step >= self.steps or (self.learning.early_stop and stalled)

    @property
    def at_epoch_end(self) -> bool:
        """True where an epoch is to be closed: behind each pass, and behind the last update."""
        return self.step % self.steps_per_epoch == 0 or self.step == self.steps

    def advance(self) -> None:
        """Make one update on the next images of this epoch's order."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            order = np.random.default_rng((self.config.seed, 1, epoch)).permutation(len(self.train_on))
            self._order, self._order_epoch = self.train_on[torch.from_numpy(order)], epoch
        index = self._order[place * self.config.batch_size : (place + 1) * self.config.batch_size]
        self.optimizer.param_groups[0]["lr"] = self.config.lr * self._rate_factor()
        self.net.train()
        images = to_float(self.pixels[index], self.device)
        loss = self.learning.loss(self._forward, self.net, images, index, self.step)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.loss_sum += float(loss.detach()) * len(index)
        self.step += 1

    def close_epoch(self) -> dict[str, Any]:
        """Validate, keep the best net, and return the epoch's row of metrics."""
        measured, _ = self.evaluate(self.learning, self.pixels, self.held_out)
        batches = self.step - self.steps_per_epoch * ((self.step - 1) // self.steps_per_epoch)
        row = {
            "epoch": len(self.history) + 1,
            "step": self.step,
            "loss": self.loss_sum / min(batches * self.config.batch_size, len(self.train_on)),
            **{f"val_{name}": value for name, value in measured.items()},
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        loss = measured["loss"]
        if not math.isfinite(row["loss"]) or not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} after epoch {row['epoch']}: "
                f"begin anew with a lower learning rate than {self.config.lr:g}"
            )
        if not self.learning.early_stop or all(loss < earlier["val_loss"] for earlier in self.history):
            self.best_epoch, self.best = row["epoch"], copy.deepcopy(self.net.state_dict())
        self.history.append(row)
        self.loss_sum = 0.0
        return row

    @torch.no_grad()
    def evaluate(self, learning: Learning, pixels: Tensor, index: Tensor) -> tuple[dict[str, float], dict[str, Any]]:
        """Return what `learning.evaluate` measures of the net in eval mode."""
        self.net.eval()
        return learning.evaluate(self._forward, self.net, pixels, index)

    @torch.no_grad()
    def calibrate(self) -> None:
        """Re-estimate BatchNorm's statistics in the trunk on training images as they are: those it has are of views."""
        trunk = self.net.trunk
        if not has_batch_statistics(trunk):
            return
        count, size = _CALIBRATION
        order = np.random.default_rng((self.config.seed, 4)).permutation(len(self.train_on))[: count * size]
        pixels = self.pixels[self.train_on[torch.from_numpy(order)]]
        update_bn((x for x in image_blocks(pixels, size, self.device) if len(x) > 1), trunk)
        self.net.eval()

    def _rate_factor(self) -> float:
        """Return the factor on the learning rate: a linear warm-up, then a cosine to 0."""
        warmup = self.config.warmup
        if warmup is None:
            warmup = 0 if self.config.supervised else self.steps // _WARMUP
        if self.step < warmup:
            return (self.step + 1) / warmup
        progress = (self.step - warmup) / max(1, self.steps - warmup)
        return (1 + math.cos(math.pi * progress)) / 2

    def _forward(self, module: nn.Module, x: Tensor) -> Tensor:
        with self.autocast():
            out: Tensor = module(x)
        return out.float()

    def state_dict(self) -> dict[str, Any]:
        """Return what cannot be derived from the settings."""
        modules = {name: getattr(self, name).state_dict() for name in _MODULES}
        return modules | {name: getattr(self, name) for name in _PLAIN}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        if state["best"]:
            require_like(state["best"], self.net.state_dict())
        self.net.load_state_dict(state["net"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name in _PLAIN:
            setattr(self, name, state[name])
