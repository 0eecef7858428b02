"""Tables of measured runs: collect their evaluation.json files, group them, write Markdown between two marks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from galirep.errors import ConfigError, DataError
from galirep.metrics.intervals import format_interval, mean_interval
from galirep.system.files import write_text
from galirep.system.reading.documents import read_json

FILE = "evaluation.json"
"""Name of the file with the measures of one run: a JSON object, one key a measure or a description."""


def collect_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read FOLDER/*/evaluation.json, in the order of their paths.

    Raises:
        DataError: a file is not a JSON object.
    """
    rows = []
    for file in sorted(folder.glob(f"*/{FILE}")):
        row = read_json(file, DataError, f"cannot read {file}: it")
        if not isinstance(row, dict):
            raise DataError(f"{file} must be a JSON object, not {type(row).__name__}")
        rows.append(row)
    return rows


def format_table(
    rows: Iterable[Mapping[str, Any]],
    *,
    group_by: Sequence[str],
    columns: Mapping[str, int],
    listed: Mapping[str, str] | None = None,
) -> str:
    """Return a Markdown table with one line for each group of rows that agree in the keys `group_by`.

    Groups stand in the order of their first rows. `columns` are key -> digits: a cell is the mean over the group with
    half its 95% interval (`mean_interval`), without the rows that lack the key or have None, and empty without any.
    `listed` are key -> heading of columns that list the values of all rows, e.g. {"seed": "seeds"}.

    Raises:
        DataError: a row lacks a key of `group_by` or `listed`, or a value is not a finite number.
    """
    listed = listed or {}
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        missing = [key for key in (*group_by, *listed) if key not in row]
        if missing:
            raise DataError(f"a row of the table lacks {', '.join(missing)}: {dict(row)}")
        groups.setdefault(tuple(row[key] for key in group_by), []).append(row)
    headings = [*group_by, *listed.values(), *columns]
    lines = [_line(headings), "|---" * len(headings) + "|"]
    for values, members in groups.items():
        lists = [", ".join(str(row[key]) for row in members) for key in listed]
        cells = [_cell(members, key, digits) for key, digits in columns.items()]
        lines.append(_line([*map(_text, values), *lists, *cells]))
    return "\n".join(lines)


def write_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands in a text file between the marks `begin` and `end` with `text`, on lines of its own.

    Raises:
        ConfigError: the file does not exist, or does not contain the two marks in this order.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"cannot read {path}: {err}") from None
    head, found_begin, rest = content.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ConfigError(f"{path} does not contain the lines {begin} and {end} to write the table between")
    write_text(path, f"{head}{begin}\n{text}\n{end}{tail}")


def _cell(rows: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    wrong = [value for value in values if isinstance(value, bool) or not isinstance(value, (int, float))]
    if wrong:
        raise DataError(f"{key} must be a number in a table, not {wrong[0]!r}")
    return format_interval(mean_interval(values), digits) if values else ""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
