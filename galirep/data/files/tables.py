"""Tables as people save them: CSV with commas, tabs, semicolons or bars, a byte-order mark, blanks in cells."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from galirep.data.labels import as_read
from galirep.data.picture import one_line
from galirep.errors import DataError, format_list
from galirep.system.reading.files import require_regular
from galirep.system.reading.limits import MISSING_CELLS

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
# the first line by which Excel is told the delimiter
_SEP = re.compile(r"sep=([^\"\r\n])[ \t]*(?:\r\n|\r|\n|$)", re.IGNORECASE)
_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class Table:
    """The cells of a table, without blanks at their ends: `columns` by name, rows of as many cells, each row's line.

    `notes` say in words what was assumed and what was ignored.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    notes: tuple[str, ...]


def read_table(what: str, path: Path, key: str | None = None, unreadable: str = "is not a readable CSV file") -> Table:
    """Read a table with a line of column names.

    Cells are separated by what makes `key` a column (upper or lower case), or most columns without `key`; commas go
    first. A first line such as `sep=;`, as Excel has it, names the delimiter and is skipped. UTF-8, or UTF-16 with a
    byte-order mark.

    Raises:
        DataError: the file is no text, a quote is not closed (`unreadable` says it), or a row has more cells than
            columns; `what` begins the message.
    """
    require_regular(path, what, DataError)
    try:
        content = path.read_bytes()
        text = content.decode(_BOMS.get(content[:2], "utf-8-sig"))
        if "\0" in text:
            raise DataError(f"{what} {unreadable}: it has zero bytes, so it is not text")
        sep = _SEP.match(text)
        delimiter = sep[1] if sep else _choose_delimiter(text, key)
    except UnicodeDecodeError as err:
        raise DataError(f"{what} {unreadable}: {one_line(err)}; save it as UTF-8") from err
    except OSError as err:
        raise DataError(f"{what} {unreadable}: {one_line(err)}") from err
    stream = io.StringIO(text[sep.end() :] if sep else text, newline="")
    skipped = 1 if sep else 0
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
    columns: tuple[str, ...] = ()
    rows, lines, n_empty, n_short, n_missing = [], [], 0, 0, 0
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                n_empty += bool(cells)
            elif not columns:
                columns = _trim(stripped)
            else:
                n_short += len(stripped) < len(columns)
                # short rows are filled up: a few bytes could become a table of any size
                n_missing += max(0, len(columns) - len(stripped))
                MISSING_CELLS.require(n_missing, f"{what}: its short rows lack too much", DataError)
                rows.append(_fit(what, stripped, columns, reader.line_num + skipped))
                lines.append(reader.line_num + skipped)
    except csv.Error as err:
        hint = " (a double quote is left open)" if "end of data" in str(err) or "field limit" in str(err) else ""
        raise DataError(f"{what} {unreadable}: line {reader.line_num + skipped}: {one_line(err)}{hint}") from err
    notes = [f"the first line {sep[0].strip()!r} names the delimiter and is skipped"] if sep else []
    notes += [] if delimiter == "," else [f"cells are separated by {_DELIMITERS.get(delimiter, repr(delimiter))}"]
    notes += [f"{n_empty} rows with empty cells only are ignored"] if n_empty else []
    notes += [f"{n_short} rows have fewer cells than columns: the missing ones are empty"] if n_short else []
    return Table(columns, tuple(rows), tuple(lines), tuple(notes))


def _trim(cells: Sequence[str]) -> tuple[str, ...]:
    """Return the column names without empty ones at the end."""
    last = max(i for i, cell in enumerate(cells) if cell)
    return tuple(as_read(cell) for cell in cells[: last + 1])


def _fit(what: str, cells: Sequence[str], columns: Sequence[str], line: int) -> tuple[str, ...]:
    if any(cells[len(columns) :]):
        raise DataError(
            f"{what}, line {line}: {len(cells)} cells under {len(columns)} columns; "
            "put a cell with a delimiter in it into double quotes"
        )
    return (*cells, *[""] * (len(columns) - len(cells)))[: len(columns)]


def _choose_delimiter(text: str, key: str | None) -> str:
    header = next((line for line in text.splitlines() if line.strip()), "")
    counts = {}
    for delimiter in _DELIMITERS:
        try:
            cells = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            continue
        counts[delimiter] = len(cells) if key is None else sum(cell.strip().casefold() == key for cell in cells)
    return max(counts, key=lambda delimiter: counts[delimiter], default=",")


def find_column(what: str, table: Table, name: str) -> int | None:
    """Return the position of the column called `name` in upper or lower case; None if there is none.

    Raises:
        DataError: there are two.
    """
    found = [i for i, column in enumerate(table.columns) if column.casefold() == name]
    if len(found) > 1:
        twice = format_list(repr(table.columns[i]) for i in found)
        raise DataError(f"{what} has {len(found)} columns {name!r} ({twice}): keep one")
    return found[0] if found else None


def match_names(what: str, kind: str, names: Iterable[str], candidates: Sequence[str]) -> list[str]:
    """Return the names of a file's arrays or columns that are one of `candidates`: what is to be read goes first.

    Upper and lower case do not matter, but a name in the case of its candidate goes before others. `kind` is what the
    names are names of, such as `arrays`.

    Raises:
        DataError: names of the first candidate that is there differ from it, and from each other, in case alone.
    """
    found: list[str] = []
    for candidate in candidates:
        alike = sorted((name for name in names if name.casefold() == candidate), key=lambda name: name != candidate)
        if len(alike) > 1 and alike[0] != candidate and not found:
            raise DataError(f"{what} has {len(alike)} {kind} {candidate!r} ({format_list(map(repr, alike))}): keep one")
        found += alike
    return found


def require_names(what: str, kind: str, names: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Return what `match_names` does; raise if there is none. Here `kind` is singular."""
    if found := match_names(what, f"{kind}s", names, candidates):
        return found
    raise DataError(f"{what} has no {kind} named {' or '.join(candidates)}; its {kind}s: {', '.join(names) or 'none'}")


def note_names(kind: str, names: Iterable[str], matched: Sequence[Sequence[str]], expected: str) -> list[str]:
    """Return notes on names that are not read: those after the first of each of `matched`, and those in none.

    `expected` says which names are read.
    """
    notes = [f"of the {kind} {format_list(map(repr, found))}, {found[0]!r} is read" for found in matched if found[1:]]
    known = {name for found in matched for name in found}
    ignored = [name for name in names if name not in known]
    return [*notes, f"{kind} {format_list(map(repr, ignored))} are not read; {expected}"] if ignored else notes
