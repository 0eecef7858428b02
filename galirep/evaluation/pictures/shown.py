"""Which images a picture shows: those of given ids or positions, or some drawn by a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galirep.data.catalog import open_data
from galirep.data.picture import resize_square
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError, DataError
from galirep.system.files import require_free, require_suffix
from galirep.system.settings import require_whole


@dataclass(frozen=True)
class Shown:
    """The images of a picture, (N, C, S, S) uint8, and their ids."""

    pixels: Tensor
    ids: list[str]


def require_target(out: str | Path, overwrite: bool, **numbers: int | None) -> Path:
    """Return the picture's path.

    Raises:
        ConfigError: it cannot be written or does not end in .png, or one of `numbers` is no
            whole number or below 1 (`seed`: below 0).
    """
    for name, number in numbers.items():
        if number is not None:
            require_whole(name, number, 0 if name == "seed" else 1)
    require_free(Path(out), overwrite)
    require_suffix(Path(out), ".png")
    return Path(out)


def open_source(
    data: str | ImageSource,
    split: str | None,
    splits: str | Sequence[str] | None,
    data_root: str | None,
    download: bool,
) -> ImageSource:
    """Open `data` as `open_data` does; a source stands for itself."""
    if isinstance(data, ImageSource):
        return data
    return open_data(data, split, splits=splits, root=data_root, download=download)


def read_ids(source: ImageSource, wanted: Sequence[str | int], size: int, channels: int) -> Shown:
    """Read the images named by `wanted`, in this order: each an id, or a position (a text that is no id, an int).

    Raises:
        DataError: an image is not in the data or cannot be read.
    """
    numbers = {image: i for i, image in enumerate(source.ids)}
    indices = [_index(source, numbers, name) for name in wanted]
    try:
        pixels = [_read(source, index, size, channels) for index in indices]
    except DataError as err:
        raise DataError(f"{source.spec}: {err}") from err
    return Shown(torch.stack(pixels), [source.ids[i] for i in indices])


def draw_images(
    source: ImageSource, count: int | None, size: int, channels: int, *, seed: int, default: int, least: int = 1
) -> Shown:
    """Read `count` images in an order drawn from the seed; None: `default`, or as many as there are if these are fewer.

    Images that cannot be read are skipped, unless all images of the data are to be shown.

    Raises:
        DataError: there are fewer than `count` readable images, or fewer than `least`, or all are to be shown and one
            cannot be read.
    """
    if count is not None and count > len(source):
        raise DataError(f"{source.spec} has {len(source)} images, fewer than the {count} asked for")
    limit = default if count is None else count
    pixels: list[Tensor] = []
    ids: list[str] = []
    for index in torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist():
        try:
            pixels.append(_read(source, index, size, channels))
        except DataError as err:
            if len(source) <= limit:
                asked = "" if count is None else f", so fewer than the {count} images asked for can be shown"
                raise DataError(f"{source.spec}: {err}{asked}") from err
            continue
        ids.append(source.ids[index])
        if len(pixels) == limit:
            break
    if not pixels:
        raise DataError(f"none of the images of {source.spec} can be read")
    if len(pixels) < (least if count is None else count):
        raise DataError(
            f"of the {len(source)} images of {source.spec}, {len(pixels)} can be read, "
            f"fewer than the {count or least} asked for"
        )
    return Shown(torch.stack(pixels), ids)


def choose_images(
    source: ImageSource,
    ids: Sequence[str | int] | None,
    count: int | None,
    shapes: dict[str, Any],
    *,
    seed: int,
    default: int,
) -> Shown:
    """Read the images `ids`, see `read_ids`, or else draw some, see `draw_images`; raise like them.

    Raises:
        ConfigError: both `ids` and `count` are given.
    """
    if not ids:
        return draw_images(source, count, shapes["size"], shapes["channels"], seed=seed, default=default)
    if count is not None:
        raise ConfigError(f"count {count} and {len(ids)} ids of images: give one of them")
    return read_ids(source, ids, shapes["size"], shapes["channels"])


def _read(source: ImageSource, index: int, size: int, channels: int) -> Tensor:
    return torch.from_numpy(resize_square(source.read(index), size, channels))


def _index(source: ImageSource, numbers: dict[str, int], wanted: str | int) -> int:
    if isinstance(wanted, str) and wanted in numbers:
        return numbers[wanted]
    position = int(wanted) if not isinstance(wanted, str) or wanted.isdecimal() else -1
    if 0 <= position < len(source):
        return position
    hint = next((f": did you mean {name!r}?" for name in source.ids if name.endswith(f"/{wanted}")), ";")
    raise DataError(
        f"{source.spec} has no image {str(wanted)!r}{hint} write an id, such as {source.ids[0]!r}, "
        f"or a position from 0 to {len(source) - 1}"
    )
