"""`load_images`: decode a whole image set into memory."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from galirep.data.decoding import decode
from galirep.data.picture import PixelArray
from galirep.data.sources import ImageSource, Labels
from galirep.errors import ConfigError, DataError, format_list

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Images:
    """A set decoded into memory: `pixels` (N, C, S, S) uint8 with their ids and labels.

    `errors` are (id, reason) of the images that were left out.
    """

    pixels: PixelArray
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
        """Return the pixels as a torch tensor (N, C, S, S) uint8 on the CPU, which shares their memory."""
        # not at the top: decoding and its workers need no torch
        import torch

        return torch.from_numpy(self.pixels)


def _group_by_reason(errors: list[tuple[str, str]]) -> str:
    """Format errors with each reason once: `a.png, b.png: the file is empty; c.png: ...`."""
    ids_by_reason: dict[str, list[str]] = {}
    for image_id, reason in errors:
        ids_by_reason.setdefault(reason, []).append(image_id)
    return format_list((f"{format_list(ids, 10)}: {reason}" for reason, ids in ids_by_reason.items()), 10, "; ")


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
        raise DataError(
            f"{len(errors)} of {len(source)} images of {source.spec} cannot be used: {_group_by_reason(errors)}"
        )
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
