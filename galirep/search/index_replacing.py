"""Replace the three files of an index together, so that a kill at any moment leaves the old ones or the new ones.

A new index replaces an older one at the moment that its sidecar takes its name. Until then the other two wait beside it
as `.NAME.next`. Who finds them waiting for a sidecar that is there, since the process that wrote it ended, puts them in
their place.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from galirep.search.index_info import IndexInfo
from galirep.system.files import CHECKED_WHOLE, checksum, seal_json, sync
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.outputs.inputs import ROWS_ENDING, SIDECAR_ENDING
from galirep.system.outputs.temporary import temporary_name


def sidecar_path(path: Path) -> Path:
    """Return the path of an index's sidecar file."""
    return path.with_name(f"{path.name}{SIDECAR_ENDING}")


def rows_path(path: Path) -> Path:
    """Return the path of an index's ids and labels."""
    return path.with_name(f"{path.name}{ROWS_ENDING}")


@contextmanager
def writing_index(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield temporary paths for the index and its rows, to be put in their place by `commit_index` within."""
    # of a process that ended before its sidecar
    _remove_waiting(path)
    index, rows = temporary_name(path), temporary_name(path)
    try:
        with explain_full_disk(path):
            yield index, rows
    finally:
        index.unlink(missing_ok=True)
        rows.unlink(missing_ok=True)


def commit_index(path: Path, info: IndexInfo, index: Path, rows: Path) -> IndexInfo:
    """Put an index and its rows in the place of those of `path`; return `info` with the checksums that were added.

    A kill at any moment leaves the old index or the new one.
    """
    # Not synced: an index can be built again, and its checksums detect what a power cut spoiled. The checksum of a
    # larger file covers only parts of it.
    if index.stat().st_size > CHECKED_WHOLE:
        sync(index)
    files = {"index": index, "rows": rows}
    info = replace(
        info,
        files={kind: checksum(file) for kind, file in files.items()},
        whole_files={kind: checksum(file, whole=True) for kind, file in files.items()},
    )
    sidecar = temporary_name(path)
    try:
        sidecar.write_text(json.dumps(seal_json(info.to_dict()), indent=2) + "\n", encoding="utf-8")
        index.replace(waiting(path))
        rows.replace(waiting(rows_path(path)))
        sidecar.replace(sidecar_path(path))
    finally:
        sidecar.unlink(missing_ok=True)
    put_in_place(path, info)
    # of an index that equals the old one
    _remove_waiting(path)
    return info


def waiting(file: Path) -> Path:
    """Return where a file of a new index waits for its sidecar."""
    return file.with_name(f".{file.name}.next")


def put_in_place(path: Path, info: IndexInfo) -> Path | None:
    """Rename what waits for the sidecar `info`; return a file that is then not the one of the sidecar, if any."""
    for kind, file in (("index", path), ("rows", rows_path(path))):
        expected, new = info.files.get(kind), waiting(file)
        if file.is_file() and checksum(file) == expected:
            continue
        # another process may do the same
        with suppress(FileNotFoundError):
            if checksum(new) == expected:
                new.replace(file)
                continue
        if not file.is_file() or checksum(file) != expected:
            return file
    return None


def _remove_waiting(path: Path) -> None:
    for file in (path, rows_path(path)):
        waiting(file).unlink(missing_ok=True)
