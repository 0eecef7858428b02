"""Folders and tars of images: listing their files, and reading images in a tar without unpacking it."""

import os
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from galirep.data.file_index import index_files, is_hidden
from galirep.data.picture import one_line
from galirep.data.sources import FileSource, ImageSource, Labels, PathSource
from galirep.errors import DataError
from galirep.metrics.arrays import Ints

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7z",
}


class TarSource(FileSource):
    """Image files in an uncompressed tar, read without unpacking; `places` is (N, 2), the offset and size of each."""

    def __init__(
        self,
        spec: str,
        path: Path,
        places: Ints,
        ids: Sequence[str],
        labels: Labels | None = None,
        label_names: Sequence[str] = (),
        split: str | None = None,
    ) -> None:
        super().__init__(spec, ids, labels, label_names, split)
        self._path = path
        self._places = places

    def raw(self, index: int) -> bytes:
        """Read the bytes of a member.

        The tar is opened anew each time, so that no handle is shared between processes or leaks.
        """
        offset, size = map(int, self._places[index])
        with self._path.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise OSError(f"{self._path} ends {size - len(data)} bytes too early")
        return data

    def sizes(self) -> list[int]:
        """Return the sizes of the members in bytes."""
        sizes: list[int] = self._places[:, 1].tolist()
        return sizes


def open_folder(spec: str, folder: Path, split: str | None) -> ImageSource:
    """Open a folder of images: class subfolders or a flat folder, possibly below a folder for each split.

    Raises:
        DataError: the folder has no images or no such split, or has images beside class folders.
    """
    index = index_files(spec, _walk(str(folder), "", ()), split, archive=False)
    return PathSource(spec, folder / index.prefix, index.ids, index.labels, index.label_names, index.split)


def open_tar(spec: str, path: Path, split: str | None) -> ImageSource:
    """Open an uncompressed tar of such a folder.

    Raises:
        DataError: the file is compressed, damaged or not a tar, or as for `open_folder`.
    """
    _require_uncompressed(spec, path)
    listing = _list_tar(spec, path)
    index = index_files(spec, listing.places, split, archive=not listing.rooted)
    places = np.array([listing.places[index.prefix + name] for name in index.ids], dtype=np.int64)
    return TarSource(spec, path, places, index.ids, index.labels, index.label_names, index.split)


def _walk(folder: str, prefix: str, parents: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the visible files below a folder, relative to it.

    Linked folders are followed, but not into one of their own `parents` (device and inode of each).
    """
    status = os.stat(folder)  # noqa: PTH116
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", (*parents, identity))
            # a dangling link counts as an image that cannot be read; a pipe or a device is not a file
            elif entry.is_file() or entry.is_symlink():
                yield prefix + entry.name


def _require_uncompressed(spec: str, path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(6)
    for magic, kind in _COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(
                f"{spec} is {kind}-compressed, so its images cannot be read one by one: "
                "unpack it, or make it a plain .tar"
            )


@dataclass(frozen=True)
class _TarListing:
    """The files in a tar: the offset and size of each by its name.

    `rooted` says that every name begins with `./`: the tar has the content of a folder, not the folder itself.
    """

    places: dict[str, tuple[int, int]]
    rooted: bool


def _list_tar(spec: str, path: Path) -> _TarListing:
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    rooted = True
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                rooted = rooted and (member.name == "." or member.name.startswith("./"))
                name = posixpath.normpath(member.name).lstrip("/")
                if member.isreg() and not member.issparse():
                    places[name] = (member.offset_data, member.size)
                elif member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname).lstrip("/")
            end = tar.offset
    except tarfile.TarError as err:
        raise DataError(f"{spec} is not a readable tar: {one_line(err)}") from err
    # a tar ends with a block of zeros; tarfile also stops, without an error, at a truncated or damaged header
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{spec} is a damaged tar: it breaks off after {len(places)} files")
    places.update({name: places[target] for name, target in links.items() if target in places})
    return _TarListing(places, rooted)
