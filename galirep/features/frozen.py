"""`FrozenExtractor`, the base of extractors that wrap a frozen network: it resizes and normalises images."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from galirep.errors import PluginError

_log = logging.getLogger(__name__)
# ITU-R BT.601, the weights of Pillow's "L"
_LUMA = (0.299, 0.587, 0.114)
Net = TypeVar("Net", bound=nn.Module)
Self = TypeVar("Self", bound="FrozenExtractor")


def freeze(network: Net) -> Net:
    """Turn off the gradients of a network's parameters, put it in eval mode, and return it."""
    # ScriptModules have no requires_grad_ of their own
    for parameter in network.parameters():
        parameter.requires_grad = False
    network.eval()
    return network


class FrozenExtractor(nn.Module):
    """A `FeatureExtractor` that converts images of any size and channel count to what its network expects.

    A subclass sets `dim` and overrides `features`; `NetworkExtractor` does both for an `nn.Module`. Resizing is
    antialiased and differentiable, gradients pass to the input, and the module stays in eval mode when a parent module
    calls `.train()`.

    Args:
        name: the name recorded wherever the extractor is used.
        image_size: side of the square network input, in pixels; every image is resized to it. None: no resize.
        mean, std: normalisation of images in [0, 1], one number or one for each channel; the default keeps [-1, 1].
        interpolation: mode of the resize.
        channels: 3 (grey images are replicated) or 1 (colour images are reduced to luma).
        tag: name of the weights.
        sha256: hash of their file.
    """

    dim: int
    origin: Mapping[str, Any] = {}
    """What its network was trained on: see `galirep.features.protocol.origin_of`."""
    scale: Tensor
    shift: Tensor
    luma: Tensor

    def __init__(
        self,
        *,
        name: str,
        image_size: int | None,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        interpolation: Literal["bilinear", "bicubic"] = "bicubic",
        channels: int = 3,
        tag: str = "",
        sha256: str = "",
    ) -> None:
        super().__init__()
        self.name, self.tag, self.sha256 = name, tag, sha256
        self.image_size, self.channels, self.interpolation = image_size, channels, interpolation
        self.preprocessing: dict[str, Any] = {
            "resize": f"{interpolation}, antialias" if image_size else "none",
            "size": image_size,
            "channels": channels,
            "mean": list(mean),
            "std": list(std),
        }
        # ((x + 1) / 2 - mean) / std as one multiply-add
        spread = torch.tensor(list(std)).reshape(1, -1, 1, 1)
        self.register_buffer("scale", 0.5 / spread, persistent=False)
        self.register_buffer("shift", (0.5 - torch.tensor(list(mean)).reshape(1, -1, 1, 1)) / spread, persistent=False)
        self.register_buffer("luma", torch.tensor(_LUMA).reshape(1, 3, 1, 1), persistent=False)
        self._warned_grey = False
        self.eval()

    def features(self, images: Tensor) -> Tensor:
        """Map preprocessed images (B, channels, image_size, image_size) to (B, dim)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 in [-1, 1], C 1 or 3, to (B, dim) float32."""
        return self.features(self.preprocess(images)).float()

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize and normalise (B, C, H, W) in [-1, 1] to (B, channels, image_size, image_size).

        Raises:
            PluginError: `images` does not have four axes, or has neither 1 nor 3 channels.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.shape[2] or not images.shape[3]:
            raise PluginError(f"{self.name} takes images (B, 1 or 3, H, W), not {tuple(images.shape)}")
        if images.shape[1] == 3 and self.channels == 1:
            images = (images * self.luma).sum(1, keepdim=True)
        side = self.image_size
        if side and images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode=self.interpolation, antialias=True)
        if images.shape[1] == 1 and self.channels == 3:
            if not self._warned_grey:
                _log.warning("%s takes 3 channels: grey images are replicated to 3", self.name)
                self._warned_grey = True
            images = images.expand(-1, 3, -1, -1)
        return images * self.scale + self.shift

    def train(self: Self, mode: bool = True) -> Self:  # noqa: ARG002
        """Keep eval mode whatever `mode` is: features must not depend on the batch."""
        return super().train(False)
