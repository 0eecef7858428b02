"""Tars of images: reading images in a tar without unpacking it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from galirep.data.files.folders import is_run, report_of
from galirep.data.files.formats import is_image, is_picture
from galirep.data.files.index import index_files
from galirep.data.files.listing import Listing
from galirep.data.files.tar_listing import list_tar
from galirep.data.sources import FileSource, ImageSource, Labels
from galirep.errors import DataError
from galirep.metrics.arrays import Ints

# the first bytes of a file, what it is, and the command that unpacks it to standard output or, with {}, to a folder
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip -c"),
    b"\x1f\x9d": ("compress", "uncompress -c"),
    b"BZh": ("bzip2", "bunzip2 -c"),
    b"\xfd7zXZ": ("xz", "unxz -c"),
    b"]\x00\x00": ("lzma", "unlzma -c"),
    b"LZIP": ("lzip", "lzip -dc"),
    b"(\xb5/\xfd": ("zstd", "unzstd -c"),
    b"\x04\x22M\x18": ("lz4", "unlz4 -c"),
    b"PK\x03\x04": ("zip", "unzip {file} -d {folder}"),
    b"7z\xbc\xaf": ("7z", "7z x {file} -o{folder}"),
    b"Rar!": ("rar", "unrar x {file} {folder}/"),
}
_ENDINGS = (
    *(".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".lzma", ".lz", ".zst", ".tzst", ".lz4"),
    *(".zip", ".7z", ".rar", ".z"),
)


class TarSource(FileSource):
    """Image files in an uncompressed tar, read without unpacking; `places` is (N, 2), the offset and size of each.

    `unreadable` has the reason for each image that has no place, by its index.
    """

    def __init__(
        self,
        spec: str,
        path: Path,
        places: Ints,
        ids: Sequence[str],
        labels: Labels | None = None,
        label_names: Sequence[str] = (),
        split: str | None = None,
        unreadable: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(spec, ids, labels, label_names, split)
        self._path = path
        self._places = places
        self._unreadable = dict(unreadable or {})

    def raw(self, index: int) -> bytes:
        """Read the bytes of a member.

        The tar is opened anew each time, so that no handle is shared between processes or leaks.
        """
        if index in self._unreadable:
            raise OSError(self._unreadable[index])
        offset, size = map(int, self._places[index])
        with self._path.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise OSError(f"{self._path} ends {size - len(data)} bytes too early")
        return data

    def sizes(self) -> list[int]:
        """Return the sizes of the members in bytes; -1 for one that cannot be read."""
        sizes: list[int] = self._places[:, 1].tolist()
        return sizes


def open_tar(spec: str, path: Path, split: str | None, splits: str) -> ImageSource:
    """Open an uncompressed tar of a folder that `open_folder` reads.

    Raises:
        DataError: the file is compressed, damaged, several tars or not a tar, or as for `index_files`.
    """
    _require_tar(spec, path)
    listed = list_tar(spec, path)
    files = [*listed.places, *listed.unreadable]

    def read(name: str) -> bytes:
        offset, size = listed.places.get(name, (0, 0))
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    listing = Listing(
        files,
        listed.not_files,
        listed.replaced,
        list(listed.unreadable),
        listed.notes,
        listed.outside,
        is_run=lambda name: is_run(name, read),
    )
    index = index_files(spec, listing, split, splits, archive=not listed.rooted)
    names = [index.prefix + name for name in index.ids]
    places = np.array([listed.places.get(name, (0, -1)) for name in names], dtype=np.int64)
    unreadable = {i: listed.unreadable[name] for i, name in enumerate(names) if name in listed.unreadable}
    source = TarSource(spec, path, places, index.ids, index.labels, index.label_names, index.split, unreadable)
    source.splits = splits
    source.tell(report_of(index))
    return source


def _require_tar(spec: str, path: Path) -> None:
    """Raise for files that are often given instead of a tar: images and compressed tars."""
    if is_image(path.name):
        raise DataError(f"{spec} is one image, not a set: name a folder, a .tar, or csv:FILE with a list of images")
    if is_picture(path.name):
        raise DataError(f"{spec} is a picture of type {path.suffix.lower()}, which this Pillow does not read")
    with path.open("rb") as file:
        start = file.read(6)
    for magic, (kind, command) in _COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(
                f"{spec} is {kind}-compressed, so its images cannot be read one by one: unpack it, "
                f"{_write_command(command, path)}"
            )


def _write_command(command: str, path: Path) -> str:
    ending = path.suffix.lower()
    stem = path.with_suffix("") if ending in _ENDINGS else path.with_name(f"{path.name}-unpacked")
    if "{" in command:
        return command.format(file=shlex.quote(str(path)), folder=shlex.quote(str(stem)))
    tar = stem if stem.suffix == ".tar" else stem.with_name(f"{stem.name}.tar")
    return f"{command} {shlex.quote(str(path))} > {shlex.quote(str(tar))}"
