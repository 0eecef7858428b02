"""Pictures of a trained run: samples of the prior, and images beside their reconstructions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galirep.data.catalog import open_data
from galirep.data.picture import resize_square
from galirep.data.sources import ImageSource
from galirep.data.tensors import to_float
from galirep.errors import ConfigError, DataError
from galirep.metrics.reconstruction import pixel_mse
from galirep.networks.saved import load_autoencoder
from galirep.system.devices import device_of
from galirep.system.files import atomic_write, require_free
from galirep.visuals.grid import interleave, save_grid


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
    """Write a PNG grid of `count` images G(z), z ~ N(0, I), by the run's averaged generator.

    Raises:
        CheckpointError: the run has no sound export.
        ConfigError: `out` exists, or a count below 1.
    """
    target = _target(out, count, columns, overwrite)
    _, generator, about = load_autoencoder(Path(run), where := device_of(device))
    z = torch.randn(count, about["shapes"]["latent"], generator=torch.Generator().manual_seed(seed)).to(where)
    with torch.inference_mode():
        images = torch.cat([generator(part) for part in torch.split(z, 256)])
    return _write(target, images, columns)


def reconstruct(
    run: str | Path,
    data: str | ImageSource,
    out: str | Path,
    *,
    split: str | None = None,
    count: int = 32,
    columns: int = 8,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    data_root: str | None = None,
    download: bool = False,
) -> dict[str, Any]:
    """Write a PNG grid of `count` images drawn from the data, each followed by G(mu(x)); give the pixel-MSE of those shown.

    The error is that of images in [0, 1], a mean over pixels and channels. Unreadable images are passed over.

    Raises:
        CheckpointError: the run has no sound export.
        ConfigError: `out` exists, or a count below 1.
        DataError: the data cannot be opened, or none of the images drawn can be read.
    """
    target = _target(out, count, columns, overwrite)
    encoder, generator, about = load_autoencoder(Path(run), where := device_of(device))
    source = open_data(data, split, root=data_root, download=download) if isinstance(data, str) else data
    pixels, ids = [], []
    for index in torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist():
        try:
            pixels.append(
                torch.from_numpy(
                    resize_square(source.read(index), about["shapes"]["size"], about["shapes"]["channels"])
                )
            )
            ids.append(source.ids[index])
        except DataError as err:
            if len(source) <= count:
                raise DataError(f"{source.spec}: {err}") from err
        if len(pixels) == count:
            break
    if not pixels:
        raise DataError(f"none of the images of {source.spec} can be read")
    x = to_float(torch.stack(pixels), where)
    with torch.inference_mode():
        rebuilt = generator(encoder(x)[0])
    _write(target, interleave(x, rebuilt), columns)
    return {"out": str(target), "images": len(ids), "pixel_mse": pixel_mse([(x, rebuilt)]), "ids": ids}


def _target(out: str | Path, count: int, columns: int, overwrite: bool) -> Path:
    if count < 1 or columns < 1:
        raise ConfigError(f"count {count} and columns {columns} must be 1 or more")
    require_free(Path(out), overwrite)
    return Path(out)


def _write(target: Path, images: Tensor, columns: int) -> Path:
    with atomic_write(target) as temporary:
        save_grid(temporary, images, columns)
    return target
