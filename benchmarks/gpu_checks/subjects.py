"""What the checks are made on: synthetic images, sessions without a run directory, a TorchScript M, fixed draws."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from galirep.data.memory import Images
from galirep.features.network import NetworkExtractor
from galirep.game.variant import Variant
from galirep.game.variants import VARIANTS
from galirep.training.config import TrainConfig
from galirep.training.preparation import prepare
from galirep.training.session import Session

TOML = """
name = "toml"
classes = [["x", "a"], ["G(z)", "z"], ["y", "E(M1(y))"], ["Mix(x, y, M2)", "a"]]
penalties = [["l1", "x", "y", 0.5]]
where = {a = "E(x)", y = "G(a)"}
"""
"""A variant with masks, mixing and a penalty, that is none of the built-in ones."""


def images(n: int, size: int, channels: int = 3, seed: int = 0) -> Images:
    """Blobs of colour on a coloured ground with some noise: smooth like photographs, and different enough to learn."""
    draw = np.random.default_rng(seed)
    at = np.linspace(-1, 1, size, dtype=np.float32)
    centre = draw.uniform(-0.6, 0.6, (n, 2, 1, 1, 1)).astype(np.float32)
    ground, blob = draw.uniform(0, 255, (2, n, channels, 1, 1)).astype(np.float32)
    squared = (at[:, None] - centre[:, 0]) ** 2 + (at[None, :] - centre[:, 1]) ** 2
    share = np.exp(-squared / draw.uniform(0.05, 0.3, (n, 1, 1, 1)).astype(np.float32))
    noise = draw.normal(0, 8, (n, channels, size, size)).astype(np.float32)
    pixels = (ground + (blob - ground) * share + noise).clip(0, 255).astype(np.uint8)
    return Images(pixels, [str(i) for i in range(n)], None, (), f"{seed:064x}", "synthetic", None)


def settings(quick: bool, **changes: Any) -> TrainConfig:
    """Return the settings of a run that only lives in memory; `quick` makes all small but what `changes` says."""
    base: dict[str, Any] = {"data": "synthetic", "holdout": 0, "sample_every": 0, "steps": 1000, "networks": "compact"}
    if quick:
        base |= {"width": 4, "latent_dim": 8, "batch_size": 4}
    return TrainConfig.from_dict({**base, **changes})


def session(config: TrainConfig, data: Images, device: torch.device, variant: Variant | None = None) -> Session:
    """Prepare a session at step 0 on `device`, as `galirep train` does. `variant` stands for one read from TOML."""
    config = TrainConfig.from_dict({**config.to_dict(), "device": str(device)})
    needs_m = (variant or VARIANTS[config.variant]).needs_features
    adapter = torchscript_m(data.pixels.shape[1]).to(device) if needs_m else None
    return prepare(config, data, adapter, download=False, variant=variant).session


@contextmanager
def toml_variant() -> Iterator[Path]:
    """Write the variant `TOML` to a file for as long as the context lasts."""
    with TemporaryDirectory(prefix="gpu_check-") as folder:
        path = Path(folder) / "toml.toml"
        path.write_text(TOML, encoding="utf-8")
        yield path


class _SmallNetwork(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.Tanh(), nn.Conv2d(8, 16, 3, 2, 1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


def torchscript_m(channels: int) -> NetworkExtractor:
    """Build M(.) from a TorchScript file by the adapter's own function, which needs no entry point."""
    try:
        build = importlib.import_module("galirep.pretrained_adapters.torchscript").build
    # a bare checkout has the adapters beside the package, not in it
    except ModuleNotFoundError:
        build = importlib.import_module("pretrained_adapters.torchscript").build
    with torch.random.fork_rng(devices=[]), TemporaryDirectory(prefix="gpu_check-") as folder:
        torch.manual_seed(0)
        path = Path(folder) / "m.pt"
        with warnings.catch_warnings():
            # torch would rather have torch.export; the files that people have are these
            warnings.simplefilter("ignore")
            torch.jit.script(_SmallNetwork(channels).eval()).save(str(path))
        extractor: NetworkExtractor = build(f"{path},channels={channels}")
    return extractor


class HostDraws(TorchFunctionMode):
    """Random numbers drawn on the CPU in float32 and handed to whatever device and type was asked for.

    CPU and GPU generators give different numbers for one seed; to compare two devices both must see the same. `normal`
    is the type of normal numbers where none is asked for: a game in float64 wants its z so. Masks are drawn from
    uniform numbers, which stay float32, for a box must not depend on the precision.
    """

    _DRAWS: tuple[Callable[..., Tensor], ...] = (torch.randn, torch.rand, torch.randint)

    def __init__(self, normal: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._normal = normal
        self._generator = torch.Generator().manual_seed(0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in self._DRAWS or kwargs.get("generator") is None:
            return func(*args, **kwargs)
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        if func is torch.randn:
            dtype = dtype or self._normal
        drawn = func(*args, **{**kwargs, "generator": self._generator})
        return drawn.to(device=device, dtype=dtype) if dtype is not None else drawn.to(device=device)
