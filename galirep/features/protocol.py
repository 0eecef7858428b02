"""The protocol of feature extractors, and the checks that an extractor follows it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from galirep.errors import PluginError


@runtime_checkable
class FeatureExtractor(Protocol):
    """A callable from images to feature vectors.

    Called with (B, C, H, W) float32 in [-1, 1], it returns (B, dim) finite float32. It does its own resizing
    (antialiased) and normalisation, is deterministic, in eval mode with frozen parameters, and lets gradients pass to
    its input (so: no `torch.no_grad` inside). An extractor that is an `nn.Module` is moved to the device it is used on;
    any other callable must compute on its input's device.

    These attributes are optional (see `describe`): `image_size` (the side it works at; larger images may be reduced to
    it before the call), `exact_size` (True: every image must be exactly `image_size`), `channels` (1 or 3, default 3),
    `layers` (name -> width, in the order of the columns), `with_layers(names)` (the same extractor giving other
    layers), `tag`, `sha256` (of its weights), `preprocessing` (a JSON object) and
    `origin` (see `origin_of`).
    """

    name: str
    dim: int

    def __call__(self, images: Tensor, /) -> Tensor:
        """Map (B, C, H, W) float32 in [-1, 1] to (B, dim) float32."""
        ...


@dataclass(frozen=True)
class Description:
    """What is recorded of an extractor wherever it is used.

    Features are comparable if `name`, `sha256`, `layers` and `preprocessing` agree.
    """

    spec: str
    name: str
    dim: int
    tag: str
    sha256: str
    image_size: int | None
    exact_size: bool
    channels: int
    layers: tuple[tuple[str, int], ...]
    preprocessing: Mapping[str, Any]


def describe(extractor: FeatureExtractor, spec: str = "") -> Description:
    """Return the description of an extractor, with defaults for the attributes that it lacks."""
    layers = getattr(extractor, "layers", None) or {"features": extractor.dim}
    return Description(
        spec=spec or getattr(extractor, "spec", "") or extractor.name,
        name=extractor.name,
        dim=extractor.dim,
        tag=getattr(extractor, "tag", ""),
        sha256=getattr(extractor, "sha256", ""),
        image_size=getattr(extractor, "image_size", None),
        exact_size=getattr(extractor, "exact_size", False),
        channels=getattr(extractor, "channels", 3),
        layers=tuple(layers.items()),
        preprocessing=dict(getattr(extractor, "preprocessing", {})),
    )


def origin_of(extractor: object) -> dict[str, Any]:
    """Return how the network of an extractor came about, None where its attribute `origin` does not say.

    `license` of its weights; `data` that it was trained on (a JSON object: `spec`, `split`, `images`, `fingerprint`);
    `objective` of that training; `labels`: whether it learned from labels.
    """
    origin = getattr(extractor, "origin", {})
    return {name: origin.get(name) for name in ("license", "data", "objective", "labels")}


def check(built: Any, spec: str, device: str | torch.device = "cpu") -> FeatureExtractor:
    """Probe an extractor with two images and return it.

    Raises:
        PluginError: it has no name or dim, does not return (2, dim) finite float32, or its layers do not add up to dim.
    """
    name, dim = getattr(built, "name", None), getattr(built, "dim", None)
    if not callable(built) or not isinstance(name, str) or not isinstance(dim, int):
        raise PluginError(
            f"the extractor {spec!r} is of type {type(built).__name__}, not an extractor: "
            "it needs name (str), dim (int) and a call on images"
        )
    description = describe(built, spec)
    side = description.image_size or 32
    shape = (2, description.channels, side, side)
    images = torch.linspace(-1, 1, math.prod(shape), device=device).reshape(shape)
    with torch.no_grad():
        try:
            out = built(images)
        # code of the user or of another package may raise anything; the message says whose code it was
        except Exception as err:
            raise PluginError(
                f"the extractor {spec!r} fails on two {side}x{side} images: {type(err).__name__}: {err}"
            ) from err
    if problem := _describe_wrong_output(out, dim):
        raise PluginError(f"the extractor {spec!r} must give (2, {dim}) finite float32 for two images, not {problem}")
    columns = sum(width for _, width in description.layers)
    if columns != dim:
        raise PluginError(
            f"the extractor {spec!r} has dim {dim}, but its layers {dict(description.layers)} have {columns} columns"
        )
    return built  # type: ignore[no-any-return]


def _describe_wrong_output(out: Any, dim: int) -> str:
    """Return what `out` is if it is not (2, dim) finite float32, else an empty string."""
    if not isinstance(out, Tensor):
        return type(out).__name__
    if tuple(out.shape) != (2, dim) or out.dtype != torch.float32:
        return f"{tuple(out.shape)} {str(out.dtype).removeprefix('torch.')}"
    return "" if bool(out.isfinite().all()) else "NaN or infinity"


def require_gradient(extractor: Callable[[Tensor], Tensor], images: Tensor, role: str = "M(.)") -> None:
    """Check that gradients pass through the extractor to its input, as training with it in that role needs.

    `images`: two or more, (B, C, H, W) in [-1, 1].

    Raises:
        PluginError: they do not pass, for instance because of a `torch.no_grad` inside.
    """
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        out = extractor(leaf)
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf, allow_unused=True) if out.requires_grad else (None,)
    if gradient is None or not bool(gradient.isfinite().all()) or not bool(gradient.any()):
        name = getattr(extractor, "name", type(extractor).__name__)
        raise PluginError(
            f"the extractor {name!r} lets no gradient pass to its input, so G could not learn from it as {role}"
        )
