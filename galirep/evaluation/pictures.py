"""Pictures of a trained run: samples of the prior, and images beside their reconstructions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galirep.data.catalog import open_data
from galirep.data.picture import resize_square
from galirep.data.sources import ImageSource
from galirep.data.tensors import BLOCK, to_float
from galirep.errors import ConfigError, DataError
from galirep.features.extraction import load_body
from galirep.metrics.reconstruction import pixel_mse
from galirep.networks.saved import load_autoencoder
from galirep.system.devices import device_of
from galirep.system.files import atomic_write, require_free
from galirep.system.results import ResultMapping
from galirep.visuals.grid import interleave, save_grid


@dataclass(frozen=True)
class ReconstructResult(ResultMapping):
    """The picture that `reconstruct` wrote and its error.

    Attributes:
        out: the PNG file.
        images: how many images are shown.
        pixel_mse: of the images shown, in [0, 1], a mean over pixels and channels.
        ids: of the images shown, in their order.

    Reading it like a dict is kept for code written for version 0.1 (see `ResultMapping`).
    """

    out: Path
    images: int
    pixel_mse: float
    ids: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"out": str(self.out), "images": self.images, "pixel_mse": self.pixel_mse, "ids": self.ids}


def sample(
    run: str | Path,
    out: str | Path,
    *,
    count: int = 64,
    columns: int = 8,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
) -> Path:
    """Write a PNG grid of `count` images G(z), z ~ N(0, I), by the run's averaged generator; return its path.

    Raises:
        CheckpointError: the run has no valid export.
        ConfigError: `out` exists, or `count` or `columns` is below 1.
    """
    target = _require_target(out, count, columns, overwrite)
    torch_device = device_of(device)
    _, generator, header = load_autoencoder(Path(run), torch_device, body=load_body)
    z = torch.randn(count, header["shapes"]["latent"], generator=torch.Generator().manual_seed(seed)).to(torch_device)
    with torch.inference_mode():
        images = torch.cat([generator(part) for part in torch.split(z, BLOCK)])
    _write_grid(target, images, columns)
    return target


def reconstruct(
    run: str | Path,
    data: str | ImageSource,
    out: str | Path,
    *,
    split: str | None = None,
    splits: str | Sequence[str] | None = "auto",
    count: int = 32,
    columns: int = 8,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    data_root: str | None = None,
    download: bool = False,
) -> ReconstructResult:
    """Write a PNG grid of `count` images drawn from the data, each followed by its reconstruction G(mu(x)).

    Images that cannot be read are skipped, unless all images of the data are to be shown.

    Raises:
        CheckpointError: the run has no valid export.
        ConfigError: `out` exists, or `count` or `columns` is below 1.
        DataError: the data cannot be opened, none of its images can be read, or one cannot and all are to be shown.
    """
    target = _require_target(out, count, columns, overwrite)
    torch_device = device_of(device)
    encoder, generator, header = load_autoencoder(Path(run), torch_device, body=load_body)
    source = data
    if isinstance(source, str):
        source = open_data(source, split, splits=splits, root=data_root, download=download)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist()
    pixels, ids = _read_images(source, order, count, header["shapes"]["size"], header["shapes"]["channels"])
    x = to_float(pixels, torch_device)
    with torch.inference_mode():
        rebuilt = generator(encoder(x)[0])
    _write_grid(target, interleave(x, rebuilt), columns)
    return ReconstructResult(target, len(ids), pixel_mse([(x, rebuilt)]), ids)


def _read_images(
    source: ImageSource, order: Sequence[int], count: int, size: int, channels: int
) -> tuple[Tensor, list[str]]:
    """Read the first `count` readable images in `order`: (B, channels, size, size) uint8, and their ids."""
    pixels, ids = [], []
    for index in order:
        try:
            pixels.append(torch.from_numpy(resize_square(source.read(index), size, channels)))
        except DataError as err:
            if len(source) <= count:
                raise DataError(f"{source.spec}: {err}") from err
            continue
        ids.append(source.ids[index])
        if len(pixels) == count:
            break
    if not pixels:
        raise DataError(f"none of the images of {source.spec} can be read")
    return torch.stack(pixels), ids


def _require_target(out: str | Path, count: int, columns: int, overwrite: bool) -> Path:
    """Return `out` as a path; raise if it cannot be written or a number is below 1."""
    if count < 1 or columns < 1:
        raise ConfigError(f"count {count} and columns {columns} must be 1 or more")
    require_free(Path(out), overwrite)
    return Path(out)


def _write_grid(target: Path, images: Tensor, columns: int) -> None:
    with atomic_write(target) as temporary:
        save_grid(temporary, images, columns)
