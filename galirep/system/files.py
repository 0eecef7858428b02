"""Atomic writes of files (temporary name, fsync, rename), and SHA-256 helpers."""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galirep.errors import ConfigError
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.outputs.inputs import require_file_or_folder
from galirep.system.outputs.temporary import temporary_name

# a checksum reads at most _MAX_PIECES pieces of _PIECE_BYTES
_PIECE_BYTES = 1 << 20
_MAX_PIECES = 1024
CHECKED_WHOLE = _PIECE_BYTES * _MAX_PIECES
"""The size in bytes up to which `checksum` covers all of a file."""
SEAL = "content_sha256"
"""The key under which `seal_json` puts the hash."""


def require_free(path: Path, overwrite: bool) -> None:
    """Check that an output file can be written: it does not exist (or may be overwritten), and its folder does.

    Raises:
        ConfigError: `path` exists and `overwrite` is false, or it is no file, or its parent is not a directory.
    """
    require_file_or_folder(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a directory: name a file")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists: choose another name or pass --overwrite")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: the folder {path.parent} does not exist")


def require_suffix(path: Path, *suffixes: str) -> None:
    """Check that the name of an output ends as its format does: what is written does not follow from the name.

    Raises:
        ConfigError: it has none of the endings `suffixes`.
    """
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: the name of this output must end in {' or '.join(suffixes)}, as that is its format")


def require_free_folder(path: Path, overwrite: bool) -> None:
    """Check that an output folder can be made: it does not exist (or may be overwritten), and the one above does.

    Raises:
        ConfigError: `path` exists and `overwrite` is false, or it is no directory, or its parent is not a directory.
    """
    require_file_or_folder(path)
    if path.exists() and not (overwrite and path.is_dir()):
        raise ConfigError(f"{path} exists: choose another name" + (" or pass --overwrite" if path.is_dir() else ""))
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: the folder {path.parent} does not exist")


@contextmanager
def atomic_write(path: Path, overwrite: bool = True, *, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on a clean exit and is removed on any error.

    `synced=False` does not wait for the disk: after a power cut the file may be damaged, so its reader must be able to
    detect that.

    Raises:
        ConfigError: see `require_free`.
        DataError: no space is left (the old file, if any, is untouched).
    """
    require_free(path, overwrite)
    temporary = temporary_name(path)
    try:
        with explain_full_disk(path):
            yield temporary
            if synced:
                sync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the content of a file is on the disk (fsync)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str, overwrite: bool = True, *, synced: bool = True) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_write(path, overwrite, synced=synced) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, overwrite: bool = True, *, synced: bool = True) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n", overwrite, synced=synced)


def checksum(path: Path, *, whole: bool = False) -> str:
    """Return `SIZE-CRC32` of a file, which detects accidents, not manipulation.

    Of a file over 1 GiB only 1024 pieces of 1 MiB, evenly spaced, are read, unless it is to be the `whole` file.
    """
    size = path.stat().st_size
    if whole or size <= CHECKED_WHOLE:
        starts: Sequence[int] = range(0, size, _PIECE_BYTES)
    else:
        # evenly spaced, the last one at the end
        starts = [(size - _PIECE_BYTES) * i // (_MAX_PIECES - 1) for i in range(_MAX_PIECES)]
    value = 0
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            value = zlib.crc32(file.read(_PIECE_BYTES), value)
    return f"{size}-{value:08x}"


def seal_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the hash of itself as `content_sha256`, in place of one that it has."""
    own = {name: v for name, v in value.items() if name != SEAL}
    # through JSON, as it will be read: tuples become lists
    return {**own, SEAL: sha256_json(json.loads(json.dumps(own)))}


def is_sealed(value: Mapping[str, Any]) -> bool:
    """Return whether a JSON object has the hash of itself; one without a hash passes."""
    return SEAL not in value or value[SEAL] == sha256_json({name: v for name, v in value.items() if name != SEAL})


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hex; keys are sorted, so equal values have equal hashes."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def below(path: Path, folder: Path) -> bool:
    """Return whether a path is under a folder, links followed on both sides; what is no path is under none."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    # links in a circle, names too long, a zero byte
    except (OSError, RuntimeError, ValueError):
        return False
