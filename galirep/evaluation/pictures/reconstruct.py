"""Images beside or above their reconstructions, by one run or by several (Dandi et al. 2021, figure 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galirep.data.sources import ImageSource
from galirep.data.tensors import image_blocks, to_float
from galirep.errors import ConfigError
from galirep.evaluation.pictures.shown import choose_images, open_source, require_target
from galirep.features.extraction import load_body
from galirep.metrics.reconstruction import pixel_mse
from galirep.networks.parts import Encoder, Generator
from galirep.networks.saved import load_autoencoder
from galirep.system.devices import device_of
from galirep.system.files import atomic_write
from galirep.system.outputs.holding import locks_outputs
from galirep.system.results import ResultMapping
from galirep.visuals.figure import Row, fold_rows, save_figure
from galirep.visuals.grid import interleave, save_grid

_COUNT = 32


@dataclass(frozen=True)
class ReconstructResult(ResultMapping):
    """The picture that `reconstruct` wrote and its error.

    Attributes:
        out: the PNG file.
        images: how many images are shown.
        pixel_mse: of all reconstructions shown, in [0, 1], a mean over pixels and channels.
        ids: of the images shown, in their order.
        data: the data set they are of, as written.
        split: its split, None if it has none.
        seed: what they were drawn with.
        runs: each run as written with the `pixel_mse` of its reconstructions, in the order of the picture.

    Reading it like a dict is kept for code written for version 0.1 (see `ResultMapping`).
    """

    out: Path
    images: int
    pixel_mse: float
    ids: list[str]
    data: str
    split: str | None
    seed: int
    runs: list[tuple[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object; that of one run has the keys of version 0.1."""
        result = {"out": str(self.out), "images": self.images, "pixel_mse": self.pixel_mse, "ids": self.ids}
        if len(self.runs) > 1:
            runs = [{"run": run, "pixel_mse": error} for run, error in self.runs]
            result |= {"data": self.data, "split": self.split, "seed": self.seed, "runs": runs}
        return result


@locks_outputs("out", inputs=("run", "data"))
def reconstruct(  # noqa: PLR0913
    run: str | Path | Sequence[str | Path],
    data: str | ImageSource,
    out: str | Path,
    *,
    ids: Sequence[str | int] | None = None,
    split: str | None = None,
    splits: str | Sequence[str] | None = "auto",
    count: int | None = None,
    columns: int = 8,
    captions: bool = False,
    zoom: int | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    data_root: str | None = None,
    download: bool = False,
    trust_encoder: bool = False,
) -> ReconstructResult:
    """Write a PNG of images and their reconstructions G(mu(x)) by one run or several.

    The images are `ids` (each an id, or a position in the data), or else `count` drawn from the data (None: 32, or all
    if these are fewer). By one run, each image is followed by its reconstruction. By several, or with `captions`, the
    images are one row and the reconstructions of each run a row below; `captions` writes before each row what it is.
    `columns` is the number of images in a row, `zoom` the whole factor by which they are enlarged (None: to 48 pixels
    or more in rows, to 48 at most in pairs).

    Images that cannot be read are skipped, unless they are named or all images of the data are to be shown.
    `trust_encoder` is as for `galirep.load_extractor`.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        CheckpointError: a run has no valid export.
        ConfigError: `out` exists; `count`, `columns` or `zoom` is below 1; `ids` and `count` are given; or the runs
            take images of different sizes or channels.
        DataError: the data cannot be opened, an image is not in it or cannot be read, or there are fewer than `count`.
    """
    target = require_target(out, overwrite, count=count, columns=columns, zoom=zoom, seed=seed)
    runs = [Path(run)] if isinstance(run, str | Path) else [Path(r) for r in run]
    torch_device = device_of(device)
    autoencoders = [
        load_autoencoder(r, torch_device, body=partial(load_body, trust_encoder=trust_encoder)) for r in runs
    ]
    shapes = _common_shapes(runs, [header for *_, header in autoencoders])
    source = open_source(data, split, splits, data_root, download)
    shown = choose_images(source, ids, count, shapes, seed=seed, default=_COUNT)
    x = to_float(shown.pixels)
    rebuilt = [_rebuild(encoder, generator, shown.pixels, torch_device) for encoder, generator, _ in autoencoders]
    with atomic_write(target) as temporary:
        if len(runs) == 1 and not captions:
            save_grid(temporary, interleave(x, rebuilt[0]), columns, zoom)
        else:
            rows = [Row("original", x), *map(Row, _names(runs), rebuilt)]
            save_figure(temporary, fold_rows(rows, columns), zoom=zoom, captions=captions)
    errors = [(str(r), pixel_mse([(x, y)])) for r, y in zip(runs, rebuilt, strict=True)]
    overall = pixel_mse((x, y) for y in rebuilt)
    return ReconstructResult(target, len(shown.ids), overall, shown.ids, source.spec, source.split, seed, errors)


def _common_shapes(runs: Sequence[Path], headers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the shapes of the first run; raise if another takes other images, or there is no run."""
    if not runs:
        raise ConfigError("no run: name one or several")
    first, *others = (header["shapes"] for header in headers)
    for run, shapes in zip(runs[1:], others, strict=True):
        if (shapes["size"], shapes["channels"]) != (first["size"], first["channels"]):
            raise ConfigError(
                f"{run} takes images of {_describe(shapes)}, but {runs[0]} of {_describe(first)}: "
                "name runs that take the same images"
            )
    return dict(first)


def _describe(shapes: dict[str, Any]) -> str:
    return f"{shapes['size']} pixels in {'grey' if shapes['channels'] == 1 else 'colour'}"


@torch.inference_mode()
def _rebuild(encoder: Encoder, generator: Generator, pixels: Tensor, device: torch.device) -> Tensor:
    """Return G(mu(x)) of images (N, C, S, S) uint8, on the CPU."""
    return torch.cat([generator(encoder(x)[0]).float().cpu() for x in image_blocks(pixels, device=device)])


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the runs' last folders, or the paths as written where two of those are the same."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]
