"""Learned knowledge for training: M(.) as a fixed function of images, and its values on the real images, which never change."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from galirep.data.batches import Batches
from galirep.data.memory import Images
from galirep.data.tensors import ImageFunction
from galirep.errors import PluginError
from galirep.features.cache import cached_features
from galirep.features.protocol import describe, require_gradient
from galirep.features.registry import load_extractor


@dataclass(frozen=True)
class Knowledge:
    """`extract`: images (B, C, S, S) in [-1, 1] -> (B, dim), standardised; `features`: the same of every real image (N, dim), on the host;
    `about`: whose.
    """

    extract: ImageFunction | None = None
    features: Tensor | None = None
    about: dict[str, Any] | None = None

    @property
    def dim(self) -> int:
        """The number of features, 0 without M."""
        return 0 if self.features is None else self.features.shape[1]


def load_knowledge(
    spec: str | None,
    adapter: ImageFunction | None,
    images: Images,
    rows: Tensor,
    batches: Batches,
    *,
    download: bool = False,
) -> Knowledge:
    """M from a spec or, where one is given, a callable; its features of real images have mean 0 in each dimension and mean square 1 over
    all.

    That affine map changes nothing that M knows, and gives D inputs of one size whatever the network. The features of real images are
    computed once and, for a spec, kept on disk (see `galirep.features.cache`): there those of all `images`, here those of the `rows` that
    `batches` hands out.

    Raises:
        PluginError: the extractor cannot be built, gives something else than (B, d) finite numbers, or lets no gradient pass.
    """
    raw: ImageFunction
    if adapter is not None:
        name = str(getattr(adapter, "name", type(adapter).__name__))
        about: dict[str, Any] = {
            "spec": None,
            "name": name,
            **{key: getattr(adapter, key, "") for key in ("tag", "sha256")},
        }
        raw = (
            adapter.requires_grad_(False).eval().to(batches.device) if isinstance(adapter, torch.nn.Module) else adapter
        )
        _require_useful(raw, batches, name)
        with torch.no_grad():
            features = torch.cat([raw(x).float().cpu() for x in batches.blocks()])
    else:
        assert spec is not None
        raw = extractor = load_extractor(spec, download=download, device=batches.device)
        known = dataclasses.asdict(describe(extractor, spec))
        about = {key: known[key] for key in ("spec", "name", "tag", "sha256", "preprocessing")} | {
            "layers": dict(known["layers"])
        }
        _require_useful(raw, batches, known["name"])
        features = torch.from_numpy(
            cached_features(extractor, images.tensor(), images.fingerprint, device=batches.device)[rows.numpy()]
        )
    mean = features.mean(0)
    rms = (features - mean).square().mean().sqrt().clamp_min(1e-12)
    shift, scale = mean.to(batches.device), 1 / rms.to(batches.device)

    def extract(x: Tensor) -> Tensor:
        return (raw(x) - shift) * scale

    return Knowledge(extract, (features - mean) / rms, about)


def _require_useful(extract: ImageFunction, batches: Batches, name: str) -> None:
    """Refuse an extractor that cannot serve as M(.), before anything long begins."""
    images = batches.images(torch.arange(2))
    out = extract(images)
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2 or not bool(out.isfinite().all()):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise PluginError(f"the extractor {name!r} must give (2, d) finite numbers for two images, not {got}")
    require_gradient(extract, images)
