"""Folders and tars of images, and CSV lists: which files are images, their splits, ids and labels."""

import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from galirep.data.picture import one_line
from galirep.data.sources import FileSource, ImageSource, Labels, PathSource
from galirep.errors import DataError

IMAGE_TYPES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "val", "test")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7z",
}


class TarSource(FileSource):
    """Image files in an uncompressed tar, read where they lie: `places` is (N, 2), the offset and size of each."""

    def __init__(
        self,
        spec: str,
        path: Path,
        places: NDArray[np.int64],
        ids: Sequence[str],
        labels: Labels | None = None,
        label_names: Sequence[str] = (),
        split: str | None = None,
    ) -> None:
        super().__init__(spec, ids, labels, label_names, split)
        self._path = path
        self._places = places

    def raw(self, index: int) -> bytes:
        """The bytes of the member; the tar is opened anew each time, so that there is no handle to share between processes or to leak."""
        offset, size = map(int, self._places[index])
        with self._path.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise OSError(f"{self._path} ends {size - len(data)} bytes too early")
        return data

    def sizes(self) -> list[int]:
        """The sizes of the members."""
        sizes: list[int] = self._places[:, 1].tolist()
        return sizes


def open_folder(spec: str, folder: Path, split: str | None) -> ImageSource:
    """A folder of images: class subfolders, or flat; one folder for each split where it has them.

    Raises:
        DataError: no images, no such split, or images beside class folders.
    """
    found = _layout(spec, _walk(str(folder), "", ()), split, archive=False)
    return PathSource(spec, folder / found.prefix, found.ids, *class_labels(found.ids, spec), found.split)


def open_tar(spec: str, path: Path, split: str | None) -> ImageSource:
    """An uncompressed tar of such a folder.

    Raises:
        DataError: compressed, damaged, no tar, or as for `open_folder`.
    """
    with path.open("rb") as file:
        start = file.read(6)
    for magic, kind in _COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(
                f"{spec} is {kind}-compressed, so its images cannot be read one by one: unpack it, or make it a plain .tar"
            )
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    rooted = True  # every name begins with ./, so the tar holds the folder itself and no leading one
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
        raise DataError(f"{spec} is no readable tar: {one_line(err)}") from err
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(
            tarfile.BLOCKSIZE
        ):  # tarfile takes a cut or damaged header for the end
            raise DataError(f"{spec} is a damaged tar: it breaks off after {len(places)} files")
    places.update({name: places[target] for name, target in links.items() if target in places})
    found = _layout(spec, places, split, archive=not rooted)
    where = np.array([places[found.prefix + name] for name in found.ids], dtype=np.int64)
    return TarSource(spec, path, where, found.ids, *class_labels(found.ids, spec), found.split)


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The files below a folder, relative to it; linked folders are followed, but not into a folder that they lie in."""
    about = os.stat(folder)  # noqa: PTH116
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, here))
            elif (
                entry.is_file() or entry.is_symlink()
            ):  # a dangling link is an image that cannot be read; a pipe is none
                yield prefix + entry.name


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


class _Layout(NamedTuple):
    prefix: str  # of the files that are read, before their ids
    split: str | None
    ids: list[str]


def _layout(spec: str, files: Iterable[str], split: str | None, *, archive: bool) -> _Layout:
    images, others = _images(files)
    if not images:
        seen = f" (its files are {', '.join(sorted(others)[:8])})" if others else ""
        raise DataError(f"{spec} holds no images{seen}: images are {' '.join(IMAGE_TYPES)}")
    prefix = ""
    tops = {name.partition("/")[0] for name in images}
    if (
        len(tops) == 1
        and tops.isdisjoint({*SPLITS, *images})
        and (archive or all(name.count("/") > 1 for name in images))
    ):
        prefix = f"{tops.pop()}/"
        tops = {name.split("/")[1] for name in images}
    splits = [name for name in SPLITS if name in tops]
    if split is not None and not splits:
        raise DataError(f"{spec} has no split {split!r}: it has no splits, so leave --split out")
    if splits:
        split = split or "train"
        if split not in splits:
            raise DataError(f"{spec} has no split {split!r}: its splits are {', '.join(splits)}")
        prefix += f"{split}/"
    ids = sorted((name[len(prefix) :] for name in images if name.startswith(prefix)), key=lambda name: name.split("/"))
    for name in ids:
        if not name.isascii() and name != name.encode(errors="replace").decode():
            raise DataError(f"{spec}: the file name {name!r} is not UTF-8, so it cannot be an id: rename it")
    return _Layout(prefix, split, ids)


def _images(files: Iterable[str]) -> tuple[list[str], set[str]]:
    """The image files, and the types of the others."""
    images, others = [], set()
    for name in files:
        if any(map(_hidden, name.split("/"))):
            continue
        kind = posixpath.splitext(name)[1].lower()
        if kind in IMAGE_TYPES:
            images.append(name)
        else:
            others.add(kind or "without a type")
    return images, others


def class_labels(ids: Sequence[str], spec: str) -> tuple[Labels | None, tuple[str, ...]]:
    """Labels from the first folder of each id, numbered in the order of their names; none where no id has a folder.

    Raises:
        DataError: some ids have a folder and some have none.
    """
    folders = [name.partition("/")[0] if "/" in name else "" for name in ids]
    names = sorted(set(folders))
    if names == [""]:
        return None, ()
    if names[0] == "":
        stray = ids[folders.index("")]
        raise DataError(
            f"{spec} holds images beside its class folders, such as {stray!r} beside {names[1]!r}: move them away"
        )
    number = {name: k for k, name in enumerate(names)}
    return np.array([number[folder] for folder in folders], dtype=np.int64), tuple(names)
