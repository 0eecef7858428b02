"""Options that several commands share, and how a result is printed."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from galirep.data.image_file.pixel_limit import DEFAULT, VARIABLE
from galirep.errors import unknown
from galirep.system.printable import printable

F = TypeVar("F", bound=Callable[..., Any])


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.find_root().meta["galirep.debug"] = value


def workers(value: str) -> int | None:
    """Return the number of decoding workers; None for `auto`."""
    if value == "auto":
        return None
    if not value.isdigit():
        raise click.BadParameter(
            f"{value!r} is neither 'auto' nor a whole number of workers", param_hint="'--num-workers'"
        )
    return int(value)


def _device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    name, _, index = value.partition(":")
    if name not in ("auto", "cpu", "cuda") or (index and (name != "cuda" or not index.isdigit())):
        raise click.BadParameter(f"{value!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...", ctx, param)
    return value


class Choice(click.Choice[str]):
    """A choice among words that names the nearest one where it is misspelt."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word, or raise a usage error."""
        if str(value) not in self.choices:
            self.fail(unknown("value", str(value), self.choices), param, ctx)
        return str(value)


def _limit_pixels(ctx: click.Context, _: click.Parameter, value: int | None) -> None:
    """Set the limit for this command, its workers, and whatever it reads besides its data: queries, thumbnails."""
    if value is None:
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(value)
    ctx.call_on_close(lambda: os.environ.update({VARIABLE: before}) if before else os.environ.pop(VARIABLE, None))


def _names(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    names = None if value is None else value.split(",")
    if names is not None and not all(name.strip() for name in names):
        raise click.BadParameter(f"{value!r}: write names with commas between them, as in conv2,mu")
    return names


def layers_option(help: str) -> Callable[[F], F]:
    """Make the option --layers: names separated by commas, given to the command as a list, or None."""
    return click.option("--layers", metavar="LIST", callback=_names, help=help)


_SHARED: dict[str, Any] = {
    "json": click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; the text for people goes to stderr."
    ),
    "debug": click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_debug,
        is_eager=True,
        help="Show the traceback of an error.",
    ),
    "seed": click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of everything random."
    ),
    "device": click.option(
        "--device", default="auto", show_default=True, callback=_device, help="auto, cpu, cuda or cuda:N."
    ),
    "precision": click.option(
        "--precision",
        type=Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="Arithmetic of the networks.",
    ),
    "workers": click.option(
        "--num-workers",
        default="auto",
        show_default=True,
        callback=lambda _, __, value: workers(value),
        help="Decoding workers: auto or a number (0: none).",
    ),
    "max-pixels": click.option(
        "--max-pixels",
        type=click.IntRange(1),
        metavar="N",
        expose_value=False,
        callback=_limit_pixels,
        help=f"Largest image that is decoded, in pixels.  [default: ${VARIABLE}, or {DEFAULT}]",
    ),
    "overwrite": click.option("--overwrite", is_flag=True, help="Replace an output that exists."),
    "force-unlock": click.option(
        "--force-unlock",
        is_flag=True,
        help="Take over the lock that a process of another host left on the output; make sure that it has ended.",
    ),
    "splits": click.option(
        "--splits",
        default="auto",
        show_default=True,
        metavar="auto|none|NAMES",
        help="Which top-level folders of the data are splits: by their names, none, or these (with commas).",
    ),
    "data-root": click.option(
        "--data-root", type=click.Path(), default=None, help="Folder that holds torchvision data sets."
    ),
    "trust-encoder": click.option(
        "--trust-encoder",
        is_flag=True,
        help="Run code that a file names as its encoder (module:function, TorchScript); without it none is run.",
    ),
    "download": click.option(
        "--download", is_flag=True, help="Download what is missing; without it nothing is fetched."
    ),
}


def shared(*names: str) -> Callable[[F], F]:
    """Add shared options: --json and --debug always, and those named in `_SHARED`; overwrite brings force-unlock."""
    outputs = ("force-unlock",) if "overwrite" in names else ()

    def decorate(function: F) -> F:
        for name in reversed((*names, *outputs, "json", "debug")):
            function = _SHARED[name](function)
        return function

    return decorate


def show_report(report: Mapping[str, Any] | None) -> None:
    """Print on stderr, for people, what an embedding file says was left out or assumed when it was made."""
    from galirep.data.report import DataReport

    if report and (data := DataReport.from_dict(report)).remarkable:
        for line in data.lines():
            say(line)


def say(line: str) -> None:
    """Print one line for people on stderr, with control characters escaped."""
    click.echo(printable(f"galirep: {line}"), err=True)


def emit(as_json: bool, result: Any, text: str | Sequence[str]) -> None:
    """Print the result: for people on stdout, or as JSON on stdout with the text on stderr.

    Control characters of names are escaped; in a list of lines also line breaks within one.
    """
    shown = printable(text, lines=True) if isinstance(text, str) else "\n".join(map(printable, text))
    click.echo(shown, err=as_json)
    if as_json:
        click.echo(json.dumps(result))
