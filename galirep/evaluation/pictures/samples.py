"""Samples of the prior as a picture."""

from functools import partial
from pathlib import Path

from galirep.evaluation.pictures.generator import LoadedGenerator
from galirep.evaluation.pictures.shown import require_target
from galirep.features.extraction import load_body
from galirep.networks.saved import load_autoencoder
from galirep.system.devices import device_of
from galirep.system.files import atomic_write
from galirep.system.outputs.holding import locks_outputs
from galirep.visuals.grid import save_grid


@locks_outputs("out", inputs=("run",))
def sample(
    run: str | Path,
    out: str | Path,
    *,
    count: int = 64,
    columns: int = 8,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    trust_encoder: bool = False,
) -> Path:
    """Write a PNG grid of `count` images G(z), z ~ N(0, I), by the run's averaged generator; return its path.

    `trust_encoder` is as for `galirep.load_extractor`.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        CheckpointError: the run has no valid export.
        ConfigError: `out` exists, or `count` or `columns` is below 1.
    """
    target = require_target(out, overwrite, count=count, columns=columns, seed=seed)
    torch_device = device_of(device)
    _, generator, header = load_autoencoder(
        Path(run), torch_device, body=partial(load_body, trust_encoder=trust_encoder)
    )
    images = LoadedGenerator(generator, header, torch_device).sample(count, seed)
    with atomic_write(target) as temporary:
        save_grid(temporary, images, columns)
    return target
