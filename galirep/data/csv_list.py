"""CSV lists of images."""

import csv
from pathlib import Path

import numpy as np

from galirep.data.picture import one_line
from galirep.data.sources import ImageSource, Labels, PathSource, check_labels
from galirep.errors import DataError


def open_csv(spec: str, path: Path) -> ImageSource:
    """Open a CSV file with a column `path` (relative to the CSV file's folder, or absolute) and optionally `label`.

    Other columns are ignored. Labels that are all whole numbers are kept as they are; other labels are names, numbered
    in sorted order. An empty label means none (-1).

    Raises:
        DataError: the file is not CSV, has no column `path` or no rows, or a path is empty or repeats.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (csv.Error, UnicodeDecodeError) as err:
        raise DataError(f"{spec} is not a readable CSV file: {one_line(err)}") from err
    if "path" not in columns:
        raise DataError(
            f"{spec} has no column 'path' in its first line (its columns: {', '.join(columns) or 'none'}): "
            "expected path,label"
        )
    if not rows:
        raise DataError(f"{spec} has no images: there are no rows after the first line")
    ids = [row["path"] or "" for row in rows]
    if "" in ids:
        raise DataError(f"{spec} has an empty path in its row {ids.index('') + 1}")
    if len(set(ids)) < len(ids):
        raise DataError(f"{spec} names {next(i for i in ids if ids.count(i) > 1)!r} twice: each path is an id")
    if "label" not in columns:
        return PathSource(spec, path.parent, ids)
    labels, label_names = _parse_labels(spec, [row["label"] or "" for row in rows])
    return PathSource(spec, path.parent, ids, labels, label_names)


def _parse_labels(spec: str, values: list[str]) -> tuple[Labels | None, tuple[str, ...]]:
    given = {value for value in values if value}
    if all(value.lstrip("-").isdecimal() for value in given):
        return check_labels(spec, [int(value or -1) for value in values], len(values)), ()
    number = {name: k for k, name in enumerate(sorted(given))}
    return np.array([number.get(value, -1) for value in values], dtype=np.int64), tuple(number)
