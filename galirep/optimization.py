"""What the loop does with gradients: learning rates, Adam, averaging of weights, and statistics re-estimated for averaged networks."""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from galirep.config import TrainConfig
from galirep.step import Game

D_RATE = 2.0  # D's learning rate over G's where none is given: D has to keep up with both (two time scales, Heusel et al. 2017)


def rate_factor(config: TrainConfig, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at `step` (0, 1, ...) of `steps`: a linear warm-up, then constant or a cosine to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, steps - config.warmup)))


class Optimizers:
    """Adam for G and E (one step for both) and Adam for D, with gradient clipping and, in fp16, a loss scale; no step waits for the
    device.
    """

    def __init__(self, game: Game, config: TrainConfig, device: torch.device) -> None:
        betas = (config.beta1, config.beta2)
        self.rates = {
            "E": config.lr if config.lr_e is None else config.lr_e,
            "G": config.lr,
            "D": D_RATE * config.lr if config.lr_d is None else config.lr_d,
        }
        self._nets, self._clip = game.players(), config.grad_clip
        self._both = torch.optim.Adam(
            [{"params": list(self._nets[n].parameters()), "lr": self.rates[n]} for n in "EG"], betas=betas, fused=True
        )
        self._d = torch.optim.Adam(self._nets["D"].parameters(), lr=self.rates["D"], betas=betas, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def step(self, factor: float, *, d_only: bool) -> None:
        """Apply the gradients in `.grad` at `factor` times the learning rates."""
        for optimizer, names in ((self._d, "D"), *(() if d_only else ((self._both, "EG"),))):
            self.scaler.unscale_(optimizer)  # so that clipping and the reported norms are of the gradients themselves
            for name, group in zip(names, optimizer.param_groups, strict=True):
                group["lr"] = self.rates[name] * factor
                if self._clip:
                    nn.utils.clip_grad_norm_(group["params"], self._clip)
            self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {"EG": self._both.state_dict(), "D": self._d.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Take up the state of another run's optimizers."""
        self._both.load_state_dict(state["EG"])
        self._d.load_state_dict(state["D"])
        self.scaler.load_state_dict(state["scaler"])


class Average:
    """Exponential moving averages of E's and G's weights. Early in a run the half-life is shorter: a twentieth of the images seen."""

    def __init__(self, game: Game, half_life: float) -> None:
        self.half_life = half_life
        self._live = {n: game.players()[n] for n in "EG"}
        self.nets = {n: copy.deepcopy(net).requires_grad_(False).eval() for n, net in self._live.items()}

    @torch.no_grad()
    def update(self, images: int, seen: int) -> None:
        """Move towards the live weights after an update on `images` images, `seen` in all."""
        half_life = min(self.half_life, seen / 20)
        decay = 0.5 ** (images / half_life) if half_life > 0 else 0.0
        for name, net in self.nets.items():
            torch._foreach_lerp_(list(net.parameters()), list(self._live[name].parameters()), 1 - decay)

    def calibrate(self, images: Iterable[Tensor], seed: int) -> None:
        """Re-estimate BatchNorm's running statistics for the averaged weights, on the stream that each network serves, and go to eval mode.

        E's are those of real images (B, C, S, S); G's those of latents from the prior and from E's posterior, half each. Without BatchNorm
        nothing is computed.
        """
        if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for net in self.nets.values() for m in net.modules()):
            return  # the averages are in eval mode from the start
        batches = list(images)
        e, g = self.nets["E"], self.nets["G"]
        _re_estimate(e, batches)
        generator = torch.Generator(batches[0].device).manual_seed(seed)
        latents = []
        with torch.no_grad():
            for batch in batches:
                mu, log_sigma = e(batch)
                noise, prior = torch.randn(2, *mu.shape, generator=generator, device=mu.device)
                latents += [mu + log_sigma.exp() * noise, prior]
        _re_estimate(g, latents)


def _re_estimate(net: nn.Module, batches: list[Tensor]) -> None:
    with torch.no_grad():
        update_bn(batches, net)
    net.eval()


def norms(game: Game, *, gradients: bool) -> dict[str, float]:
    """The norm of the gradients in `.grad`, or of the weights, of E, G and D (waits for the device)."""
    out = {}
    for name, net in game.players().items():
        tensors = [t for p in net.parameters() if (t := p.grad if gradients else p.detach()) is not None]
        out[name] = float(nn.utils.get_total_norm(tensors)) if tensors else 0.0
    return out
