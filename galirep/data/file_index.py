"""From a listing of file paths to images, splits, ids and classes, by the rules of docs/data.md."""

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from galirep.data.sources import Labels
from galirep.errors import DataError

IMAGE_TYPES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class FileIndex:
    """The images in a listing of files.

    `prefix` is what precedes the ids in the listing: a leading folder that is skipped, the folder of the split, both or
    nothing. `labels` and `label_names` are as in `ImageSource`.
    """

    prefix: str
    split: str | None
    ids: list[str]
    labels: Labels | None
    label_names: tuple[str, ...]


def index_files(spec: str, files: Iterable[str], split: str | None, *, archive: bool) -> FileIndex:
    """Find the images among `files` (paths with `/`), and their split, ids and classes.

    `archive` says that the listing may consist of one leading folder, as that of a tar usually does.

    Raises:
        DataError: there are no images or no such split, there are images beside class folders, or a name is not UTF-8.
    """
    images = _select_images(spec, files)
    leading = _leading_folder(images, archive=archive)
    split = _choose_split(spec, {_first_part(name, leading) for name in images}, split)
    prefix = leading if split is None else f"{leading}{split}/"
    ids = [name.removeprefix(prefix) for name in images if name.startswith(prefix)]
    ids.sort(key=lambda name: name.split("/"))
    _require_utf8(spec, ids)
    labels, label_names = _label_by_folder(spec, ids)
    return FileIndex(prefix, split, ids, labels, label_names)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is ignored with all its content."""
    return name.startswith(".") or name == "__MACOSX"


def _select_images(spec: str, files: Iterable[str]) -> list[str]:
    """Return the visible image files; raise if there are none, naming the types of the other files."""
    images: list[str] = []
    other_types: set[str] = set()
    for name in files:
        if any(map(is_hidden, name.split("/"))):
            continue
        suffix = posixpath.splitext(name)[1].lower()
        if suffix in IMAGE_TYPES:
            images.append(name)
        else:
            other_types.add(suffix or "without a type")
    if not images:
        others = f" (its files are {', '.join(sorted(other_types)[:8])})" if other_types else ""
        raise DataError(f"{spec} has no images{others}: images are {' '.join(IMAGE_TYPES)}")
    return images


def _first_part(name: str, prefix: str = "") -> str:
    return name.removeprefix(prefix).partition("/")[0]


def _leading_folder(images: Sequence[str], *, archive: bool) -> str:
    """Return the one folder that contains everything, with `/`, if it is to be skipped; otherwise an empty text.

    In a folder it is skipped only if it contains folders itself: a folder with one class subfolder is a set of one
    class. The folder of a split is never skipped.
    """
    tops = {_first_part(name) for name in images}
    if len(tops) > 1 or not tops.isdisjoint({*SPLITS, *images}):
        return ""
    if archive or all(name.count("/") > 1 for name in images):
        return f"{tops.pop()}/"
    return ""


def _choose_split(spec: str, tops: set[str], split: str | None) -> str | None:
    """Return the split to read, `train` by default; None where no top folder is one of `SPLITS`."""
    splits = [name for name in SPLITS if name in tops]
    if not splits:
        if split is not None:
            raise DataError(f"{spec} has no split {split!r}: it has no splits, so leave --split out")
        return None
    split = split or "train"
    if split not in splits:
        raise DataError(f"{spec} has no split {split!r}: its splits are {', '.join(splits)}")
    return split


def _require_utf8(spec: str, ids: Sequence[str]) -> None:
    for name in ids:
        if not name.isascii() and name != name.encode(errors="replace").decode():
            raise DataError(f"{spec}: the file name {name!r} is not UTF-8, so it cannot be an id: rename it")


def _label_by_folder(spec: str, ids: Sequence[str]) -> tuple[Labels | None, tuple[str, ...]]:
    """Return labels by the first folder of each id, numbered by name, and the names; no labels without folders."""
    folders = [_first_part(name) if "/" in name else "" for name in ids]
    names = sorted(set(folders))
    if names == [""]:
        return None, ()
    if names[0] == "":
        stray = ids[folders.index("")]
        raise DataError(
            f"{spec} has images beside its class folders, such as {stray!r} beside {names[1]!r}: "
            "move them into a class folder"
        )
    number = {name: k for k, name in enumerate(names)}
    return np.array([number[folder] for folder in folders], dtype=np.int64), tuple(names)
