"""Atomic writes of files (temporary name, fsync, rename), and SHA-256 helpers."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galirep.errors import ConfigError
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.outputs.temporary import temporary_name


def require_free(path: Path, overwrite: bool) -> None:
    """Check that an output file can be written: it does not exist (or may be overwritten), and its folder does.

    Raises:
        ConfigError: `path` exists and `overwrite` is false, or it is a directory, or its parent is not a directory.
    """
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
        raise ConfigError(f"{path}: the name of this output must end in {' or '.join(suffixes)}, which is what it is")


def require_free_folder(path: Path, overwrite: bool) -> None:
    """Check that an output folder can be made: it does not exist (or may be overwritten), and the one above does.

    Raises:
        ConfigError: `path` exists and `overwrite` is false, or it is no directory, or its parent is not a directory.
    """
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
