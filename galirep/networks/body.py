"""E on a body: an extractor's layers as what is known of an image, and a trained head on them for the posterior."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from galirep.data.tensors import ImageFunction
from galirep.networks.parts import Encoder, Parts, Shapes, dense_block, init_normal

PREFIX = "body."
"""Stands before the names of the body's layers, which may be those of another E."""
_HEAD_STD = 0.02  # of the head's first weights (Radford et al. 2016)
Self = TypeVar("Self", bound="BodyEncoder")


@dataclass(frozen=True)
class Body:
    """What E stands on: `function` maps images (B, C, S, S) in [-1, 1] to the `layers`, name -> width, side by side.

    `record` is what run.json and exports say of it: at least `spec` (None for an object handed over in Python), `name`,
    `sha256`, `layers`, `rate` (its learning rate over E's; 0: frozen) and `copy` (the adapter that reads `files`, the
    export that the body was read from, relative path -> content; None where it is not one of galirep's own nets).
    """

    function: ImageFunction
    layers: Mapping[str, int]
    record: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def trained(self) -> bool:
        """True if its weights are trained with E's head."""
        return bool(self.record["rate"])

    def encoder(self, parts: Parts, shapes: Shapes) -> "BodyEncoder":
        """Return an E on this body; its head has the width, slope and normalisation of the family's last layer."""
        return BodyEncoder(self, parts.encoder.head.in_features, shapes.latent, parts.slope, shapes.norm)


BodyLoader = Callable[[Mapping[str, Any], Path], Body]
"""Build the body that an export records, given the record and the folder of the export."""


class _Frozen:
    """A function that all copies of an E share, and that is no part of its weights."""

    def __init__(self, function: ImageFunction) -> None:
        self.function = function

    def __call__(self, images: Tensor) -> Tensor:
        return self.function(images)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Frozen":
        return self


class BodyEncoder(Encoder):
    """An `Encoder` whose blocks stand on a body: layers of the body -> standardised -> fc1 -> mu and log sigma.

    The body is always in eval mode. Frozen, it is no part of the parameters, the state or the modules of this E, so no
    optimizer, average, checkpoint or re-estimate of statistics knows of it; gradients pass through it to the images.
    Trained, it is the submodule `body`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, body: Body, hidden: int, latent: int, slope: float, norm: str) -> None:
        dim = sum(body.layers.values())
        super().__init__({"fc1": dense_block(dim, hidden, slope, norm)}, hidden, latent)
        init_normal(self, _HEAD_STD)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.body_layers, self.body_record = dict(body.layers), body.record
        if isinstance(body.function, nn.Module):
            # ScriptModules have no requires_grad_ of their own
            for weight in body.function.parameters():
                weight.requires_grad = body.trained
        self.body: nn.Module | _Frozen = _Frozen(body.function)
        if body.trained:
            assert isinstance(body.function, nn.Module)
            self.body = body.function
        self.train()

    def forward(self, images: Tensor, *, with_hidden: bool = False) -> tuple[Tensor, ...]:
        """(B, C, S, S) -> mu (B, latent), log sigma (B, latent) and, if asked, the head's hidden layer (B, hidden)."""
        return super().forward((self._features(images) - self.mean) * self.scale, with_hidden=with_hidden)

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """Return the body's layers as `body.NAME`, fc1 and mu, each (B, d)."""
        return dict(self.outputs(images))

    def outputs(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the body's layers as `body.NAME`, fc1 and mu, each (B, d); the head runs when it is asked for."""
        features = self._features(images)
        parts = torch.split(features, list(self.body_layers.values()), 1)
        for name, part in zip(self.body_layers, parts, strict=True):
            yield f"{PREFIX}{name}", part
        hidden = (features - self.mean) * self.scale
        for name, block in self.blocks.items():
            hidden = block(hidden)
            yield name, hidden
        yield "mu", self.head(hidden).chunk(2, 1)[0]

    def _features(self, images: Tensor) -> Tensor:
        # as M(.), which is not made for half precision, but for float64 in tests
        features: Tensor = _call(self.body, images if images.dtype == torch.float64 else images.float())
        return features

    @torch.no_grad()
    def standardize(self, images: Iterable[Tensor]) -> None:
        """Set the constants that standardise the body's layers, from images (B, C, S, S).

        Over the images each column then has mean 0, and each layer mean square 1: the head sees inputs of one size
        whatever the body, and no layer drowns another.
        """
        features = torch.cat([self._features(x).float() for x in images])
        self.mean.copy_(features.mean(0))
        parts = torch.split(features - self.mean, list(self.body_layers.values()), 1)
        rms = [part.square().mean().sqrt().expand(part.shape[1]) for part in parts]
        self.scale.copy_(1 / torch.cat(rms).clamp_min(1e-12))

    def body_parameters(self) -> list[nn.Parameter]:
        """Return the body's weights that are trained; none of a frozen body."""
        return list(self.body.parameters()) if isinstance(self.body, nn.Module) else []

    def train(self: Self, mode: bool = True) -> Self:
        """Set the mode of the head; the body stays in eval mode, since its features must not depend on the batch."""
        super().train(mode)
        if isinstance(self.body, nn.Module):
            self.body.eval()
        return self

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # .to(device) and the like
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.body, _Frozen) and isinstance(self.body.function, nn.Module):
            self.body.function._apply(fn)  # type: ignore[no-untyped-call]
        return self


# an extractor may be any code, with hooks that come and go: only the head is compiled
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _call(function: ImageFunction | nn.Module, images: Tensor) -> Tensor:
    features: Tensor = function(images)
    return features
