"""Folders of images: listing their files, hidden and housekeeping ones for the report, and opening them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from galirep.data.files.index import FileIndex, index_files
from galirep.data.files.listing import Listing, housekeeping
from galirep.data.report import DataReport
from galirep.data.sources import ImageSource, PathSource
from galirep.errors import DataError
from galirep.system.reading.documents import parse_json
from galirep.system.reading.files import read_bytes
from galirep.system.reading.limits import JSON_BYTES


def open_folder(spec: str, folder: Path, split: str | None, splits: str) -> ImageSource:
    """Open a folder of images: class subfolders or a flat folder, possibly below a folder for each split.

    Raises:
        DataError: a folder cannot be listed, or as for `index_files`.
    """
    lister = _Lister()
    lister.list(str(folder), "", (), left_out=False)

    def read(name: str) -> bytes:
        return read_bytes(folder / name, name, DataError, JSON_BYTES)

    listing = Listing(
        lister.files,
        lister.not_files,
        dangling=lister.dangling,
        notes=lister.notes,
        is_run=lambda name: is_run(name, read),
    )
    index = index_files(spec, listing, split, splits, archive=False)
    source = PathSource(spec, folder / index.prefix, index.ids, index.labels, index.label_names, index.split)
    source.splits = splits
    source.tell(report_of(index))
    return source


def report_of(index: FileIndex) -> DataReport:
    """Return what an index found, for `ImageSource.tell`."""
    return DataReport(
        spec="",
        splits=index.splits,
        left_out=index.left_out,
        notes=index.notes,
        classes_lost=index.classes_lost,
        other_files=index.other_files,
    )


def is_run(folder: str, read: Callable[[str], bytes]) -> bool:
    """Return whether galirep wrote the run.json of a folder; `read` returns the content of a file by its name."""
    with contextlib.suppress(OSError, DataError):
        info = parse_json(read(f"{folder}/run.json" if folder else "run.json"), "run.json", DataError)
        return isinstance(info, dict) and "galirep" in info
    return False


class _Lister:
    """The files below a folder, relative to it; linked folders are followed, but not into one of their own parents."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.not_files: list[str] = []
        self.dangling: list[str] = []
        self.notes: list[str] = []

    def list(self, folder: str, prefix: str, parents: tuple[tuple[int, int], ...], *, left_out: bool) -> None:
        """Add the files of a folder; `parents` are the device and inode of each folder above it.

        A folder that is `left_out` is listed to count its pictures: links in it are not followed, and it may be closed
        to the user (lost+found).
        """
        status = os.stat(folder)  # noqa: PTH116
        identity = (status.st_dev, status.st_ino)
        if identity in parents:
            self.notes.append(f"the link {prefix.rstrip('/')!r} leads to a folder above it and is not followed")
            return
        for entry in self._entries(folder, prefix, left_out):
            name = prefix + entry.name
            if _is_folder(entry):
                inner = left_out or housekeeping(entry.name) is not None
                if not (inner and entry.is_symlink()):
                    self.list(entry.path, f"{name}/", (*parents, identity), left_out=inner)
            elif _is_file(entry):
                self.files.append(name)
            # a dangling link counts as an image that cannot be read; a pipe or a device is not a file
            elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
                self.files.append(name)
                self.dangling.append(name)
            else:
                self.not_files.append(name)

    def _entries(self, folder: str, prefix: str, left_out: bool) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(folder) as entries:
                yield from entries
        except PermissionError as err:
            if not left_out:
                raise DataError(f"the folder {folder!r} cannot be listed: {err.strerror}") from err
            self.notes.append(f"the housekeeping folder {prefix.rstrip('/')!r} is closed, so its files are not counted")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    # a link that leads round is an error for the system
    with contextlib.suppress(OSError):
        return entry.is_dir()
    return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    with contextlib.suppress(OSError):
        return entry.is_file()
    return False
