"""Images with a box erased, and filled in by G(mu(M(x))) (Dandi et al. 2021, section 5)."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galirep.data.sources import ImageSource
from galirep.data.tensors import BLOCK, to_float
from galirep.evaluation.pictures.shown import choose_images, open_source, require_target
from galirep.features.extraction import load_body
from galirep.game.masks import erase, mix, random_boxes
from galirep.game.variant import Variant
from galirep.metrics.reconstruction import pixel_mse
from galirep.networks.parts import Encoder, Generator
from galirep.networks.saved import load_autoencoder
from galirep.system.devices import device_of
from galirep.system.files import atomic_write
from galirep.system.outputs.holding import locks_outputs
from galirep.visuals.figure import Row, fold_rows, save_figure

_COUNT = 16
_GREY = 0.0  # what erased pixels are shown as, in [-1, 1]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InpaintResult:
    """The picture that `inpaint` wrote and its errors.

    Attributes:
        out: the PNG file.
        run: the run, as written.
        data: the data set, as written.
        split: its split, None if it has none.
        images: how many images are shown.
        ids: of the images shown, in their order.
        seed: what images and boxes were drawn with.
        masks_sha256: of the boxes in the order of the images, a bit for each pixel (`numpy.packbits`).
        trained_with_masks: False if E saw no erased pixel in training; None if the export does not say.
        statistics: which images E's BatchNorm statistics are of, `whole` or `masked`.
        pixel_mse: of the composites, in [0, 1], a mean over pixels and channels.
        masked_pixel_mse: the mean over the images of the same over each one's erased pixels alone.
    """

    out: Path
    run: str
    data: str
    split: str | None
    images: int
    ids: list[str]
    seed: int
    masks_sha256: str
    trained_with_masks: bool | None
    statistics: str
    pixel_mse: float
    masked_pixel_mse: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {**asdict(self), "out": str(self.out)}


@locks_outputs("out", inputs=("run", "data"))
def inpaint(  # noqa: PLR0913
    run: str | Path,
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
) -> InpaintResult:
    """Write a PNG of images, the images with a box erased (grey), and the composites: three rows below each other.

    A composite is x outside the box and G(mu(M(x))) inside. One box for each image is drawn from `seed` as in training
    (`game.masks.random_boxes`). E takes its BatchNorm statistics of masked images if the export has them. Images are
    chosen, laid out and enlarged as by `reconstruct`; `count` None is 16.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        CheckpointError, ConfigError, DataError: as `reconstruct`.
    """
    target = require_target(out, overwrite, count=count, columns=columns, zoom=zoom, seed=seed)
    torch_device = device_of(device)
    encoder, generator, header, statistics = _load(Path(run), torch_device, trust_encoder)
    source = open_source(data, split, splits, data_root, download)
    shapes = header["shapes"]
    shown = choose_images(source, ids, count, shapes, seed=seed, default=_COUNT)
    x = to_float(shown.pixels)
    random = torch.Generator().manual_seed(seed)
    # one at a time, so that the boxes of the first images do not depend on how many are shown
    boxes = torch.cat([random_boxes(1, shapes["size"], random) for _ in x])
    filled = fill_boxes(encoder, generator, x, boxes, torch_device)
    rows = [Row("original", x), Row("masked", x.masked_fill(boxes, _GREY)), Row("inpainted", filled)]
    with atomic_write(target) as temporary:
        save_figure(temporary, fold_rows(rows, columns), zoom=zoom, captions=captions)
    masked = _trained_with_masks(header)
    if masked is False:
        _log.warning("%s was trained without masks (variant %s): its E has seen whole images only", run, _name(header))
    images = zip(x, filled, boxes, strict=True)
    return InpaintResult(
        out=target,
        run=str(run),
        data=source.spec,
        split=source.split,
        images=len(x),
        ids=shown.ids,
        seed=seed,
        masks_sha256=hashlib.sha256(np.packbits(boxes.numpy()).tobytes()).hexdigest(),
        trained_with_masks=masked,
        statistics=statistics,
        pixel_mse=pixel_mse([(x, filled)]),
        masked_pixel_mse=fmean(pixel_mse([(a[:, box[0]], b[:, box[0]])]) for a, b, box in images),
    )


@torch.inference_mode()
def fill_boxes(encoder: Encoder, generator: Generator, x: Tensor, boxes: Tensor, device: torch.device) -> Tensor:
    """Return the composites (N, C, S, S), on the CPU: x outside the boxes (N, 1, S, S) bool, G(mu(M(x))) inside."""
    filled = []
    for images, mask in zip(torch.split(x, BLOCK), torch.split(boxes, BLOCK), strict=True):
        made = generator(encoder(erase(images, mask).to(device))[0])
        filled.append(mix(images, made.float().cpu(), mask))
    return torch.cat(filled)


def _load(run: Path, device: torch.device, trust_encoder: bool) -> tuple[Encoder, Generator, dict[str, Any], str]:
    """Load a run with the BatchNorm statistics of masked images if it has them, else its default; say which."""
    body = partial(load_body, trust_encoder=trust_encoder)
    loaded = load_autoencoder(run, device, body=body)
    # an export without the key has those of whole images alone
    known: list[str] = loaded[2].get("statistics", ["whole"])
    if "masked" not in known[1:]:
        return *loaded, known[0]
    return *load_autoencoder(run, device, "masked", body=body), "masked"


def _trained_with_masks(header: dict[str, Any]) -> bool | None:
    variant = header.get("variant")
    return any("Erase" in e.heads for e in Variant.from_dict(variant).expressions) if variant else None


def _name(header: dict[str, Any]) -> str:
    return str(header["variant"]["name"])
