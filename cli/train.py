"""`galirep train`: every setting of TrainConfig is an option; files and --set give them too."""

from pathlib import Path
from typing import Any

import click

from galirep.errors import ConfigError
from galirep.training.config import TrainConfig

from .common import emit, shared
from .settings import build_settings, run_options, settings_command

_COMMON = ("preset", "data", "image_size", "variant", "adapter", "steps", "batch_size")
_SECTIONS = {
    "Data": "data",
    "Game and networks": "variant",
    "Discriminator": "d_regularizer",
    "Optimisation": "steps",
    "Machine": "seed",
    "Evaluation": "holdout",
    "Reports and checkpoints": "log_every",
}


@settings_command(
    TrainConfig,
    "train",
    epilog="Example: galirep train --data sklearn:digits --out runs/digits --epochs 20",
    common=_COMMON,
    sections=_SECTIONS,
)
@run_options
@click.option(
    "--download", is_flag=True, help="Download a torchvision data set or pretrained weights that are missing."
)
@click.option("-n", "--dry-run", is_flag=True, help="Print the settings and the memory that an update takes, and stop.")
@shared("max-pixels", "trust-encoder", "force-unlock")
def train_command(
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    force_unlock: bool,
    download: bool,
    dry_run: bool,
    trust_encoder: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a GALI encoder on images and leave a run directory: checkpoints, pictures, metrics, an exported encoder."""
    config = build_settings(
        TrainConfig,
        out,
        config_file=config_file,
        assignments=assignments,
        resume=resume,
        options=options,
        trust_encoder=trust_encoder,
    )
    if dry_run:
        if not config.data:
            raise ConfigError("data: give a data set, e.g. --data sklearn:digits")
        import yaml

        from galirep.runs.directory import RunDirectory
        from galirep.training.preparation import describe_memory

        directory = RunDirectory(out)
        directory.require(resume, overwrite)
        memory = describe_memory(config, directory if directory.to_resume(resume) else None, download=download)
        emit(as_json, config.to_dict(), f"{yaml.safe_dump(config.to_dict(), sort_keys=False)}# {memory}")
        return
    from galirep.training.loop import train

    result = train(
        config,
        out=out,
        resume=resume,
        overwrite=overwrite,
        download=download,
        trust_encoder=trust_encoder,
        force_unlock=force_unlock,
    )
    export, samples = result.run / "export", result.run / "samples"
    text = f"{result.run}: {result.steps} updates; encoder in {export}, pictures in {samples}"
    emit(as_json, result.to_dict(), text)
