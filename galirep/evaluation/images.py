"""The images of an evaluation: those that are measured on, and those that a probe or the floor of FID is made of."""

import contextlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from galirep.data.catalog import open_data
from galirep.data.memory import Images, load_images, native_side
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError, DataError, plural
from galirep.evaluation.subjects import Subject

_PREFERRED = ("test", "val")  # the split that is measured where none is named
Shape = tuple[int, int]  # size, channels


class EvaluationData:
    """The images to evaluate on and the training images, decoded once for each size and number of channels.

    `data` and `train` are as in `galirep.evaluate`. Images that cannot be read are left out and counted.

    Raises:
        DataError: the data cannot be opened.
        ConfigError: a split of data that is in memory.
    """

    def __init__(
        self,
        data: str | ImageSource | Images,
        split: str | None,
        *,
        splits: str | Sequence[str] | None = "auto",
        train: str | ImageSource | Images | None = None,
        image_size: int | None = None,
        num_workers: int | None = None,
        data_root: str | None = None,
        download: bool = False,
    ) -> None:
        self._open = {"splits": splits, "root": data_root, "download": download}
        self._image_size, self._num_workers = image_size, num_workers
        self._loaded: dict[Any, Images] = {}
        if not isinstance(data, str) and split is not None:
            raise ConfigError(f"split {split!r} of {data.spec}: a split is chosen where the data is opened by its spec")
        self.test = self._open_test(data, split) if isinstance(data, str) else data
        self._data, self._given_train = data, train

    def _open_spec(self, spec: str, split: str | None = None) -> ImageSource:
        return open_data(spec, split, **self._open)  # type: ignore[arg-type]

    def _open_test(self, spec: str, split: str | None) -> ImageSource:
        if split is None:
            # a set without these splits, or without any, is taken as `open_data` takes it
            for name in _PREFERRED:
                with contextlib.suppress(DataError):
                    return self._open_spec(spec, name)
        return self._open_spec(spec, split)

    @cached_property
    def train(self) -> ImageSource | Images | None:
        """The training images, by default the training split of the data, opened when they are asked for; or None."""
        data, given = self._data, self._given_train
        if given is not None and not isinstance(given, str):
            return given
        splits = self.test.report.splits if isinstance(self.test, ImageSource) else ()
        if given is not None:
            return self._open_spec(data, given) if isinstance(data, str) and given in splits else self._open_spec(given)
        if not isinstance(data, str) or len(splits) < 2:
            return None
        source = self._open_spec(data)
        return None if source.split == self.test.split else source

    @property
    def train_about(self) -> dict[str, Any] | None:
        """What a result says of the training images; None without any."""
        if self.train is None:
            return None
        train = self.train
        return {
            "spec": train.spec,
            "split": train.split,
            "fingerprint": train.fingerprint,
            "images": len(train),
        }

    def shape(self, subject: Subject, others: Sequence[Subject]) -> Shape:
        """Return the size and the channels at which a subject gets the images.

        An extractor that takes any size gets them at `image_size`, else at that of the first run beside it, else at
        their own, at most that of its network.

        Raises:
            ConfigError: `image_size`, or images in memory, do not fit.
        """
        size = subject.size
        if size is not None and self._image_size not in (None, size):
            raise ConfigError(f"--image-size {self._image_size}: {subject.name} takes images of {size} pixels")
        if isinstance(self.test, Images):
            _, channels, side, _ = self.test.pixels.shape
            if size not in (None, side) or (size is not None and subject.channels != channels):
                raise ConfigError(
                    f"{subject.name} takes images {subject.channels}x{size}x{size}, not {channels}x{side}x{side}"
                )
            return side, channels
        sizes = [size, self._image_size, *(other.size for other in others)]
        chosen = next((value for value in sizes if value is not None), None)
        if chosen is None:
            chosen = min(native_side(self.test), subject.facts.get("image_size") or 2**31)
        return chosen, subject.channels

    def load(self, shape: Shape) -> Images:
        """Return the images to evaluate on."""
        return self._load("test", self.test, shape, None)

    def load_train(self, shape: Shape, count: int | None, seed: int) -> Images | None:
        """Return the training images, or `count` of them that the seed draws; None without any."""
        return None if self.train is None else self._load("train", self.train, shape, count, seed)

    def _load(self, side: str, source: ImageSource | Images, shape: Shape, count: int | None, seed: int = 0) -> Images:
        if isinstance(source, Images):
            if source.pixels.shape[1:] != (shape[1], shape[0], shape[0]):
                raise ConfigError(
                    f"{source.spec}: images {source.pixels.shape[1:]} beside those of {(shape[1], shape[0], shape[0])}"
                )
            return source if count is None or count >= len(source) else _take(source, _draw(len(source), count, seed))
        whole = self._loaded.get((side, shape, None))
        if whole is not None:
            return self._load(side, whole, shape, count, seed)
        if count is not None and count >= len(source):
            count = None
        key = (side, shape, count)
        if key not in self._loaded:
            part = source if count is None else source.subset(_draw(len(source), count, seed).tolist())
            size, channels = shape
            images = load_images(part, size, channels, num_workers=self._num_workers, on_error="skip")
            if not len(images):
                raise DataError(f"{source.spec} has no images")
            self._loaded[key] = images
        return self._loaded[key]


def note_unreadable(images: Images | ImageSource | None, what: str = "") -> tuple[str, ...]:
    """Return a sentence on the images of a set that could not be read, or nothing; `what` they are, e.g. `training`."""
    errors = images.errors if isinstance(images, Images) else []
    if not errors or images is None:
        return ()
    name, reason = errors[0]
    counted = plural(len(errors), f"{what} image".strip())
    left_out = "is left out:" if len(errors) == 1 else "are left out, the first is"
    return (f"{counted} of {images.spec} cannot be read and {left_out} {name}: {reason}",)


def _draw(n: int, count: int, seed: int) -> Any:
    return np.sort(np.random.default_rng(seed).permutation(n)[:count])


def _take(images: Images, rows: Any) -> Images:
    labels = None if images.labels is None else images.labels[rows]
    ids = [images.ids[i] for i in rows]
    names, about = images.label_names, (images.fingerprint, images.spec, images.split)
    return Images(images.pixels[rows], ids, labels, names, *about, errors=images.errors)
