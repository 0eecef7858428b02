"""The command `galirep info`."""

import json
from collections.abc import Mapping
from typing import Any

import click

from .common import emit, shared

# an object of more characters is shown in lines of its own, a text of twice as many is cut
_LONG = 100


@click.command("info")
@click.argument("path", type=click.Path())
@shared("max-pixels")
def info_command(path: str, as_json: bool) -> None:
    """Show what PATH is: a run directory, an exported network, a checkpoint, an embedding file or an index.

    \b
    Example:
      galirep info runs/mnist
      galirep info test.h5 --json
    """
    from galirep.inspection.paths import info

    description = info(path)
    emit(as_json, description, "\n".join(_format_lines(description)))


def _format_lines(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """Return aligned lines `key  value` without empty values; long objects are indented."""
    width = max((len(key) for key in value), default=0)
    lines = []
    for key, item in value.items():
        if item is None or item in ("", [], {}, ()):
            continue
        if isinstance(item, Mapping) and len(json.dumps(item)) > _LONG:
            lines += [f"{indent}{key}", *_format_lines(item, indent + "  ")]
        else:
            text = item if isinstance(item, str) else json.dumps(item)
            if len(text) > 2 * _LONG:
                text = f"{text[: 2 * _LONG]}..."
            lines.append(f"{indent}{key:{width}}  {text}")
    return lines
