"""`load_images`: decode a whole image set into memory."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from galirep.data.decoding import decode
from galirep.data.picture import PixelArray
from galirep.data.report import DataReport, LeftOut
from galirep.data.sources import ImageSource, Labels, count_classes
from galirep.errors import ConfigError, DataError, format_list

if TYPE_CHECKING:
    from torch import Tensor

_PROBED = 10  # images that are tried to learn the size of a data set


@dataclass
class Images:
    """A set decoded into memory: `pixels` (N, C, S, S) uint8 with their ids and labels.

    `errors` are (id, reason) of the images that were left out; `report` counts them by reason among all that was left
    out of the set (None for images that were not loaded from a source).
    """

    pixels: PixelArray
    ids: list[str]
    labels: Labels | None
    label_names: tuple[str, ...]
    fingerprint: str
    spec: str
    split: str | None
    errors: list[tuple[str, str]] = field(default_factory=list)
    report: DataReport | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def tensor(self) -> "Tensor":
        """Return the pixels as a torch tensor (N, C, S, S) uint8 on the CPU, which shares their memory."""
        # not at the top: decoding and its workers need no torch
        import torch

        return torch.from_numpy(self.pixels)


def _group_by_reason(errors: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the ids of each reason."""
    ids_by_reason: dict[str, list[str]] = {}
    for image_id, reason in errors:
        ids_by_reason.setdefault(reason, []).append(image_id)
    return ids_by_reason


def _in_words(errors: list[tuple[str, str]]) -> str:
    """Format errors with each reason once: `a.png, b.png: the file is empty; c.png: ...`."""
    by_reason = _group_by_reason(errors)
    return format_list((f"{format_list(ids, 10)}: {reason}" for reason, ids in by_reason.items()), 10, "; ")


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

    `channels` None gives 1 if every image is grey, otherwise 3. `on_error="skip"` leaves out images that cannot be used
    and lists them in `errors`. `progress` is called with the number of images decoded since its last call.

    Raises:
        ConfigError: `size`, `channels` or `on_error` has a value that is not allowed.
        DataError: some images cannot be used (all are counted, ten are named), none are left, or memory does not
            suffice.
    """
    if size < 1 or channels not in (None, 1, 3) or on_error not in ("fail", "skip"):
        raise ConfigError(
            f"size {size}, channels {channels}, on_error {on_error!r}: "
            "expected size 1 or more, channels 1, 3 or None, and on_error 'fail' or 'skip'"
        )
    _require_images(source)
    pixels = _allocate(source, channels or 1, size)
    kept: list[int] = []
    errors: list[tuple[str, str]] = []
    for image in decode(source, size=size, channels=channels, num_workers=num_workers, max_upscale=max_upscale):
        if image.pixels is None:
            errors.append((image.id, image.error or ""))
        else:
            # the first image in colour: all before it were grey
            if len(image.pixels) > pixels.shape[1]:
                grey = pixels
                pixels = _allocate(source, 3, size)
                pixels[: len(kept)] = grey[: len(kept)]
            pixels[len(kept)] = image.pixels
            kept.append(image.index)
        if progress is not None:
            progress(1)
    if errors and (on_error == "fail" or not kept):
        raise DataError(f"{len(errors)} of {len(source)} images of {source.spec} cannot be used: {_in_words(errors)}")
    return Images(
        pixels=pixels[: len(kept)],
        ids=[source.ids[i] for i in kept],
        labels=None if source.labels is None else source.labels[kept],
        label_names=source.label_names,
        fingerprint=source.fingerprint,
        spec=source.spec,
        split=source.split,
        errors=errors,
        report=_report(source, kept, errors),
    )


def _report(source: ImageSource, kept: list[int], errors: list[tuple[str, str]]) -> DataReport:
    """Return the source's report with the images that cannot be used among those left out."""
    before = source.report
    labels = None if source.labels is None else source.labels[kept]
    classes = count_classes(labels, source.label_names, len(kept))
    lost = tuple(name for name in before.classes if name and name not in classes)
    report = replace(before, images=len(kept), classes=classes, classes_lost=(*before.classes_lost, *lost))
    return report.adding(
        *(LeftOut.of(f"cannot be used: {reason}", ids) for reason, ids in _group_by_reason(errors).items())
    )


def native_side(source: ImageSource) -> int:
    """Return the side of the centre square of the first readable image, in pixels.

    Raises:
        DataError: there is no image, or none of the first ten can be read.
    """
    _require_images(source)
    faults = []
    for index in range(min(_PROBED, len(source))):
        try:
            return int(min(source.read(index).shape[:2]))
        except DataError as err:
            faults.append(str(err))
    which = f"first {len(faults)} images" if len(source) > len(faults) else f"{len(faults)} images"
    raise DataError(
        f"none of the {which} of {source.spec} can be read, so their size is unknown; the first is {faults[0]}: "
        "take out what is no image, or pass --image-size"
    )


def _require_images(source: ImageSource) -> None:
    if not len(source):
        raise DataError(f"{source.spec}: there are no images")


def _allocate(source: ImageSource, channels: int, size: int) -> PixelArray:
    shape = (len(source), channels, size, size)
    needed = channels * size * size * len(source)
    free = _available_memory()
    if free is not None and needed > free:
        raise DataError(
            f"{len(source)} images of {source.spec} at {channels}x{size}x{size} "
            f"take {needed / 2**30:.1f} GiB of memory, "
            f"and {free / 2**30:.1f} GiB are free: choose a smaller --image-size or fewer images"
        )
    return np.empty(shape, dtype=np.uint8)


def _available_memory() -> int | None:
    """Return the bytes that this machine and this container can still allocate; None where Linux does not tell."""
    try:
        available = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    free = [int(available[1]) * 1024] if available else []
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        # the page cache is dropped when memory is needed
        cached = re.search(r"^file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        if limit != "max":
            free.append(int(limit) - used + (int(cached[1]) if cached else 0))
    except (OSError, ValueError):  # not in a container with cgroup v2
        pass
    return min(free, default=None)
