"""Learned knowledge for training: M(.) as a fixed function of images, and its values on the real images, which never change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from galirep.batches import Batches
from galirep.data import Images
from galirep.errors import PluginError
from galirep.features import describe, load_extractor


@dataclass(frozen=True)
class Knowledge:
    """`extract`: images (B, C, S, S) in [-1, 1] -> (B, dim), standardised; `features`: the same of every real image (N, dim), on the host; `about`: whose."""

    extract: Callable[[Tensor], Tensor] | None = None
    features: Tensor | None = None
    about: dict[str, Any] | None = None

    @property
    def dim(self) -> int:
        """The number of features, 0 without M."""
        return 0 if self.features is None else self.features.shape[1]


def load_knowledge(
    spec: str | None, adapter: Callable[[Tensor], Tensor] | None, images: Images, batches: Batches, *, download: bool = False
) -> Knowledge:
    """M from a spec or a callable, shifted and scaled so that its features of the real images have mean 0 in each dimension and mean square 1 overall.

    The affine map changes nothing that M knows, and gives D inputs of one size whatever the network. Features of real images are computed once and,
    for an extractor with a hash, kept on disk.

    Raises:
        PluginError: the extractor cannot be built, or gives something else than (B, d) finite numbers, or lets no gradient pass.
    """
    if adapter is None:
        assert spec is not None
        adapter = load_extractor(spec, download=download, device=batches.device)
        about = describe(adapter, spec)
        identity = {"spec": spec, "name": about.name, "tag": about.tag, "sha256": about.sha256, "preprocessing": dict(about.preprocessing)}
    else:
        name = getattr(adapter, "name", type(adapter).__name__)
        identity = {"spec": None, "name": name, "tag": getattr(adapter, "tag", ""), "sha256": getattr(adapter, "sha256", ""), "preprocessing": {}}
        if isinstance(adapter, torch.nn.Module):
            adapter.requires_grad_(False).eval().to(batches.device)
    _require_gradient(adapter, batches, identity["name"])
    with torch.no_grad():
        features = torch.cat([adapter(batches.images(part)).float().cpu() for part in torch.arange(batches.n).split(256)])
    mean = features.mean(0)
    scale = (features - mean).square().mean().sqrt().clamp_min(1e-12)
    shift_on_device, scale_on_device = mean.to(batches.device), scale.to(batches.device)
    raw = adapter

    def extract(x: Tensor) -> Tensor:
        return (raw(x) - shift_on_device) / scale_on_device

    return Knowledge(extract, (features - mean) / scale, identity)


def _require_gradient(adapter: Callable[[Tensor], Tensor], batches: Batches, name: str) -> None:
    x = batches.images(torch.arange(2)).requires_grad_()
    out = adapter(x)
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2 or not bool(out.isfinite().all()):
        raise PluginError(f"the extractor {name!r} must give (2, d) finite numbers for two images, not {tuple(out.shape) if isinstance(out, Tensor) else out!r}")
    if not out.requires_grad:
        raise PluginError(f"the extractor {name!r} lets no gradient pass to its input (torch.no_grad inside it?), so G cannot learn from it")
