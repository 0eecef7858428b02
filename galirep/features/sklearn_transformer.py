"""`load_encoder`: a feature extractor as a callable on tensors and as a scikit-learn transformer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor

from galirep.data.picture import resize_square
from galirep.data.tensors import to_float
from galirep.errors import DataError
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
    """

    def __init__(
        self,
        spec: str,
        layers: Sequence[str] | None = None,
        device: str = "auto",
        batch_size: int = 256,
        download: bool = False,
    ) -> None:
        self.spec, self.layers, self.device, self.batch_size, self.download = spec, layers, device, batch_size, download

    @property
    def extractor(self) -> FeatureExtractor:
        """The extractor on its device, loaded on first use; raises as `galirep.features.load_extractor`."""
        if not hasattr(self, "_extractor"):
            self._extractor = load_extractor(
                str(self.spec), layers=self.layers, download=self.download, device=device_of(self.device)
            )
        return self._extractor

    def __call__(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 in [-1, 1] to (B, dim) float32 on the extractor's device, with gradients."""
        return self.extractor(images.to(device_of(self.device)))

    def fit(self, X: Any = None, y: Any = None) -> "ImageTransformer":  # noqa: ARG002
        """Load the extractor, so that a wrong spec fails here; nothing is learned."""
        _ = self.extractor
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: ArrayLike | Tensor | Sequence[Any]) -> NDArray[np.float32]:
        """Map images to (N, dim) float32.

        `X`: uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), or a sequence of such images of any sizes (resized to
        the encoder's size as `embed` does), or float images (N, C, H, W) in [-1, 1], used as they are.

        Raises:
            DataError: `X` has another shape, type or range.
        """
        stacked = self._stack(X)
        out = np.empty((len(stacked), self.extractor.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(stacked), self.batch_size):
                batch = torch.as_tensor(stacked[start : start + self.batch_size])
                images = to_float(batch) if batch.dtype == torch.uint8 else batch
                out[start : start + self.batch_size] = self(images).cpu().numpy()
        return out

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Return the names of the columns: layer_0, layer_1, ..."""
        return np.array(
            [f"{layer}_{i}" for layer, width in describe(self.extractor).layers for i in range(width)], dtype=object
        )

    def _stack(self, X: Any) -> Any:
        """Return one array: float images as they are, uint8 images (N, C, S, S)."""
        if isinstance(X, Tensor):
            X = X.detach().cpu().numpy()
        if not isinstance(X, np.ndarray) and len({np.shape(image) for image in X}) == 1:
            X = np.asarray(X)
        if isinstance(X, np.ndarray) and X.dtype.kind == "f":
            in_range = np.isfinite(X).all() and X.min() >= -1.001 and X.max() <= 1.001
            if X.ndim != 4 or X.shape[1] not in (1, 3) or not in_range:
                raise DataError(
                    "float images must be (N, 1 or 3, H, W) in [-1, 1], "
                    f"not {X.shape} from {X.min():g} to {X.max():g}; give uint8 images otherwise"
                )
            return X.astype(np.float32, copy=False)
        description = describe(self.extractor)
        side = description.image_size if description.exact_size else None
        return np.stack([resize_square(_channels_last(image), side, description.channels) for image in X])


def _channels_last(image: Any) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise DataError(f"an image must be uint8 (H, W), (H, W, C) or (C, H, W), not {pixels.dtype} {pixels.shape}")
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if pixels.shape[2] in (1, 3):
        return pixels
    if pixels.shape[0] in (1, 3):
        return np.moveaxis(pixels, 0, 2)
    raise DataError(f"an image must have 1 or 3 channels, first or last, not the shape {pixels.shape}")


def load_encoder(
    spec: str | Path,
    layers: Sequence[str] | None = None,
    *,
    device: str = "auto",
    batch_size: int = 256,
    download: bool = False,
) -> ImageTransformer:
    """Load the encoder of a run directory or of any extractor spec.

    It can be called on tensors, and is a scikit-learn transformer.

    >>> encoder = galirep.load_encoder("runs/mnist")      # doctest: +SKIP
    >>> encoder.transform(images).shape                   # doctest: +SKIP
    (100, 896)

    Raises:
        PluginError: the spec is unknown or cannot be built.
        CheckpointError: the run has no export, or it is damaged.
    """
    return ImageTransformer(str(spec), layers, device, batch_size, download).fit()
