"""`galirep info`."""

import json
from collections.abc import Mapping
from typing import Any

import click

from .common import emit, shared

_LONG = 100  # characters of a list or text that people are shown


@click.command("info")
@click.argument("path", type=click.Path())
@shared()
def info_command(path: str, as_json: bool) -> None:
    """Tell what PATH holds: a run directory, an exported network, a checkpoint, an embedding file or an index.

    \b
    Example:
      galirep info runs/mnist
      galirep info test.h5 --json
    """
    from galirep.inspection.paths import info

    result = info(path)
    emit(as_json, result, "\n".join(_lines(result)))


def _lines(value: Mapping[str, Any], indent: str = "") -> list[str]:
    width = max((len(key) for key in value), default=0)
    lines = []
    for key, item in value.items():
        if item is None or item in ("", [], {}, ()):
            continue
        if isinstance(item, Mapping) and len(json.dumps(item)) > _LONG:
            lines += [f"{indent}{key}", *_lines(item, indent + "  ")]
        else:
            text = item if isinstance(item, str) else json.dumps(item)
            lines.append(f"{indent}{key:{width}}  {text if len(text) <= 2 * _LONG else text[: 2 * _LONG] + '...'}")
    return lines
