"""`load_encoder`: any feature extractor as a callable and as a scikit-learn transformer."""

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
    """Images to features with a fixed extractor. There is nothing to fit; `clone` and pickling keep the spec and load the weights anew when
    needed.

    Args:
        spec: a run directory or any extractor spec, as for `galirep embed --encoder`.
        layers: names of the layers wanted, where the extractor has several.
        device: auto, cpu, cuda or cuda:N.
        batch_size: images at a time in `transform`.
        download: whether weights that are missing may be fetched.
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
        """The extractor on its device, loaded on first use. Raises as `galirep.features.load_extractor`."""
        if not hasattr(self, "_extractor"):
            self._extractor = load_extractor(
                str(self.spec), layers=self.layers, download=self.download, device=device_of(self.device)
            )
        return self._extractor

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float32 in [-1, 1] -> (B, dim) float32, with gradients to the images; images go to the extractor's device."""
        return self.extractor(images.to(device_of(self.device)))

    def fit(self, X: Any = None, y: Any = None) -> "ImageTransformer":  # noqa: ARG002
        """Nothing to learn; loads the extractor, so that a wrong spec is told here."""
        _ = self.extractor
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: ArrayLike | Tensor | Sequence[Any]) -> NDArray[np.float32]:
        """Images to (N, dim) float32.

        `X`: uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), or a sequence of such images of any sizes (brought to the encoder's size
        as `embed` does), or float images (N, C, H, W) in [-1, 1], used as they are.

        Raises:
            DataError: another shape, type or range.
        """
        prepared = self._prepare(X)
        out = np.empty((len(prepared), self.extractor.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(prepared), self.batch_size):
                batch = torch.as_tensor(prepared[start : start + self.batch_size])
                images = to_float(batch) if batch.dtype == torch.uint8 else batch
                out[start : start + self.batch_size] = self(images).cpu().numpy()
        return out

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002
        """The names of the columns: layer_0, layer_1, ..."""
        return np.array(
            [f"{layer}_{i}" for layer, width in describe(self.extractor).layers for i in range(width)], dtype=object
        )

    def _prepare(self, X: Any) -> Any:
        if isinstance(X, Tensor):
            X = X.detach().cpu().numpy()
        if not isinstance(X, np.ndarray) and len({np.shape(image) for image in X}) == 1:
            X = np.asarray(X)
        if isinstance(X, np.ndarray) and X.dtype.kind == "f":
            if (
                X.ndim != 4
                or X.shape[1] not in (1, 3)
                or not (np.isfinite(X).all() and X.min() >= -1.001 and X.max() <= 1.001)
            ):
                found = f"{X.shape} from {X.min():g} to {X.max():g}"
                raise DataError(
                    f"float images must be (N, 1 or 3, H, W) in [-1, 1], not {found}; give uint8 images otherwise"
                )
            return X.astype(np.float32, copy=False)
        about = describe(self.extractor)
        side = about.image_size if about.exact_size else None
        return np.stack([resize_square(_channels_last(image), side, about.channels) for image in X])


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
    """The encoder of a run directory, or any extractor spec, loaded and ready: a callable on tensors and a scikit-learn transformer.

    >>> encoder = galirep.load_encoder("runs/mnist")      # doctest: +SKIP
    >>> encoder.transform(images).shape                   # doctest: +SKIP
    (100, 896)

    Raises:
        PluginError: the spec is unknown or cannot be built.
        CheckpointError: the run has no sound export.
    """
    return ImageTransformer(str(spec), layers, device, batch_size, download).fit()
