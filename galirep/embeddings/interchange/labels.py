"""The labels of imported tables: numbers, names, or numbers with their names beside them."""

from collections.abc import Sequence
from typing import Any

from galirep.data.files.tables import match_names, note_names
from galirep.data.labels import LabelColumn, read_labels
from galirep.embeddings.labels import renumber_labels
from galirep.errors import DataError

LABEL_COLUMNS = ("label", "label_name")


def match_columns(what: str, table: Any, id_columns: Sequence[str]) -> Any:
    """Return a pyarrow table in which the columns of ids and labels have their names where these were in other case.

    Raises:
        DataError: two columns have one of these names, or differ from it in case alone.
    """
    names = list(table.column_names)
    for name in (*id_columns, *LABEL_COLUMNS):
        found = match_names(what, "columns", names, (name,))
        if found.count(name) > 1:
            raise DataError(f"{what} has {found.count(name)} columns {name!r}: keep one")
        if found:
            names[names.index(found[0])] = name
    return table.rename_columns(names)


def note_columns(tables: Sequence[Any], ids: str, id_columns: Sequence[str]) -> list[str]:
    """Return notes on columns that are not read, where `ids` is that of the ids."""
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    expected = f"ids are a column {' or '.join(id_columns)}, here {ids}, labels a column {' or '.join(LABEL_COLUMNS)}"
    return note_names("columns", names, [[ids], *([name] for name in LABEL_COLUMNS)], expected)


def read_column(tables: Sequence[Any], name: str) -> list[Any]:
    """Return a column of all pyarrow tables; None for the rows of a table that lacks it."""
    return [
        value
        for table in tables
        for value in (table[name].to_pylist() if name in table.column_names else [None] * table.num_rows)
    ]


def read_table_labels(what: str, tables: Sequence[Any], names: tuple[str, ...]) -> LabelColumn:
    """Read the column `label`, or `label_name` where there is no `label`; `what` begins an error.

    Numbers are named by `names` if there are any, or else by the column `label_name`.

    Raises:
        DataError: labels are neither whole numbers nor names, or not those that are named.
    """
    lacking = sum("label" not in table.column_names for table in tables)
    row_names = read_column(tables, "label_name")
    values = row_names if lacking == len(tables) else read_column(tables, "label")
    column = read_labels(what, values, len(values))
    notes = [f"{lacking} of {len(tables)} files have no column label: their rows have no label"]
    notes = [*(notes if 0 < lacking < len(tables) else []), *column.notes]
    if column.names:
        # text labels beside names: those of the folder's header go first
        labels, all_names = renumber_labels(column.labels, column.names, names or column.names)
        return LabelColumn(labels, all_names, tuple(notes))
    if names:
        if len(column.labels) and column.labels.max() >= len(names):
            raise DataError(f"{what} go up to {column.labels.max()}, but only {len(names)} classes have names")
        return LabelColumn(column.labels, names, tuple(notes))
    if values is not row_names and any(name is not None for name in row_names):
        return _named(what, column, row_names, notes)
    return LabelColumn(column.labels, (), tuple(notes))


def _named(what: str, column: LabelColumn, row_names: Sequence[Any], notes: Sequence[str]) -> LabelColumn:
    """Name the classes by the column `label_name`, which must give each number one name of its own."""
    labelled = [(label, name) for label, name in zip(column.labels.tolist(), row_names, strict=True) if label >= 0]
    name_of: dict[int, Any] = {}
    for label, name in labelled:
        first = name_of.setdefault(label, name)
        if name is None or first != name:
            raise DataError(f"{what}: label {label} has the label_name {first!r} in one row and {name!r} in another")
    named = read_labels(
        what, [name_of[label] if label >= 0 else None for label in column.labels.tolist()], len(row_names)
    )
    if len(set(named.labels.tolist()) - {-1}) < len(name_of):
        raise DataError(f"{what}: {len(name_of)} numbers in the column label have fewer names in label_name")
    return LabelColumn(named.labels, named.names, tuple(dict.fromkeys((*notes, *named.notes))))
