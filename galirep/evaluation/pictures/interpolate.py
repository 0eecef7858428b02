"""What G makes of the latents between two: between mu of two images, or between two z of the prior."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galirep.data.sources import ImageSource
from galirep.data.tensors import BLOCK, image_blocks, to_float
from galirep.errors import ConfigError, unknown
from galirep.evaluation.pictures.latent_paths import PATHS, walk
from galirep.evaluation.pictures.shown import Shown, draw_images, open_source, read_ids, require_target
from galirep.features.extraction import load_body
from galirep.metrics.reconstruction import pixel_mse
from galirep.networks.parts import Generator
from galirep.networks.saved import load_autoencoder
from galirep.system.devices import device_of
from galirep.system.files import atomic_write
from galirep.system.outputs.holding import locks_outputs
from galirep.visuals.figure import Figure, Row, save_figure

_COUNT = 4


@dataclass(frozen=True)
class InterpolateResult:
    """The picture that `interpolate` wrote.

    Attributes:
        out: the PNG file.
        run: the run, as written.
        data: the data set, as written; None with the prior.
        split: its split, None if it has none.
        prior: True if the ends are z ~ N(0, I).
        pairs: the ids of the two images of each row; None with the prior.
        count: the number of rows.
        path: `linear` or `spherical`.
        steps: images of a row that G made, both ends included.
        seed: what the pairs were drawn with.
        pixel_mse: of the reconstructions at the ends, in [0, 1], a mean over pixels and channels; None with the prior.
    """

    out: Path
    run: str
    data: str | None
    split: str | None
    prior: bool
    pairs: list[tuple[str, str]] | None
    count: int
    path: str
    steps: int
    seed: int
    pixel_mse: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        pairs = None if self.pairs is None else [list(pair) for pair in self.pairs]
        return {**asdict(self), "out": str(self.out), "pairs": pairs}


@locks_outputs("out", inputs=("run", "data"))
def interpolate(  # noqa: PLR0913
    run: str | Path,
    data: str | ImageSource | None,
    out: str | Path,
    *,
    prior: bool = False,
    pairs: Sequence[tuple[str | int, str | int]] | None = None,
    split: str | None = None,
    splits: str | Sequence[str] | None = "auto",
    count: int | None = None,
    path: str = "linear",
    steps: int = 8,
    captions: bool = False,
    zoom: int | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    data_root: str | None = None,
    download: bool = False,
    trust_encoder: bool = False,
) -> InterpolateResult:
    """Write a PNG with a row for each pair of latents: G of `steps` latents on the `path` from one to the other.

    The latents are mu of two images, which stand at both ends of the row: `pairs` of them (each an id, or a position in
    the data), or `count` pairs drawn from `seed` (None: 4, or as many as the data has). With `prior`, and `data` None,
    they are z ~ N(0, I), those of `sample` with the same seed. `path` is `linear` or `spherical`
    (`latent_paths.PATHS`). `captions` writes the ids before each row and t in [0, 1] above each column; `zoom` and
    `trust_encoder` as `reconstruct`.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        CheckpointError: the run has no valid export.
        ConfigError: `out` exists, the path is unknown, `steps` is below 2, `count` or `zoom` is below 1, or options
            do not fit together.
        DataError: the data cannot be opened, an image is not in it or cannot be read, or there are too few.
    """
    target = require_target(out, overwrite, count=count, zoom=zoom, seed=seed)
    _require_fitting(data, prior, split, pairs, count, path, steps)
    torch_device = device_of(device)
    encoder, generator, header = load_autoencoder(
        Path(run), torch_device, body=partial(load_body, trust_encoder=trust_encoder)
    )
    source = None
    shown = None
    if data is None:
        z = torch.randn(
            2 * (count or _COUNT), header["shapes"]["latent"], generator=torch.Generator().manual_seed(seed)
        )
    else:
        source = open_source(data, split, splits, data_root, download)
        shown = _choose(source, pairs, count, header["shapes"], seed)
        with torch.inference_mode():
            z = torch.cat([encoder(x)[0].cpu() for x in image_blocks(shown.pixels, device=torch_device)])
    made = _generate(generator, walk(path, z[::2], z[1::2], steps), torch_device)
    with atomic_write(target) as temporary:
        save_figure(temporary, _figure(made, shown), zoom=zoom, captions=captions)
    return InterpolateResult(
        out=target,
        run=str(run),
        data=source.spec if source else None,
        split=source.split if source else None,
        prior=prior,
        pairs=list(zip(shown.ids[::2], shown.ids[1::2], strict=True)) if shown else None,
        count=len(made),
        path=path,
        steps=steps,
        seed=seed,
        pixel_mse=pixel_mse([(to_float(shown.pixels), made[:, [0, -1]].flatten(0, 1))]) if shown else None,
    )


def _require_fitting(
    data: str | ImageSource | None,
    prior: bool,
    split: str | None,
    pairs: Sequence[tuple[str | int, str | int]] | None,
    count: int | None,
    path: str,
    steps: int,
) -> None:
    if path not in PATHS:
        raise ConfigError(unknown("path", path, PATHS))
    if steps < 2:
        raise ConfigError(f"steps {steps} must be 2 or more: both ends are among them")
    if prior and data is not None:
        raise ConfigError(f"data {str(getattr(data, 'spec', data))!r} and the prior: the ends are of one of them")
    if not prior and data is None:
        raise ConfigError("between what? give data for two images, or the prior for two z")
    if prior and pairs:
        raise ConfigError("pairs name images, and the prior has none: give data, or a count")
    if prior and split is not None:
        raise ConfigError(f"split {split!r} is of data, and the prior has none: leave it out")
    for pair in pairs or ():
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ConfigError(f"the pair {pair!r} is not two images: write (ID, ID), each an id or a position")
    if pairs and count is not None:
        raise ConfigError(f"count {count} and {len(pairs)} pairs: give one of them")


def _choose(
    source: ImageSource,
    pairs: Sequence[tuple[str | int, str | int]] | None,
    count: int | None,
    shapes: dict[str, Any],
    seed: int,
) -> Shown:
    """Read the images of the pairs, one after the other: an even number."""
    size, channels = shapes["size"], shapes["channels"]
    if pairs:
        return read_ids(source, [name for pair in pairs for name in pair], size, channels)
    wanted = None if count is None else 2 * count
    drawn = draw_images(source, wanted, size, channels, seed=seed, default=2 * _COUNT, least=2)
    even = len(drawn.ids) // 2 * 2
    return Shown(drawn.pixels[:even], drawn.ids[:even])


@torch.inference_mode()
def _generate(generator: Generator, z: Tensor, device: torch.device) -> Tensor:
    """Return G of latents (N, steps, d): (N, steps, C, S, S), on the CPU."""
    images = torch.cat([generator(part.to(device)).float().cpu() for part in torch.split(z.flatten(0, 1), BLOCK)])
    return images.view(*z.shape[:2], *images.shape[1:])


def _figure(made: Tensor, shown: Shown | None) -> Figure:
    """Lay out the rows (N, steps, C, S, S), between the two images of each if they are shown."""
    steps = made.shape[1]
    heads = [f"{t:.2g}" for t in torch.linspace(0, 1, steps).tolist()]
    if shown is None:
        return Figure([[Row(f"z{2 * i}\nz{2 * i + 1}", row) for i, row in enumerate(made)]], [steps], heads)
    x = to_float(shown.pixels)
    captions = [f"{a}\n{b}" for a, b in zip(shown.ids[::2], shown.ids[1::2], strict=True)]
    ends = zip(captions, x[::2], made, x[1::2], strict=True)
    rows = [Row(caption, torch.cat([first[None], row, last[None]])) for caption, first, row, last in ends]
    return Figure([rows], [1, steps, 1], ["image", *heads, "image"])
