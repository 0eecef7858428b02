"""`load_encoder`: a feature extractor as a callable on tensors and as a scikit-learn transformer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor

from galirep.data.handed.datasets import handed_images
from galirep.data.handed.images import HandedImages, ValueRange, require_in_range, require_value_range
from galirep.data.sources import ImageSource
from galirep.data.tensors import to_float
from galirep.errors import DataError, format_list
from galirep.features.extraction import extract
from galirep.features.protocol import FeatureExtractor, describe
from galirep.features.registry import load_extractor
from galirep.system.devices import device_of


class ImageTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn transformer from images to the features of a fixed extractor.

    There is nothing to fit. `clone` and pickling keep the spec only; the weights are loaded on first use.

    Args:
        spec: a run directory or any extractor spec, as for `galirep embed --encoder`.
        layers: names of the layers to return, where the extractor has several.
        device: auto, cpu, cuda or cuda:N.
        batch_size: images at a time in `transform`.
        download: whether missing weights may be downloaded.
        value_range: what float images mean, "0..1" or "-1..1". Without it a call takes them as -1..1, and `transform`
            does if one of them is negative, and refuses them otherwise.
        trust_encoder: whether code that the files of a run name is run, as for `galirep.load_extractor`.
    """

    def __init__(
        self,
        spec: str,
        layers: Sequence[str] | None = None,
        device: str = "auto",
        batch_size: int = 256,
        download: bool = False,
        value_range: ValueRange | None = None,
        trust_encoder: bool = False,
    ) -> None:
        self.spec, self.layers, self.device, self.batch_size, self.download = spec, layers, device, batch_size, download
        self.value_range, self.trust_encoder = value_range, trust_encoder

    @property
    def extractor(self) -> FeatureExtractor:
        """The extractor on its device, loaded on first use; raises as `galirep.features.load_extractor`."""
        if not hasattr(self, "_extractor"):
            self._extractor = load_extractor(
                str(self.spec),
                layers=self.layers,
                download=self.download,
                device=device_of(self.device),
                # not in what earlier versions pickled
                trust_encoder=getattr(self, "trust_encoder", False),
            )
        return self._extractor

    def __call__(self, images: Any) -> Tensor:
        """Map images to (B, dim) float32 on the extractor's device.

        A tensor (B, C, H, W) of the extractor's size and channels goes to it as it is, with gradients: uint8 is scaled,
        float is in [-1, 1], or in [0, 1] for `value_range="0..1"`. Everything else is read as by `transform`.

        Raises:
            DataError: a float tensor has another size or number of channels, or values outside the range; or see
                `transform`.
        """
        if not isinstance(images, Tensor) or images.ndim != 4 or not self._takes(images):
            return torch.from_numpy(self.transform(images)).to(device_of(self.device))
        images = images.to(device_of(self.device))
        if images.dtype == torch.uint8:
            return self.extractor(to_float(images))
        require_value_range(self.value_range)
        images = images.float()
        if images.numel():
            low, high = (float(value) for value in images.detach().aminmax())
            require_in_range(low, high, self.value_range or "-1..1")
        return self.extractor(images * 2 - 1 if self.value_range == "0..1" else images)

    def _takes(self, images: Tensor) -> bool:
        """Return whether a tensor (B, C, H, W) goes to the extractor as it is; raise DataError if it has to and cannot.

        What `transform` would make of it has no gradient, so a float tensor is not left to it.
        """
        if self._fits(images.shape):
            return images.dtype == torch.uint8 or images.is_floating_point()
        if not images.is_floating_point():
            return False
        description = describe(self.extractor)
        side, most = description.image_size or "S", "" if description.exact_size else ", or smaller"
        raise DataError(
            f"a float tensor {tuple(images.shape)} for an encoder of (B, {description.channels}, {side}, {side}){most}"
            ": crop and resize it yourself, so that gradients pass, or use transform"
        )

    def fit(self, X: Any = None, y: Any = None) -> "ImageTransformer":  # noqa: ARG002
        """Load the extractor, so that a wrong spec fails here; nothing is learned."""
        _ = self.extractor
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Map images to (N, dim) float32, read as `galirep embed` reads the same pictures from files.

        `X`: one path or Pillow image; an array or tensor (N, H, W), (N, H, W, C) or (N, C, H, W); a sequence of paths,
        Pillow images and arrays (H, W), (H, W, C) or (C, H, W), of any sizes; an `ImageSource` of `galirep.open_data`;
        a torch Dataset or DataLoader whose items are images or begin with one. Arrays are uint8, or float as
        `value_range` says; each float item of a Dataset is judged for itself.

        Raises:
            DataError: `X` is of another kind, shape, type or range, or images of it cannot be read.
        """
        source: ImageSource = handed_images(X, self.value_range)
        if not len(source):
            return np.empty((0, self.extractor.dim), np.float32)
        floats = source.floats if isinstance(source, HandedImages) else None
        if floats is not None and self._fits(floats.shape):
            return self._transform_floats(floats)
        features, errors = extract(
            self.extractor, source, batch_size=self.batch_size, num_workers=0, device=self.device
        )
        if errors:
            reasons = format_list((f"{index}: {reason}" for index, reason in errors.items()), 5, "; ")
            raise DataError(f"{len(errors)} of {len(source)} images cannot be used: {reasons}")
        return features

    def _fits(self, shape: Sequence[int]) -> bool:
        """Return whether images (N, C, H, W) go to the extractor unchanged, as `embed` would hand them to it."""
        description = describe(self.extractor)
        _, channels, height, width = shape
        side = description.image_size or height
        right_size = height == side if description.exact_size else height <= side
        return bool(height == width and right_size and channels == description.channels)

    def _transform_floats(self, images: NDArray[np.floating]) -> NDArray[np.float32]:
        out = np.empty((len(images), self.extractor.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), self.batch_size):
                rows = slice(start, start + self.batch_size)
                out[rows] = self(torch.from_numpy(images[rows].astype(np.float32))).cpu().numpy()
        return out

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Return the names of the columns: layer_0, layer_1, ..."""
        return np.array(
            [f"{layer}_{i}" for layer, width in describe(self.extractor).layers for i in range(width)], dtype=object
        )


def load_encoder(
    spec: str | Path,
    layers: Sequence[str] | None = None,
    *,
    device: str = "auto",
    batch_size: int = 256,
    download: bool = False,
    value_range: ValueRange | None = None,
    trust_encoder: bool = False,
) -> ImageTransformer:
    """Load the encoder of a run directory or of any extractor spec.

    It can be called on tensors, and is a scikit-learn transformer; `ImageTransformer` explains the arguments.

    >>> encoder = galirep.load_encoder("runs/mnist")      # doctest: +SKIP
    >>> encoder.transform(images).shape                   # doctest: +SKIP
    (100, 896)

    Raises:
        PluginError: the spec is unknown or cannot be built.
        CheckpointError: the run has no export, or it is damaged.
        ConfigError: `value_range` is not "0..1" or "-1..1".
    """
    require_value_range(value_range)
    return ImageTransformer(str(spec), layers, device, batch_size, download, value_range, trust_encoder).fit()
