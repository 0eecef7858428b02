"""Torch data sets and loaders as images: what comes with an image (a label, an index) is left aside."""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

from galirep.data.catalog import open_data
from galirep.data.files.splits import AUTO
from galirep.data.handed.images import (
    HandedImages,
    PythonImages,
    ValueRange,
    as_items,
    range_of_floats,
    require_value_range,
    to_pixels,
)
from galirep.data.picture import PixelArray
from galirep.data.sources import HANDED, ImageSource
from galirep.errors import ConfigError, DataError

_log = logging.getLogger("galirep.data")


def open_images(
    images: Any,
    split: str | None = None,
    *,
    splits: str | Sequence[str] | None = AUTO,
    root: str | PathLike[str] | None = None,
    download: bool = False,
) -> ImageSource:
    """Return the images that a function was given: a SPEC (text or path, see `open_data`), or as `handed_images`.

    Raises:
        DataError: they cannot be opened, or are nothing of the kind.
        ConfigError: no set is named; `split` or `splits` of images that are handed over, which have none.
    """
    if isinstance(images, str) and not images:
        raise ConfigError("data: give a data set, e.g. --data sklearn:digits, or images from Python")
    if isinstance(images, str | PathLike):
        return open_data(str(images), split, splits=splits, root=None if root is None else str(root), download=download)
    if not isinstance(images, ImageSource) and split is not None:
        raise ConfigError(f"split {split!r} is of a data set that is named, and images were handed over: leave it out")
    return handed_images(images)


def chosen_data(configured: str, given: Any) -> Any:
    """Return the data to train on: what is given beside the settings, else what they name; warn where both are."""
    if given is None:
        return configured
    spec = given.spec if hasattr(given, "spec") else str(given) if isinstance(given, str | PathLike) else HANDED
    if configured and spec != configured and not configured.startswith(HANDED):
        _log.warning("config.data %r is not read: the data that is given (%s) replaces it", configured, spec)
    return given


_KEYS = ("image", "images", "img", "pixel_values")
"""Keys of an item that is a mapping, the first that it has."""


def handed_images(images: Any, value_range: ValueRange | None = None) -> ImageSource:
    """Return whatever was handed over as images: a source as it is, a torch Dataset or DataLoader, or `HandedImages`.

    Raises:
        DataError: it is nothing of the kind, or its floats are of a range that is not certain.
        ConfigError: `value_range` is not one of `ValueRange`.
    """
    if isinstance(images, ImageSource):
        require_value_range(value_range)
        return images
    kinds = {kind.__name__ for kind in type(images).__mro__ if kind.__module__.startswith("torch.utils.data")}
    if "DataLoader" in kinds:
        return LoaderImages(images, value_range)
    if "Dataset" in kinds:
        return DatasetImages(images, value_range)
    return HandedImages(images, value_range)


class _Items(PythonImages):
    """Images that come with an item each; a float image is taken by `value_range`, or refused unless it tells."""

    def __init__(self, spec: str, count: int, value_range: ValueRange | None) -> None:
        require_value_range(value_range)
        super().__init__(spec, count, value_range)

    @abstractmethod
    def _item(self, index: int) -> Any:
        """Return the image of an item, in a form that `HandedImages` takes."""

    def _pixels(self, index: int) -> PixelArray:
        (image,) = as_items([self._item(index)])
        return to_pixels(image, range_of_floats([image], self._value_range))


class DatasetImages(_Items):
    """The images of a torch Dataset with a length, in its order: items are images, (image, ...) or mappings.

    Raises:
        DataError: it has no length (an IterableDataset).
    """

    def __init__(self, dataset: Any, value_range: ValueRange | None = None) -> None:
        if not hasattr(dataset, "__len__"):
            raise DataError(f"a {type(dataset).__name__} has no length: hand over a list of its images")
        self._dataset = dataset
        super().__init__(f"{HANDED} ({type(dataset).__name__})", len(dataset), value_range)

    def _item(self, index: int) -> Any:
        return image_of(self._dataset[index])


class LoaderImages(_Items):
    """The images of a torch DataLoader in the order in which it gives them, its own if it shuffles.

    They are read forwards, one batch in memory at a time; reading an earlier one starts the loader again.

    Raises:
        DataError: it has no length, or leaves the last images out.
    """

    def __init__(self, loader: Any, value_range: ValueRange | None = None) -> None:
        if getattr(loader, "drop_last", False):
            raise DataError("a DataLoader with drop_last=True leaves images out: make one with drop_last=False")
        try:
            count = len(loader.sampler)
        except TypeError:
            raise DataError("a DataLoader without a length: hand over a list of its images") from None
        self._loader = loader
        self._stream: Iterator[Any] = iter(())
        self._next = 0
        super().__init__(f"{HANDED} ({type(loader).__name__})", count, value_range)

    def _item(self, index: int) -> Any:
        if index < self._next or self._next == 0:
            self._stream, self._next = self._images(), 0
        while self._next <= index:
            image = next(self._stream, None)
            if image is None:
                raise DataError(f"the DataLoader ended after {self._next} of {len(self)} images")
            self._next += 1
        return image

    def _images(self) -> Iterator[Any]:
        for batch in self._loader:
            images = image_of(batch)
            # of an unbatched loader (batch_size=None) each item is one image
            if getattr(self._loader, "batch_sampler", None) is None:
                yield images
            else:
                yield from images


def image_of(item: Any) -> Any:
    """Return the image of an item of a data set, or the images of a batch.

    Raises:
        DataError: it is a mapping without an image under one of the usual keys, or an empty sequence.
    """
    if isinstance(item, Mapping):
        for key in _KEYS:
            if key in item:
                return item[key]
        raise DataError(f"an item has {', '.join(map(str, item))}, and none of {', '.join(_KEYS)}")
    if isinstance(item, Sequence) and not isinstance(item, str | bytes):
        if not item:
            raise DataError("an item is empty: it must be an image, or begin with one")
        return item[0]
    return item
