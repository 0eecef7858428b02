"""Many small pictures in a few sheets (sprites), as data that a page can hold without being fetched."""

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

COLUMNS, ROWS = 16, 16  # thumbnails of a sheet
_TRIES = (
    (64, 80),
    (64, 62),
    (56, 60),
    (48, 55),
    (40, 50),
    (32, 45),
    (24, 40),
)  # side and WebP quality, until the budget holds


@dataclass
class Sheets:
    """`uris` are data: URIs of WebP sheets; thumbnail i stands in sheet i // 256, row (i // 16) % 16, column i % 16. `missing` could not be
    read."""

    uris: list[str]
    cell: int
    missing: list[int]


def sheets(pictures: Sequence[tuple[ImageSource, int]], budget: int) -> Sheets:
    """Sheets of the pictures (source, index), in at most `budget` bytes of WebP if the smallest of the sizes tried allows."""
    images: list[NDArray[np.uint8] | None] = []
    for source, index in pictures:
        try:
            images.append(_square(source.read(index)))
        except DataError:
            images.append(None)
    largest = max((image.shape[0] for image in images if image is not None), default=1)
    encoded: list[bytes] = []
    cell = 1
    for side, quality in _TRIES:
        cell = min(side, largest)
        encoded = [_sheet(images[i : i + COLUMNS * ROWS], cell, quality) for i in range(0, len(images), COLUMNS * ROWS)]
        if sum(map(len, encoded)) <= budget:
            break
    uris = [f"data:image/webp;base64,{base64.b64encode(data).decode()}" for data in encoded]
    return Sheets(uris, cell, [i for i, image in enumerate(images) if image is None])


def _square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = min(image.shape[0], image.shape[1], _TRIES[0][0])
    return np.ascontiguousarray(resize_square(image, side, 3).transpose(1, 2, 0))


def _sheet(images: Sequence[NDArray[np.uint8] | None], cell: int, quality: int) -> bytes:
    sheet = Image.new("RGB", (COLUMNS * cell, -(-len(images) // COLUMNS) * cell))
    for i, image in enumerate(images):
        if image is not None:
            picture = Image.fromarray(image)
            if picture.size != (cell, cell):
                picture = picture.resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(picture, (i % COLUMNS * cell, i // COLUMNS * cell))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()
