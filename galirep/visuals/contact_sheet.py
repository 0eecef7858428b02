"""A contact sheet: images of a set by class, with the names of the classes, as one PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from galirep.data.picture import resize_square
from galirep.data.sources import ImageSource
from galirep.errors import DataError
from galirep.system.files import atomic_write
from galirep.visuals.lettering import draw_line

COLUMNS = 8
ROWS = 16
_CELL = 64  # pixels
_GAP = 2
_CAPTION = 14  # height of a line of text, pixels
_LETTERS = 90  # of a caption


@dataclass(frozen=True)
class Row:
    """A caption and the indices of the images below it, `COLUMNS` at most."""

    caption: str
    indices: Sequence[int]


def choose_rows(source: ImageSource, columns: int = COLUMNS, rows: int = ROWS) -> list[Row]:
    """Return evenly spaced images of each class, of evenly spaced classes if there are more than `rows`.

    Images without a label come last. A set without labels gives `rows` rows of evenly spaced images.
    """
    if source.labels is None:
        indices = _spaced(np.arange(len(source)), columns * rows)
        return [Row("", indices[start : start + columns]) for start in range(0, len(indices), columns)]
    labels = np.asarray(source.labels)
    found = _spaced(np.unique(labels[labels >= 0]), rows)
    chosen = []
    for label in [*found, *([-1] if (labels < 0).any() else [])]:
        members = np.flatnonzero(labels == label)
        name = source.label_names[label] if 0 <= label < len(source.label_names) else str(label)
        chosen.append(Row(f"{'no label' if label < 0 else name} ({len(members)})", _spaced(members, columns)))
    return chosen


def save_contact_sheet(path: Path, source: ImageSource, rows: Sequence[Row], *, overwrite: bool = False) -> int:
    """Write the centre squares of the images as a PNG; return how many are on it. An unreadable one is a cross.

    Raises:
        ConfigError: `path` exists and `overwrite` is false, or its folder does not exist.
    """
    heights = [_CELL + _GAP + (_CAPTION if row.caption else 0) for row in rows]
    width = COLUMNS * (_CELL + _GAP) + _GAP
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(), _GAP
    for row, height in zip(rows, heights, strict=True):
        if row.caption:
            draw_line(draw, (_GAP, top), row.caption[:_LETTERS], font)
        below = top + height - _CELL - _GAP
        for column, index in enumerate(row.indices):
            left = _GAP + column * (_CELL + _GAP)
            try:
                square = resize_square(source.read(index), _CELL, 3, max_upscale=float("inf")).transpose(1, 2, 0)
                sheet.paste(Image.fromarray(np.ascontiguousarray(square)), (left, below))
            except DataError:
                corners = (left, below, left + _CELL - 1, below + _CELL - 1)
                draw.rectangle(corners, outline="red")
                draw.line(corners, "red")
        top += height
    with atomic_write(path, overwrite) as temporary:
        sheet.save(temporary, "PNG")
    return sum(len(row.indices) for row in rows)


def _spaced(values: "np.ndarray[tuple[int], np.dtype[np.int64]]", count: int) -> list[int]:
    """Return at most `count` of the values, evenly spaced, the first and the last among them."""
    chosen: list[int] = values[np.linspace(0, len(values) - 1, min(count, len(values)), dtype=int)].tolist()
    return chosen
