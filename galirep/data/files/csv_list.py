"""CSV lists of images."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from galirep.data.files.tables import Table, find_column, read_table
from galirep.data.labels import read_labels
from galirep.data.report import DataReport
from galirep.data.sources import ImageSource, PathSource
from galirep.errors import DataError, format_list


def open_csv(spec: str, path: Path) -> ImageSource:
    """Open a CSV file with a column `path` (relative to the CSV file's folder, or absolute) and optionally `label`.

    Upper and lower case of these names, and blanks at the ends of cells, do not matter. Other columns are ignored, and
    `report.notes` says so. Labels that are all whole numbers are kept as they are; other labels are names, numbered in
    sorted order. An empty label, NaN or -1 means none (see `labels.read_labels`).

    Raises:
        DataError: the file is not CSV, has no column `path` or no rows, or a path is empty or repeats, also in another
            spelling (`a.png`, `./a.png`).
    """
    table = read_table(spec, path, "path")
    path_column, label_column = find_column(spec, table, "path"), find_column(spec, table, "label")
    if path_column is None:
        raise DataError(
            f"{spec} has no column 'path' in its first line (its columns: {', '.join(table.columns) or 'none'}): "
            "expected path,label"
        )
    if not table.rows:
        raise DataError(f"{spec} has no images: there are no rows after the first line")
    ids = [row[path_column] for row in table.rows]
    _require_paths(spec, path.parent, ids, table)
    notes = [*table.notes, *_note_ignored(table, (path_column, label_column))]
    if label_column is None:
        source = PathSource(spec, path.parent, ids)
    else:
        cells = [row[label_column] for row in table.rows]
        _require_one_line(spec, "label", cells, table)
        labels = read_labels(f"the labels of {spec}", cells, len(ids), lambda row: f"line {table.lines[row]}")
        if not any(cells):
            notes.append("the column label is empty: no image has a label")
        notes += labels.notes
        source = PathSource(spec, path.parent, ids, labels.labels, labels.names)
    source.tell(DataReport(spec, notes=tuple(notes)))
    return source


def _require_paths(spec: str, folder: Path, ids: Sequence[str], table: Table) -> None:
    if "" in ids:
        row = ids.index("")
        raise DataError(f"{spec} has an empty path in its row {row + 1} (line {table.lines[row]})")
    _require_one_line(spec, "path", ids, table)
    if len(set(ids)) < len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise DataError(f"{spec} names {twice!r} twice: each path is an id")
    spelling: dict[str, str] = {}
    for name in ids:
        # links are not resolved; a Path would keep `..`, and takes longer
        first = spelling.setdefault(os.path.abspath(os.path.join(folder, name)), name)  # noqa: PTH100, PTH118
        if first != name:
            raise DataError(f"{spec} names one file twice, {first!r} and {name!r}: keep one of the two rows")


def _require_one_line(spec: str, name: str, cells: Sequence[str], table: Table) -> None:
    """Refuse a cell with a line break, which a quote that is not closed makes of the rows after it."""
    for cell, line in zip(cells, table.lines, strict=True):
        if "\n" in cell or "\r" in cell:
            raise DataError(
                f"{spec}: the {name} that ends in line {line} has a line break in it: is a quote left open?"
            )


def _note_ignored(table: Table, used: Sequence[int | None]) -> list[str]:
    others = [column for i, column in enumerate(table.columns) if i not in used]
    ignored = [repr(column) if column else "one without a name" for column in others]
    if not ignored:
        return []
    missing = " and there is no column label" if used[1] is None else ""
    return [f"columns that are ignored: {format_list(ignored)}{missing}"]
