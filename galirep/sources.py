"""Image sources: lists of images that any process can read one by one in any order; image files in a folder, a tar or a list."""

import hashlib
import json
import os
import posixpath
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galirep.errors import DataError
from galirep.images import Pixels, one_line, read_image

Labels = NDArray[np.int64]

IMAGE_TYPES = frozenset(".bmp .gif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
SPLITS = ("train", "val", "test")

HASHED_BYTES = 1 << 28
HASHED_IMAGES = 1024


class ImageSource(ABC):
    """A list of images that can be read one by one, in any order, from any process: picklable, and files are opened where they are read.

    `ids` name the images, each once; `labels` is (N,) int64 with -1 for none, or None where the set has no labels; `label_names[k]` is the
    name of class k, or empty where the set names no classes. `in_memory` says that reading costs next to nothing.
    """

    in_memory = False

    def __init__(
        self, spec: str, ids: Sequence[str], labels: Labels | None = None, label_names: Sequence[str] = (), split: str | None = None
    ) -> None:
        self.spec = spec
        self.split = split
        self.ids = ids
        self.labels = labels
        self.label_names = tuple(label_names)

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def read(self, index: int) -> Pixels:
        """The image as (H, W, C) uint8, C = 1 (grey) or 3 (RGB).

        Raises:
            DataError: it is missing, truncated, empty or no image; the message names its id.
        """

    @abstractmethod
    def content(self, index: int) -> bytes:
        """What the fingerprint covers of one image; empty if it cannot be read."""

    @abstractmethod
    def sizes(self) -> list[int]:
        """The number of bytes of each image's content; -1 for one that is missing."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of the set, wherever it lies: all ids, labels, label names and byte sizes, and the content.

        The content of every image up to 256 MiB in all; of 1,024 evenly spaced images in a larger set.
        """
        sizes = self.sizes()
        labels = None if self.labels is None else self.labels.tolist()
        digest = hashlib.sha256(json.dumps([list(self.ids), labels, self.label_names, sizes]).encode())
        every = sum(sizes) <= HASHED_BYTES or len(sizes) <= HASHED_IMAGES
        for index in range(len(sizes)) if every else np.linspace(0, len(sizes) - 1, HASHED_IMAGES, dtype=int).tolist():
            digest.update(self.content(index))
        return digest.hexdigest()

    def subset(self, indices: Iterable[int]) -> "ImageSource":
        """The images at `indices`, in that order, with their ids and labels.

        Raises:
            DataError: an index is out of range or given twice.
        """
        return _Subset(self, indices)


class _Subset(ImageSource):
    def __init__(self, whole: ImageSource, indices: Iterable[int]) -> None:
        self._whole = whole
        self._indices = [int(i) for i in indices]
        for index in self._indices:
            if not 0 <= index < len(whole):
                raise DataError(f"index {index} is not in the {len(whole)} images of {whole.spec}")
        if len(set(self._indices)) < len(self._indices):
            raise DataError(f"a subset of {whole.spec} names an image twice")
        labels = None if whole.labels is None else whole.labels[self._indices]
        super().__init__(whole.spec, [whole.ids[i] for i in self._indices], labels, whole.label_names, whole.split)
        self.in_memory = whole.in_memory

    def read(self, index: int) -> Pixels:
        return self._whole.read(self._indices[index])

    def content(self, index: int) -> bytes:
        return self._whole.content(self._indices[index])

    def sizes(self) -> list[int]:
        sizes = self._whole.sizes()
        return [sizes[i] for i in self._indices]


class FileSource(ImageSource):
    """Images that are encoded files; a subclass says where their bytes are."""

    @abstractmethod
    def raw(self, index: int) -> bytes:
        """The bytes of the file; OSError if it cannot be read."""

    def read(self, index: int) -> Pixels:
        """Decode one file, see `ImageSource.read`."""
        try:
            return read_image(self.raw(index))
        except OSError as err:
            raise DataError(f"{self.ids[index]}: {err.strerror or one_line(err)}") from err
        except DataError as err:
            raise DataError(f"{self.ids[index]}: {err}") from err

    def content(self, index: int) -> bytes:
        """The bytes of the file."""
        try:
            return self.raw(index)
        except OSError:
            return b""


class PathSource(FileSource):
    """Image files by path: the files of a folder, or of a list."""

    def __init__(
        self,
        spec: str,
        folder: Path,
        paths: Sequence[str],
        ids: Sequence[str] | None = None,
        labels: Labels | None = None,
        label_names: Sequence[str] = (),
        split: str | None = None,
    ) -> None:
        super().__init__(spec, paths if ids is None else ids, labels, label_names, split)
        self._folder = str(folder)
        self._paths = paths

    def raw(self, index: int) -> bytes:
        """The bytes of the file."""
        return Path(self._folder, self._paths[index]).read_bytes()

    def sizes(self) -> list[int]:
        """The sizes of the files."""
        return [_file_size(os.path.join(self._folder, path)) for path in self._paths]  # noqa: PTH118 (a million Path objects take seconds)


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return -1


class TarSource(FileSource):
    """Image files in an uncompressed tar, read where they lie."""

    def __init__(self, spec: str, path: Path, members: dict[str, tuple[int, int]], split: str | None = None, prefix: str = "") -> None:
        ids = [name[len(prefix) :] for name in members]
        super().__init__(spec, ids, *class_labels(ids, spec), split)
        self._path = str(path)
        self._places = list(members.values())

    def raw(self, index: int) -> bytes:
        """The bytes of the member. The tar is opened anew each time: 10 us, and no handle to share between processes or to leak."""
        offset, size = self._places[index]
        with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise OSError(f"the tar ends {size - len(data)} bytes too early")
        return data

    def sizes(self) -> list[int]:
        """The sizes of the members."""
        return [size for _, size in self._places]


def open_folder(spec: str, folder: Path, split: str | None) -> ImageSource:
    """A folder of images: class subfolders, or flat; one folder per split where it has them.

    Raises:
        DataError: no images, no such split, or images beside class folders.
    """
    files = list(_walk(str(folder), "", ()))
    prefix, split, names = _layout(spec, files, split, archive=False)
    ids = [name[len(prefix) :] for name in names]
    return PathSource(spec, folder / prefix, ids, None, *class_labels(ids, spec), split)


def open_tar(spec: str, path: Path, split: str | None) -> ImageSource:
    """An uncompressed tar of such a folder.

    Raises:
        DataError: compressed, damaged, no tar, or as for `open_folder`.
    """
    with path.open("rb") as file:
        start = file.read(6)
    for magic, kind, unpack in ((b"\x1f\x8b", "gzip", "gunzip"), (b"BZh", "bzip2", "bunzip2"), (b"\xfd7zXZ", "xz", "unxz"), (b"\x28\xb5\x2f\xfd", "zstd", "unzstd")):
        if start.startswith(magic):
            raise DataError(f"{spec} is compressed ({kind}), so its images cannot be read one by one: decompress it first ({unpack} {spec})")
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = posixpath.normpath(member.name).lstrip("/")
                if member.isreg() and not member.issparse():
                    places[name] = (member.offset_data, member.size)
                elif member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname).lstrip("/")
            rooted = bool(tar.members) and all(m.name == "." or m.name.startswith("./") for m in tar.members)
            end = tar.offset
    except tarfile.TarError as err:
        raise DataError(f"{spec} is no readable tar: {one_line(err)}") from err
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a cut or damaged header for the end
            raise DataError(f"{spec} is a damaged tar: it ends after {len(places)} files without the mark of its end")
    places.update({name: places[target] for name, target in links.items() if target in places})
    prefix, split, names = _layout(spec, places, split, archive=not rooted)
    return TarSource(spec, path, {name: places[name] for name in names}, split, prefix)


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The files below a folder, relative to it; linked folders are followed, but not into themselves."""
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
            else:
                yield prefix + entry.name


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _layout(spec: str, files: Iterable[str], split: str | None, *, archive: bool) -> tuple[str, str | None, list[str]]:
    """What precedes the ids, the split that is read, and its image files in order."""
    others = set()
    images = []
    for name in files:
        if any(map(_hidden, name.split("/"))):
            continue
        kind = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if kind in IMAGE_TYPES:
            images.append(name)
        else:
            others.add(kind or "without a suffix")
    if not images:
        seen = f": its files are of other types ({', '.join(sorted(others)[:8])})" if others else ""
        raise DataError(f"{spec} holds no images{seen}; images are {' '.join(sorted(IMAGE_TYPES))}")
    prefix = ""
    tops = {name.partition("/")[0] for name in images}
    if len(tops) == 1 and tops.isdisjoint(SPLITS):
        (top,) = tops
        if top not in images and (archive or all(name.count("/") > 1 for name in images)):
            prefix = f"{top}/"
            tops = {name.split("/")[1] for name in images}
    found = [name for name in SPLITS if name in tops]
    if split is not None and split not in found:
        raise DataError(f"{spec} has no split {split!r}: " + (f"it has {', '.join(found)}" if found else "it has no splits, leave --split out"))
    if found:
        split = split or "train"
        if split not in found:
            raise DataError(f"{spec} has no split 'train': choose one with --split {'|'.join(found)}")
        prefix += f"{split}/"
    return prefix, split, sorted((name for name in images if name.startswith(prefix)), key=lambda name: name.split("/"))


def class_labels(ids: Sequence[str], spec: str) -> tuple[Labels | None, tuple[str, ...]]:
    """Labels from the first folder of each id, numbered in the order of their names; none where no id has a folder.

    Raises:
        DataError: some ids have a folder and some have none.
    """
    folders = [name.partition("/")[0] if "/" in name else None for name in ids]
    names = sorted({f for f in folders if f is not None})
    if not names:
        return None, ()
    if None in folders:
        raise DataError(f"{spec} holds images beside its class folders, such as {ids[folders.index(None)]!r} beside {names[0]!r}: move them away")
    number = {name: k for k, name in enumerate(names)}
    return np.array([number[f] for f in folders if f is not None], dtype=np.int64), tuple(names)
