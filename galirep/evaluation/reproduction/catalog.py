"""The studies and scales that come with galirep, by name, and those of files."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from galirep.errors import ConfigError, unknown
from galirep.evaluation.reproduction.study import Study
from galirep.system.reading.documents import read_toml

_FOLDER = Path(__file__).parent / "tables"
TABLES = ("reconstruction", "representation", "generation", "inpainting", "ablations")
"""The paper's tables and ablations: what is compared, without sets."""
SCALES = ("cpu", "paper")
"""On what, and for how long."""


def load_study(name: str | Path, scale: str | Path | None = None) -> Study:
    """Return a study: one of `TABLES` or a TOML file, on the sets of a scale (of `SCALES`, or a TOML file) if given.

    A row of a study may be the name of one of the paper's rows (tables/rows.toml) in place of a table.

    Raises:
        ConfigError: the name is unknown, or a file is not a study.
    """
    study = _load(name, "table", TABLES)
    if scale is None:
        for claim in study.claims if study.sets else ():
            for set_name in claim.sets:
                if set_name not in [s.name for s in study.sets]:
                    raise ConfigError(f"{name}: {unknown('set', set_name, [s.name for s in study.sets])}")
        return study
    on = _load(scale, "scale", SCALES)
    if study.sets:
        raise ConfigError(f"{name} has sets of its own: leave --scale out")
    if not on.sets:
        raise ConfigError(f"the scale {scale} has no sets")
    # a scale has rows of every table
    rows = [*_rows(), *(row.name for row in study.rows)]
    for image_set in on.sets:
        for name in (*image_set.rows, *image_set.row_settings):
            if name not in rows:
                raise ConfigError(f"the scale {scale}, set {image_set.name!r}: {unknown('row', name, rows)}")
    return study.on(on)


def _load(name: str | Path, what: str, known: tuple[str, ...]) -> Study:
    if str(name).endswith(".toml"):
        path = Path(name)
    elif str(name) in known:
        path = _FOLDER / f"{name}.toml"
    else:
        raise ConfigError(unknown(what, str(name), known) + "; or a .toml file")
    values = read_toml(path, ConfigError)
    try:
        rows = values.get("rows", [])
        if isinstance(rows, list):
            values = {**values, "rows": [_row(row) if isinstance(row, str) else row for row in rows]}
        return Study.from_dict({"name": path.stem, **values})
    except ConfigError as err:
        raise ConfigError(f"{path if path.parent != _FOLDER else name}: {err}") from None


def _row(name: str) -> Mapping[str, Any]:
    rows = _rows()
    if name not in rows:
        raise ConfigError(unknown("row", name, rows))
    return rows[name]


@cache
def _rows() -> dict[str, Mapping[str, Any]]:
    return {row["name"]: row for row in read_toml(_FOLDER / "rows.toml", ConfigError)["rows"]}
