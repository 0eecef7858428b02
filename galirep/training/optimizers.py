"""Learning-rate schedule, Adam for the players, and norms of weights and gradients."""

import math

import torch
from torch import nn

from galirep.game.step import Game
from galirep.networks.body import BodyEncoder
from galirep.runs.checkpoint import load_optimizer
from galirep.training.config import TrainConfig

D_RATE = 2.0
"""D's learning rate over G's where none is set: D keeps up with G and E (two time scales, Heusel et al. 2017)."""


def rate_factor(config: TrainConfig, step: int, steps: int) -> float:
    """Return the factor on the learning rates at `step` (0, 1, ...): linear warm-up, then constant or a cosine to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, steps - config.warmup)))


class Optimizers:
    """Adam for G and E (one step for both) and Adam for D, with gradient clipping and, in fp16, a loss scale.

    A projector (P) moves with E, at E's rate. Where E has a body that is trained, its weights are a group of their own
    beside the rest of E. No step waits for the device.
    """

    def __init__(self, game: Game, config: TrainConfig, device: torch.device) -> None:
        betas = (config.beta1, config.beta2)
        self.rates = {
            "E": config.lr if config.lr_e is None else config.lr_e,
            "G": config.lr,
            "D": D_RATE * config.lr if config.lr_d is None else config.lr_d,
        }
        self._nets, self._clip = game.trained(), config.grad_clip
        self.rates["P"] = self.rates["E"]
        groups = {name: list(net.parameters()) for name, net in self._nets.items() if name != "D"}
        self._learners = tuple(groups)
        if isinstance(game.encoder, BodyEncoder) and (weights := game.encoder.body_parameters()):
            self.rates["body"] = config.body_lr * self.rates["E"]
            groups["E"] = [p for p in groups["E"] if all(p is not weight for weight in weights)]
            groups["body"] = weights
        self._both = torch.optim.Adam(
            [{"params": params, "lr": self.rates[name]} for name, params in groups.items()], betas=betas, fused=True
        )
        self._groups = tuple(groups)
        self._d = torch.optim.Adam(self._nets["D"].parameters(), lr=self.rates["D"], betas=betas, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def step(self, factor: float, *, d_only: bool) -> None:
        """Apply the gradients in `.grad` at `factor` times the learning rates."""
        both = () if d_only else ((self._both, self._learners, self._groups),)
        for optimizer, nets, groups in ((self._d, ("D",), ("D",)), *both):
            # clipping and the reported norms are of the gradients themselves
            self.scaler.unscale_(optimizer)
            for name, group in zip(groups, optimizer.param_groups, strict=True):
                group["lr"] = self.rates[name] * factor
            if self._clip:
                for name in nets:
                    nn.utils.clip_grad_norm_(self._nets[name].parameters(), self._clip)
            self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, object]:
        """Return what a resumed run needs."""
        return {"EG": self._both.state_dict(), "D": self._d.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Load what `state_dict` returned."""
        load_optimizer(self._both, state["EG"])
        load_optimizer(self._d, state["D"])
        self.scaler.load_state_dict(state["scaler"])


def norms(game: Game, *, gradients: bool) -> dict[str, float]:
    """Return the norm of the gradients in `.grad`, or of the weights, of E, G and D (waits for the device)."""
    out = {}
    for name, net in game.players().items():
        tensors = [t for p in net.parameters() if (t := p.grad if gradients else p.detach()) is not None]
        out[name] = float(nn.utils.get_total_norm(tensors)) if tensors else 0.0
    return out
