"""Thumbnails packed into sprite sheets, as data: URIs that a page can embed."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from galirep.data.picture import resize_square
from galirep.data.sources import ImageSource
from galirep.errors import DataError

# thumbnails of a sheet
COLUMNS = 16
ROWS = 16
# (side in pixels, WebP quality), tried in this order until the sheets fit the budget
_SIZES = ((64, 80), (64, 62), (56, 60), (48, 55), (40, 50), (32, 45), (24, 40))
_LARGEST_SIDE = _SIZES[0][0]


@dataclass(frozen=True)
class Sheets:
    """Sprite sheets of thumbnails.

    `uris` are data: URIs of WebP images. Thumbnail i is in sheet i // 256, row (i // 16) % 16, column i % 16, and is
    `cell` pixels wide and high. `missing` are the thumbnails whose image could not be read.
    """

    uris: list[str]
    cell: int
    missing: list[int]


def make_sheets(pictures: Sequence[tuple[ImageSource, int]], max_bytes: int) -> Sheets:
    """Pack pictures (source, index) into sheets of at most `max_bytes` of WebP, if the smallest size tried allows."""
    images: list[NDArray[np.uint8] | None] = []
    for source, index in pictures:
        try:
            images.append(_crop_and_shrink(source.read(index)))
        except DataError:
            images.append(None)
    largest = max((image.shape[0] for image in images if image is not None), default=1)
    per_sheet = COLUMNS * ROWS
    encoded: list[bytes] = []
    cell = 1
    for side, quality in _SIZES:
        cell = min(side, largest)
        encoded = [
            _encode_sheet(images[start : start + per_sheet], cell, quality)
            for start in range(0, len(images), per_sheet)
        ]
        if sum(map(len, encoded)) <= max_bytes:
            break
    uris = [f"data:image/webp;base64,{base64.b64encode(data).decode()}" for data in encoded]
    return Sheets(uris, cell, [i for i, image in enumerate(images) if image is None])


def _crop_and_shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make an image square, at most _LARGEST_SIDE wide, as (S, S, 3)."""
    side = min(image.shape[0], image.shape[1], _LARGEST_SIDE)
    return np.ascontiguousarray(resize_square(image, side, 3).transpose(1, 2, 0))


def _encode_sheet(images: Sequence[NDArray[np.uint8] | None], cell: int, quality: int) -> bytes:
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell, rows * cell))
    for i, image in enumerate(images):
        if image is None:
            continue
        thumbnail = Image.fromarray(image)
        if thumbnail.size != (cell, cell):
            thumbnail = thumbnail.resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(thumbnail, (i % COLUMNS * cell, i // COLUMNS * cell))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()
