"""Averaged weights, and BatchNorm statistics re-estimated for them."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from galirep.game import masks
from galirep.game.step import Game


class Average:
    """Exponential moving averages of E's and G's weights.

    Early in a run the half-life is shorter: a twentieth of the images seen (Karras et al. 2020 ramp it up so).

    `statistics` has E's BatchNorm statistics by what E is fed (`Variant.statistics`), as tensors by name; the averaged
    E itself has the first. They are empty before `calibrate` and without BatchNorm.
    """

    def __init__(self, game: Game, half_life: float) -> None:
        self.half_life = half_life
        self._trained = {n: game.players()[n] for n in "EG"}
        self.nets = {n: copy.deepcopy(net).requires_grad_(False).eval() for n, net in self._trained.items()}
        self._kinds = game.variant.statistics
        self.statistics: dict[str, dict[str, Tensor]] = {kind: {} for kind in self._kinds}

    @torch.no_grad()
    def update(self, images: int, seen: int) -> None:
        """Move towards the trained weights after an update on `images` images, `seen` in all."""
        half_life = min(self.half_life, seen / 20)
        decay = 0.5 ** (images / half_life) if half_life > 0 else 0.0
        for name, net in self.nets.items():
            torch._foreach_lerp_(list(net.parameters()), list(self._trained[name].parameters()), 1 - decay)

    def calibrate(self, images: Iterable[Tensor], seed: int) -> None:
        """Re-estimate BatchNorm's running statistics for the averaged weights, and set eval mode.

        E's are those of what it is fed: real images (B, C, S, S), the same erased by random boxes, or either. G's are
        those of latents from the prior and from E's posterior on these, half each.
        Without BatchNorm nothing is computed: the averages are in eval mode from the start.
        """
        if not any(_batch_norms(net) for net in self.nets.values()):
            return
        batches = list(images)
        e, g = self.nets["E"], self.nets["G"]
        generator = torch.Generator(batches[0].device).manual_seed(seed)
        latents = []
        # the default last, for E to stay with
        for kind in reversed(self._kinds):
            inputs = batches if kind == "whole" else [_erased(batch, generator) for batch in batches]
            _re_estimate(e, inputs)
            self.statistics[kind] = {
                f"{name}.{key}": value.clone() for name, m in _batch_norms(e) for key, value in m.named_buffers()
            }
            with torch.no_grad():
                for batch in inputs:
                    mu, log_sigma = e(batch)
                    noise, prior = torch.randn(2, *mu.shape, generator=generator, device=mu.device)
                    latents += [mu + log_sigma.exp() * noise, prior]
        _re_estimate(g, latents)


def _batch_norms(net: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, m) for name, m in net.named_modules() if isinstance(m, _BatchNorm)]


def _erased(images: Tensor, generator: torch.Generator) -> Tensor:
    return masks.erase(images, masks.random_boxes(len(images), images.shape[-1], generator, images.device))


def _adaptive_norms(net: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorms that follow the mode of `net`, in training mode: not those of a body of E."""
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.training]


@torch.no_grad()
def _re_estimate(net: nn.Module, batches: list[Tensor]) -> None:
    """Set BatchNorm's running statistics to the plain mean over the batches, and eval mode."""
    net.train()
    norms = _adaptive_norms(net)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # cumulative: each batch weighs the same
        norm.momentum = None
    for batch in batches:
        net(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()
