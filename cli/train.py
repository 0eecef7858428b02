"""`galirep train`: every setting of TrainConfig is an option; files and --set give them too."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from galirep.system.settings import merge_settings, parse_assignments, read_config
from galirep.training.config import TrainConfig, setting_type

from .common import Choice, emit, shared, workers


def _setting_options(command: Any) -> Any:
    """One option a setting, in the order of TrainConfig; what is not given stays unset, so that files and a resumed run can fill it in."""
    for field in reversed(dataclasses.fields(TrainConfig)):
        kind, _ = setting_type(field.name)
        flag = "--" + field.name.replace("_", "-")
        shown = "" if field.default in (None, "") else f"  [default: {field.default}]"
        text = field.metadata["help"] + shown.replace("True", "yes").replace("False", "no")
        if kind is bool:
            option = click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=text)
        elif field.name == "num_workers":
            option = click.option(flag, field.name, default=None, metavar="auto|N", help=text)
        else:
            kinds = {int: click.INT, float: click.FLOAT, str: click.STRING}
            choices = field.metadata["choices"]
            option = click.option(
                flag, field.name, default=None, type=Choice(choices) if choices else kinds[kind], help=text
            )
        command = option(command)
    return command


@click.command("train", epilog="Example: galirep train --data sklearn:digits --out runs/digits --epochs 20")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Run directory to make, or with --resume to go on with.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="YAML file of settings; options given here win over it.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting by its name in config.yaml; may be repeated, wins over all.",
)
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint; settings not given are the run's.")
@click.option("--overwrite", is_flag=True, help="Replace a run that exists.")
@click.option(
    "--download", is_flag=True, help="Download a torchvision data set or pretrained weights that are missing."
)
@click.option("-n", "--dry-run", is_flag=True, help="Print the settings and stop.")
@shared()
@_setting_options
def train_command(
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    download: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a GALI encoder on images and leave a run directory: checkpoints, pictures, metrics, an exported encoder."""
    config = _config(out, config_file, assignments, resume, given)
    if dry_run:
        import yaml

        emit(as_json, config.to_dict(), yaml.safe_dump(config.to_dict(), sort_keys=False).rstrip())
        return
    from galirep.training.loop import train

    result = train(config, out=out, resume=resume, overwrite=overwrite, download=download)
    summary = {
        "run": str(result.run),
        "steps": result.steps,
        "loss_d": result.metrics.get("loss_d"),
        "loss_g": result.metrics.get("loss_g"),
    }
    emit(
        as_json,
        summary,
        f"{result.run}: {result.steps} updates; encoder in {result.run / 'export'}, pictures in {result.run / 'samples'}",
    )


def _config(
    out: Path, config_file: Path | None, assignments: tuple[str, ...], resume: bool, given: dict[str, Any]
) -> TrainConfig:
    values: dict[str, Any] = {}
    if resume:
        from galirep.runs.directory import RunDirectory

        values = RunDirectory(out).config()
    if config_file is not None:
        values = merge_settings(values, read_config(config_file))
    options = {name: value for name, value in given.items() if value is not None}
    if "num_workers" in options:
        options["num_workers"] = workers(options["num_workers"])
    return TrainConfig.from_dict(merge_settings(values, options | parse_assignments(assignments)))
