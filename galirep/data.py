"""Image sets by name: `open_data` for any set the toolkit reads, `load_images` for one decoded into memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from galirep.arrays import Hdf5Source, open_digits, open_npz
from galirep.decode import Decoded, auto_workers, decode
from galirep.errors import ConfigError, DataError, unknown
from galirep.images import Pixels, fit
from galirep.sources import ImageSource, Labels, open_folder, open_tar

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SPECS", "Decoded", "ImageSource", "Images", "auto_workers", "decode", "fit", "load_images", "open_data"]

SPECS = {
    "sklearn": "sklearn:digits",
    "npz": "npz:FILE",
    "hdf5": "hdf5:FILE[#DATASET]",
}
"""The kinds of data sets beside a folder and a .tar of one, and how they are written."""


def open_data(spec: str, split: str | None = None, *, root: str | Path | None = None, download: bool = False) -> ImageSource:
    """The image set that `spec` names; docs/data.md states every kind, its ids, labels and splits.

    `spec` is a folder, a .tar of one, or one of `SPECS`. `root` is where torchvision's sets lie; they are fetched only if `download`.

    Raises:
        DataError: unknown kind, nothing there, no images in it, or no such split.
    """
    kind, _, name = spec.partition(":")
    if kind == "sklearn" and name == "digits":
        return open_digits(spec, split)
    if kind == "sklearn":
        raise DataError(unknown("data set", spec, ["sklearn:digits"]))
    if kind in ("npz", "hdf5"):
        if split is not None:
            raise DataError(f"{spec} has no split {split!r}: it has no splits, leave --split out")
        if kind == "npz":
            return open_npz(spec, _file(name))
        whole = Path(name).exists()  # a # may also be part of the file's name
        return Hdf5Source(spec, Path(name)) if whole else Hdf5Source(spec, _file(name.partition("#")[0]), name.partition("#")[2] or None)
    path = Path(spec)
    if path.is_dir():
        return open_folder(spec, path, split)
    if path.is_file():
        return open_tar(spec, path, split)
    raise DataError(f"there is no folder or .tar {spec!r}; other data sets are written {', '.join(SPECS.values())}")


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise DataError(f"there is no file {name!r}")
    return path


@dataclass
class Images:
    """A set decoded into memory: `pixels` (N, C, S, S) uint8, and what it is of; `errors` are (id, reason) of the images left out."""

    pixels: Pixels
    ids: list[str]
    labels: Labels | None
    label_names: tuple[str, ...]
    fingerprint: str
    spec: str
    split: str | None
    errors: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pixels)

    def tensor(self) -> "Tensor":
        """The pixels as a torch tensor (N, C, S, S) uint8 on the CPU; shares their memory."""
        import torch  # decoding needs no torch, and neither do its workers

        return torch.from_numpy(self.pixels)


def load_images(
    source: ImageSource,
    size: int,
    channels: int | None = None,
    *,
    num_workers: int | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    max_upscale: float = 2.0,
    progress: Callable[[int], None] | None = None,
) -> Images:
    """Decode a whole set once, to (N, channels, size, size) uint8.

    `channels` None gives 1 if every image is grey, else 3. `on_error="skip"` leaves out what cannot be read and lists it in `errors`.
    `progress` is called with the number of images since its last call.

    Raises:
        ConfigError: a size, number of channels or `on_error` that does not exist.
        DataError: images that cannot be read (all are found, ten are named), none left, or not enough memory.
    """
    if size < 1 or channels not in (None, 1, 3) or on_error not in ("fail", "skip"):
        raise ConfigError(f"size {size}, channels {channels}, on_error {on_error!r}: expected a size of 1 or more, channels 1 or 3, and fail or skip")
    pixels = np.empty((len(source), channels or 1, size, size), dtype=np.uint8)
    kept: list[int] = []
    errors: list[tuple[str, str]] = []
    for image in decode(source, size=size, channels=channels, num_workers=num_workers, max_upscale=max_upscale):
        if image.pixels is None:
            errors.append((image.id, image.error or ""))
        else:
            if len(image.pixels) > pixels.shape[1]:  # the first colour image after grey ones
                grey, pixels = pixels, np.empty((len(source), 3, size, size), dtype=np.uint8)
                pixels[: len(kept)] = grey[: len(kept)]
            pixels[len(kept)] = image.pixels
            kept.append(image.index)
        if progress is not None:
            progress(1)
    if errors and (on_error == "fail" or not kept):
        shown = "; ".join(f"{name}: {reason}" for name, reason in errors[:10]) + (f"; and {len(errors) - 10} more" if len(errors) > 10 else "")
        raise DataError(f"{len(errors)} of {len(source)} images of {source.spec} cannot be used: {shown}")
    return Images(
        pixels=pixels[: len(kept)],
        ids=[source.ids[i] for i in kept],
        labels=None if source.labels is None else source.labels[kept],
        label_names=source.label_names,
        fingerprint=source.fingerprint,
        spec=source.spec,
        split=source.split,
        errors=errors,
    )
