"""Options derived from a settings dataclass, and settings built from options, --set, files and a resumed run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click

from galirep.errors import CheckpointError
from galirep.system.settings import Settings, parse_assignments, read_settings, setting_types

from .common import Choice, workers

Command = TypeVar("Command", bound=Callable[..., Any])
Chosen = TypeVar("Chosen", bound=Settings)
# options of a run among the common ones, before and after the settings
_FIRST = ("out",)
_THEN = ("resume", "overwrite")
_SHOWN = {"True": "yes", "False": "no"}
_TYPES = {int: click.INT, float: click.FLOAT, str: click.STRING}


def settings_options(settings: type[Settings]) -> Callable[[Command], Command]:
    """Add one option for each field of `settings`, in its order.

    What is not given stays None, so that files and a resumed run can fill it in.
    """

    def decorate(command: Command) -> Command:
        kinds = setting_types(settings)
        for field in reversed(dataclasses.fields(settings)):
            command = _option(field, kinds[field.name][0])(command)
        return command

    return decorate


class SettingsCommand(click.Command):
    """A command whose help shows the options of a run and the common settings first, then the others by section."""

    settings: type[Settings] = Settings
    # settings that most users give; title -> the first setting of each section, in the order of the fields
    common: Sequence[str] = ()
    sections: Mapping[str, str] = MappingProxyType({})

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in groups; each option is in one of them."""
        titles = {first: title for title, first in self.sections.items()}
        sections: dict[str, str] = {}
        title = ""
        for field in dataclasses.fields(self.settings):
            title = titles.get(field.name, title)
            sections[field.name] = title
        groups: dict[str, list[tuple[str, str]]] = {
            name: [] for name in ("Common options", *self.sections, "Other options")
        }
        order = {name: i for i, name in enumerate((*_FIRST, *self.common, *_THEN))}
        shown = [(param, record) for param in self.get_params(ctx) if (record := param.get_help_record(ctx))]
        for param, record in sorted(shown, key=lambda pair: order.get(str(pair[0].name), len(order))):
            name = str(param.name)
            groups["Common options" if name in order else sections.get(name) or "Other options"].append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def settings_command(
    settings: type[Settings], name: str, *, epilog: str, common: Sequence[str], sections: Mapping[str, str]
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a job's settings: an option for each, and help in groups."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        command = click.command(name, cls=SettingsCommand, epilog=epilog)(settings_options(settings)(function))
        command.settings, command.common, command.sections = settings, common, sections
        return command

    return decorate


def run_options(command: Command) -> Command:
    """Add --out, --config, --set, --resume and --overwrite."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def build_settings(
    settings: type[Chosen],
    out: Path,
    *,
    config_file: Path | None,
    assignments: tuple[str, ...],
    resume: bool,
    options: Mapping[str, Any],
    trust_encoder: bool = False,
) -> Chosen:
    """Merge, from weakest to strongest: the resumed run's settings, the YAML file, the options, --set.

    Raises:
        GalirepError: a setting is unknown or does not fit, a file cannot be read, the run does not exist, or a file
            names an extractor that is code, without `trust_encoder`.
    """
    values: dict[str, Any] = {}
    from galirep.runs.directory import RunDirectory

    directory = RunDirectory(out)
    if resume:
        directory.require(resume=True, overwrite=False)
        directory.require_command(settings.command)
        # a run that ended before its first checkpoint may lack them
        values = directory.settings() if directory.config_file.is_file() else {}
    if config_file is not None:
        values = settings.merge(values, read_settings(config_file))
    given = {name: value for name, value in options.items() if value is not None}
    if "num_workers" in given:
        given["num_workers"] = workers(given["num_workers"])
    by_hand = given | parse_assignments(assignments)
    if resume and directory.absent and not (values | by_hand).get("data"):
        raise CheckpointError(
            f"{out} is not a run, so it cannot be resumed: give --data too to begin one, or the run's own name"
        )
    for name in settings.extractors:
        if name not in by_hand and isinstance(spec := values.get(name), str):
            from galirep.features.registry import require_no_code

            option = "--" + name.replace("_", "-")
            require_no_code(spec, trust_encoder=trust_encoder, by_hand=option)
    return settings.from_dict(settings.merge(values, by_hand))


_RUN_OPTIONS = (
    click.option(
        "--out",
        required=True,
        type=click.Path(path_type=Path),
        help="Run directory to make, or with --resume to go on with.",
    ),
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="YAML file of settings; options given here win over it.",
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="One setting by its name in config.yaml; may be repeated, wins over all.",
    ),
    click.option(
        "--resume", is_flag=True, help="Go on from the run's last checkpoint; settings not given are the run's."
    ),
    click.option("--overwrite", is_flag=True, help="Replace a run that exists."),
)


def _option(field: "dataclasses.Field[Any]", kind: type) -> Callable[[Any], Any]:
    """Return the click option of one setting, its help with the default."""
    flag = "--" + field.name.replace("_", "-")
    text = field.metadata["help"]
    if field.default not in (None, ""):
        text += f"  [default: {_SHOWN.get(str(field.default), field.default)}]"
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=text)
    if field.name == "num_workers":
        return click.option(flag, field.name, default=None, metavar="auto|N", help=text)
    choices = field.metadata["choices"]
    value_type = Choice(choices) if choices and kind is str else _TYPES[kind]
    return click.option(flag, field.name, default=None, type=value_type, help=text)
