"""The command `galirep info`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .common import emit, shared

# an object of more characters is shown in lines of its own, a text of twice as many is cut
_LONG = 100
# classes that are listed for people
_CLASSES = 30


@click.command("info")
@click.argument("path", metavar="PATH|DATA")
@click.option("--split", help="Describe this split of a data set alone.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Write a contact sheet of DATA."
)
@click.option("--reproduce", is_flag=True, help="Print the command that makes a run again, and what it needs.")
@shared("splits", "workers", "overwrite", "data-root", "download", "max-pixels")
def info_command(path: str, as_json: bool, reproduce: bool, **options: Any) -> None:
    """Show what PATH is: a run directory, an exported network, a checkpoint, an embedding file or an index.

    Of a data set, written as for --data, it shows what is read and left out, splits, classes, sizes, modes and equal
    images.

    \b
    Example:
      galirep info runs/mnist
      galirep info runs/mnist --reproduce
      galirep info test.h5 --json
      galirep info photos/ --out sheet.png
    """
    from galirep.inspection.paths import info

    description = info(path, reproduce=reproduce, **options)
    if reproduce and not as_json:
        from galirep.inspection.reproduction import reproduction_of

        emit(as_json, description, reproduction_of(path).lines())
        return
    lines = _data_lines(description) if description["kind"] == "data" else _format_lines(description)
    emit(as_json, description, lines)


def _data_lines(description: Mapping[str, Any]) -> list[str]:
    """Return what a data set holds for people: the report of each split, then what holds for all of it."""
    from galirep.data.report import DataReport

    splits = [split["report"] for split in description["splits"].values()] or [description["data_report"]]
    lines = []
    for values in splits:
        report = DataReport.from_dict(values)
        lines += report.lines()
        named = [f"{name or 'no label'} {count}" for name, count in report.classes.items()]
        if any(report.classes):
            more = f" and {len(named) - _CLASSES} more" if len(named) > _CLASSES else ""
            lines.append(f"classes     {', '.join(named[:_CLASSES])}{more}")
        if report.other_files:
            lines.append(f"other files {', '.join(f'{kind} {n}' for kind, n in report.other_files.items())}")
    sizes = description["sizes"]
    if sizes["different"]:
        commonest = ", ".join(f"{width}x{height} ({count})" for width, height, count in sizes["commonest"])
        ends = f"{'x'.join(map(str, sizes['smallest']))} to {'x'.join(map(str, sizes['largest']))}"
        lines.append(f"sizes       {sizes['different']}, {ends}; {commonest}")
    for name in ("modes", "formats"):
        if description[name]:
            lines.append(f"{name:11} {', '.join(f'{kind} {count}' for kind, count in description[name].items())}")
    lines.append(f"bytes       {description['bytes']}")
    unreadable, duplicates = description["unreadable"], description["duplicates"]
    lines.append(f"unreadable  {unreadable['count']}")
    lines += [f"  {fault['id']}: {fault['reason']}" for fault in unreadable["first"]]
    groups = f"{duplicates['groups']} groups of {duplicates['images']} images with equal content"
    crossing = f"{duplicates['across_splits']} across splits, {duplicates['across_classes']} across classes"
    lines.append(f"duplicates  {groups}: {crossing}" if duplicates["groups"] else "duplicates  none")
    lines += [f"  {' = '.join(group)}" for group in duplicates["first"]]
    if (sheet := description["contact_sheet"]) is not None:
        lines.append(f"{sheet['path']}: contact sheet of {sheet['images']} images")
    return lines


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
