"""The pooling of feature maps: (B, C, H, W) -> one vector for each image. Every extractor's maps are pooled here."""

import re
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from galirep.errors import PluginError

GRID = 4
"""Without a choice, maps are max-pooled to at most GRID x GRID (Radford et al. 2016, section 5.1)."""
GAP, MAX, FLAT = "gap", "max", "flat"
CHOICES = (GAP, MAX, FLAT)
"""Poolings by word: the mean over space (global average pooling), the maximum over space, no pooling.

Besides them there is `RxC`: adaptive max pooling to R rows and C columns.
"""
_GRID_CHOICE = re.compile(r"([1-9]\d*)x([1-9]\d*)")


def pool_map(maps: Tensor, pooling: str = "") -> Tensor:
    """Pool maps (B, C, H, W) to (B, d); what is left of the space is flattened as (channel, row, column).

    `pooling` is one of `CHOICES`, `RxC`, or "" for at most `GRID` x `GRID`.

    Raises:
        PluginError: the pooling is unknown, or its grid is larger than the maps.
    """
    if pooling == GAP:
        return maps.mean((2, 3))
    if pooling == MAX:
        return maps.amax((2, 3))
    rows, columns = maps.shape[2:]
    grid = grid_of(pooling, rows, columns)
    if grid != (rows, columns):
        maps = F.adaptive_max_pool2d(maps, grid)
    return maps.flatten(1)


def grid_of(pooling: str, rows: int, columns: int, *, layer: str = "", what: str = "") -> tuple[int, int]:
    """Return the rows and columns that `pooling` leaves of a map; error messages name the `layer` of `what`.

    Raises:
        PluginError: the pooling is unknown, or its grid is larger than the map.
    """
    network, of_layer = f"{what}: " if what else "", f" of layer {layer!r}" if layer else ""
    if not pooling:
        return min(GRID, rows), min(GRID, columns)
    if pooling == FLAT:
        return rows, columns
    if pooling in CHOICES:
        return 1, 1
    match = _GRID_CHOICE.fullmatch(pooling)
    if match is None:
        largest, words = f"{rows}x{columns}", ", ".join(CHOICES)
        raise PluginError(f"{network}unknown pooling {pooling!r}{of_layer}: write a grid up to {largest}, or {words}")
    grid = int(match[1]), int(match[2])
    if grid[0] > rows or grid[1] > columns:
        raise PluginError(
            f"{network}pooling {pooling!r}{of_layer}: its maps are {rows}x{columns}, so the grid can be at most that"
        )
    return grid


def describe_pooling(pooling: str, sides: Sequence[int], space: str = "H and W") -> str:
    """Return in words what `pooling` makes of maps with these sides, as embedding files record it."""
    if pooling == GAP:
        return f"mean over {space}"
    if pooling == MAX:
        return f"maximum over {space}"
    rows, columns = grid_of(pooling, *sides)
    if (rows, columns) == tuple(sides):
        return "output"
    return f"maximum in each cell of a grid of {rows}x{columns}"
