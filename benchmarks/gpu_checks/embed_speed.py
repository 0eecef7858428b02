"""How fast images become features: from uint8 memory and from JPEGs, beside the bare network."""

import importlib.util
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import nn

from galirep.data.arrays import ArraySource
from galirep.data.catalog import open_data
from galirep.data.sources import ImageSource
from galirep.features.extraction import extract
from galirep.features.network import NetworkExtractor
from gpu_checks.harness.check import Figure, Setup, Skip
from gpu_checks.harness.child import use_tf32
from gpu_checks.subjects import images

_SIZE = 224
_JPEG_SIDE = 256
_DISTINCT = 256
_IMAGES = 4096
_BATCH = 256


def embed_speed(setup: Setup, network: str) -> Figure:
    """Measure one of torchvision's networks with random weights in TF32: alone, from memory, and from JPEGs."""
    if importlib.util.find_spec("torchvision") is None:
        raise Skip("torchvision not installed")
    import torchvision

    use_tf32(True)
    torch.manual_seed(0)
    net: nn.Module = getattr(torchvision.models, network)(weights=None)
    extractor = NetworkExtractor(net, name=network, image_size=64 if setup.quick else _SIZE).to(setup.device)
    distinct, count, batch = (2, 4, 2) if setup.quick else (_DISTINCT, _IMAGES, _BATCH)
    side = extractor.image_size
    values = {"network": _alone(setup, net, batch, side)}

    def through(source: ImageSource, workers: int | None) -> float:
        before = time.perf_counter()
        extract(extractor, source, batch_size=batch, num_workers=workers, device=str(setup.device))
        return len(source) / (time.perf_counter() - before)

    pixels = images(distinct, side).pixels
    values["memory"] = through(ArraySource("synthetic", pixels.repeat(count // distinct, 0)), 0)
    with TemporaryDirectory(prefix="gpu_check-") as folder:
        _write_jpegs(Path(folder), distinct, count)
        values["jpeg"] = through(open_data(folder), 0 if setup.quick else None)
    shown = [
        f"{name} {values[name]:,.0f} ({100 * values[name] / values['network']:.0f} %)" for name in ("memory", "jpeg")
    ]
    return Figure(f"images/s: network {values['network']:,.0f}, {', '.join(shown)}", values)


def _alone(setup: Setup, net: nn.Module, batch: int, side: int) -> float:
    x = torch.rand(batch, 3, side, side, device=setup.device)

    def timed(step: Callable[[], object], times: int) -> float:
        setup.synchronize()
        before = time.perf_counter()
        for _ in range(times):
            step()
        setup.synchronize()
        return times / (time.perf_counter() - before)

    with torch.inference_mode():
        timed(lambda: net(x), 1 if setup.quick else 3)
        return batch * timed(lambda: net(x), 1 if setup.quick else 10)


def _write_jpegs(folder: Path, distinct: int, count: int) -> None:
    """Write `distinct` pictures into a class folder, and copies of them up to `count`."""
    target = folder / "all"
    target.mkdir()
    for i, picture in enumerate(images(distinct, _JPEG_SIDE).pixels):
        Image.fromarray(picture.transpose(1, 2, 0)).save(target / f"{i:05d}.jpg", quality=90)
    for i in range(distinct, count):
        shutil.copyfile(target / f"{i % distinct:05d}.jpg", target / f"{i:05d}.jpg")
