"""Figures: rows of images below each other as one PNG, with gaps and, on request, captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from galirep.visuals.grid import GAP, require_drawable
from galirep.visuals.lettering import draw_line, width_of

# pixels
_WIDE_GAP = 10  # between blocks of rows and between groups of columns; within them `GAP`
_LEGIBLE = 48  # an image has this side at least
_LINE = 12  # height of a line of text
_LETTERS = 24  # of a line


@dataclass(frozen=True)
class Row:
    """Images (N, C, S, S) in [-1, 1] beside each other, and what is written before them: lines divided by \\n."""

    caption: str
    images: Tensor


@dataclass(frozen=True)
class Figure:
    """Blocks of rows below each other; all images have one size.

    `groups` are the numbers of columns that stand together, in every block: (1, 8, 1) sets the first and the last of
    ten columns apart. A row may be shorter. `heads` are written above the columns of the figure.
    """

    blocks: Sequence[Sequence[Row]]
    groups: Sequence[int]
    heads: Sequence[str] = ()


def default_zoom(size: int) -> int:
    """Return the smallest factor by which images of this side are legible: they have 48 pixels a side or more."""
    return -(-_LEGIBLE // size)


def fold_rows(rows: Sequence[Row], columns: int) -> Figure:
    """Break rows of N images each into blocks of at most `columns` images, so that image i stays below image i."""
    count = len(rows[0].images)
    blocks = [
        [Row(row.caption, row.images[start : start + columns]) for row in rows] for start in range(0, count, columns)
    ]
    return Figure(blocks, [min(columns, count)])


def save_figure(path: Path, figure: Figure, *, zoom: int | None = None, captions: bool = False) -> None:
    """Write a figure as an RGB PNG on white.

    Each pixel of an image becomes `zoom` x `zoom` pixels (None: `default_zoom`). Captions and heads are written only
    with `captions`; long lines keep their ends.

    Raises:
        ConfigError: see `require_drawable`.
    """
    side = figure.blocks[0][0].images.shape[-1]
    cell = side * (zoom or default_zoom(side))
    font = ImageFont.load_default()
    rows = [row for block in figure.blocks for row in block]
    lines = [[_shorten(line) for line in row.caption.split("\n")] if captions else [] for row in rows]
    heads = figure.heads if captions else ()
    text_width = max((width_of(line, font) for texts in lines for line in texts), default=0)

    lefts = _offsets(GAP + text_width + (3 * GAP if text_width else 0), figure.groups, cell)
    height = max(cell, _LINE * max(map(len, lines)))
    tops = _offsets(GAP + (_LINE if heads else 0), [len(block) for block in figure.blocks], height)
    shape = lefts[-1] + cell + GAP, tops[-1] + height + GAP
    require_drawable(*shape)

    sheet = Image.new("RGB", shape, "white")
    draw = ImageDraw.Draw(sheet)
    for left, head in zip(lefts, heads, strict=False):
        draw_line(draw, (left + max(0, cell - width_of(head, font)) // 2, GAP), head, font)
    for row, texts, top in zip(rows, lines, tops, strict=True):
        for i, text in enumerate(texts):
            draw_line(draw, (GAP, top + (height - _LINE * len(texts)) // 2 + _LINE * i), text, font)
        for left, pixels in zip(lefts, to_pixels(row.images), strict=False):
            enlarged = pixels.repeat(cell // side, 0).repeat(cell // side, 1)
            sheet.paste(Image.fromarray(enlarged), (left, top))
    sheet.save(path, "PNG")


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Convert images (N, C, S, S) in [-1, 1], C = 1 or 3, to (N, S, S, 3) uint8, rounded; inverts `data.to_float`."""
    values = ((images.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = values.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def _offsets(start: int, groups: Sequence[int], size: int) -> list[int]:
    """Return where things of one size begin: a gap between two of a group, a wide one between groups."""
    offsets = []
    for group in groups:
        offsets += [start + i * (size + GAP) for i in range(group)]
        start = offsets[-1] + size + _WIDE_GAP
    return offsets


def _shorten(text: str) -> str:
    return text if len(text) <= _LETTERS else f"...{text[3 - _LETTERS :]}"
