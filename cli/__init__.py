"""The command `galirep`: parsing, printing and exit codes. Each command is a module, imported only when called."""

import contextlib
import importlib
import logging
import traceback
from collections.abc import Iterator

import click

from galirep.errors import GalirepError, unknown
from galirep.system.printable import printable
from galirep.version import __version__

# command -> (module in this folder, line in --help); its function is called NAME_command, with _ for -
COMMANDS = {
    "train": ("train", "Train a GALI encoder on images."),
    "train-classifier": ("train_classifier", "Train a net, with or without labels, to serve as M or as a yardstick."),
    "embed": ("embed", "Embed a data set into an HDF5 file."),
    "probe": ("probe", "Fit linear probes on embeddings."),
    "index": ("index", "Build a FAISS index of an embedding file."),
    "retrieve": ("retrieve", "Search a gallery for each query."),
    "sample": ("pictures", "Draw images from the prior as a grid."),
    "reconstruct": ("pictures", "Show images and their reconstructions by one run or several."),
    "inpaint": ("pictures", "Show images with a box erased and filled in."),
    "interpolate": ("pictures", "Show what lies between two images or two z."),
    "evaluate": ("evaluate", "Measure runs: reconstruction, FID, inpainting, posterior, probe."),
    "reproduce": ("reproduce", "Make the paper's tables, with a verdict for each claim."),
    "export": ("export", "Export a run's encoder, or an embedding file to npy + parquet."),
    "verify": ("verify", "Check an embedding file, an index or an export."),
    "merge": ("merge", "Join embedding files of one encoder."),
    "info": ("info", "Describe a data set, run, checkpoint, embedding file or index."),
    "report": ("report", "Write a page about runs: curves, pictures, settings."),
    "doctor": ("doctor", "Check this installation: torch, GPUs, faiss, HDF5, disk, memory."),
    "completion": ("completion", "Let the shell complete commands and options."),
    "list": ("listing", "List variants, adapters, datasets, networks, protocols."),
}


class LazyGroup(click.Group):
    """A group that imports commands on call and prints galirep's own errors as one line, with exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        command = getattr(module, cmd_name.replace("-", "_") + "_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _warnings_on_stderr():
                return super().invoke(ctx)
        except (GalirepError, OSError) as err:
            if ctx.meta.get("galirep.debug"):
                click.echo(printable(traceback.format_exc(), lines=True), err=True)
            _print_error(_message_of(err))
            ctx.exit(1)
        except click.UsageError as err:
            path = err.ctx.command_path if err.ctx else ctx.command_path
            _print_error(f"{err.format_message()} (see {path} --help)")
            ctx.exit(err.exit_code)
        except KeyboardInterrupt:
            click.echo("galirep: interrupted", err=True)
            ctx.exit(130)


class _Stderr(logging.Handler):
    """Print log records as lines of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(printable(f"galirep: {record.getMessage()}"), err=True)


@contextlib.contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Print what the library logs as a warning, for the time of one command."""
    logger, handler = logging.getLogger("galirep"), _Stderr(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _message_of(err: GalirepError | OSError) -> str:
    if isinstance(err, GalirepError):
        return str(err)
    reason = err.strerror or str(err)
    return f"{reason}: {err.filename}" if err.filename else reason


def _print_error(message: str) -> None:
    """Print an error as one line, whatever line breaks it has."""
    click.echo(printable(f"galirep: error: {' '.join(message.split())}"), err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="galirep")
def cli() -> None:
    """Train GALI encoders, embed image sets, probe and search the embeddings."""
