"""From a listing of file paths to images, splits, ids and classes, by the rules of docs/data.md."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from galirep.data.files.formats import image_types, is_picture, is_unread_photo, type_of, unread
from galirep.data.files.listing import Listing, SortedFiles, sort_out
from galirep.data.files.splits import AUTO, Choice, choose_split, named_splits, split_name
from galirep.data.labels import equal_as_read
from galirep.data.report import LeftOut
from galirep.data.sources import Labels
from galirep.errors import DataError, format_list


@dataclass(frozen=True)
class FileIndex:
    """The images in a listing of files.

    `prefix` is what precedes the ids in the listing: a leading folder that is skipped, the folder of the split, both or
    nothing. `labels` and `label_names` are as in `ImageSource`, the other fields as in `DataReport`.
    """

    prefix: str
    split: str | None
    ids: list[str]
    labels: Labels | None
    label_names: tuple[str, ...]
    splits: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    classes_lost: tuple[str, ...] = ()
    other_files: Mapping[str, int] = field(default_factory=dict)


def index_files(spec: str, listing: Listing, split: str | None, splits: str = AUTO, *, archive: bool) -> FileIndex:
    """Find the images of a listing, and their split, ids and classes.

    `splits` is `auto`, `none`, or the folders that are splits, with commas. `archive` says that the listing may consist
    of one leading folder, as that of a tar usually does.

    Raises:
        DataError: there are no images or no such split, it is not plain what is a split, a class has images of unread
            types only, there are images beside class folders, two class folders have names that are equal as a reader
            sees them (`labels.as_read`), or a name is not UTF-8.
    """
    files = sort_out(spec, listing)
    _require_images(spec, files)
    # a photograph of an unread type may be all that a class has, but one beside the class folders says nothing
    seen = [*files.images, *(name for name in files.photos if "/" in name)]
    leading = _leading_folder(seen, _tops_left_out(files), splits, archive=archive)
    tops = Counter(_first_part(name, leading) for name in seen if "/" in name.removeprefix(leading))
    choice = choose_split(spec, dict(sorted(tops.items())), split, splits)
    prefix = leading if choice.folder is None else f"{leading}{choice.folder}/"
    ids = [name.removeprefix(prefix) for name in files.images if name.startswith(prefix)]
    ids.sort(key=lambda name: name.split("/"))
    _require_utf8(spec, ids)
    _require_classes(spec, ids, [name.removeprefix(prefix) for name in files.photos if name.startswith(prefix)])
    if not ids:
        raise DataError(f"the split {choice.split!r} of {spec} has no images of a type that is read")
    labels, label_names = _label_by_folder(spec, ids)
    lost = [] if labels is None else _classes_lost(files, prefix, label_names)
    return FileIndex(
        prefix,
        choice.split,
        ids,
        labels,
        label_names,
        tuple(choice.folders),
        tuple(_left_out(files, leading, prefix, choice)),
        (*listing.notes, *_notes(spec, listing, files, ids, (leading, prefix), choice, splits, label_names)),
        tuple(lost),
        dict(sorted(Counter(type_of(name) or "without a type" for name in files.others).items())),
    )


def _require_images(spec: str, files: SortedFiles) -> None:
    if files.images:
        return
    left = [f"{len(names)}: {reason}" for reason, names in files.left.items()]
    by_type = Counter(map(type_of, files.photos))
    left += [f"{count}: {unread(ending)}" for ending, count in by_type.items()]
    why = f"; pictures left out, {'; '.join(left)}" if left else ""
    types = sorted({type_of(name) or "without a type" for name in files.others})
    others = f" (its files are {', '.join(types[:8])})" if types else ""
    raise DataError(f"{spec} has no images{others}{why}: images are {_types_in_words()}")


def _types_in_words() -> str:
    common = [ending for ending in (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif") if ending in image_types()]
    return f"{' '.join(common)} and {len(image_types()) - len(common)} other types that Pillow reads"


def _first_part(name: str, prefix: str = "") -> str:
    return name.removeprefix(prefix).partition("/")[0]


def _tops_left_out(files: SortedFiles) -> set[str]:
    """Return the top-level folders with pictures that are left out, but for those that are left out themselves."""
    names = [name for left in files.left.values() for name in left if "/" in name]
    return {_first_part(name) for name in names if _first_part(name) != files.within[name]}


def _leading_folder(images: Sequence[str], others: set[str], splits: str, *, archive: bool) -> str:
    """Return the one folder that contains all pictures, with `/`, if it is to be skipped; otherwise an empty text.

    `others` are top-level folders whose pictures are left out: beside one of them a folder is a class. In a folder it
    is skipped only if it contains folders itself: a folder with one class subfolder is a set of one class. The folder
    of a split is never skipped.
    """
    top = min(_first_part(name) for name in images)
    tops = {*(_first_part(name) for name in images), *others}
    named = named_splits(splits)
    is_split = (splits == AUTO and split_name(top) is not None) or (named is not None and top in named)
    if len(tops) > 1 or is_split or top in images:
        return ""
    if archive or all(name.count("/") > 1 for name in images):
        return f"{top}/"
    return ""


def _require_utf8(spec: str, ids: Sequence[str]) -> None:
    for name in ids:
        if not name.isascii() and name != name.encode(errors="replace").decode():
            raise DataError(f"{spec}: the file name {name!r} is not UTF-8, so it cannot be an id: rename it")


def _require_classes(spec: str, ids: Sequence[str], photos: Sequence[str]) -> None:
    """Raise if a class, or a split without classes, has photographs of unread types only."""
    read = {_first_part(name) for name in ids if "/" in name}
    if ids and not read:
        return
    lost = Counter(_first_part(name) for name in photos if "/" in name and _first_part(name) not in read)
    if not lost:
        return
    name, count = lost.most_common(1)[0]
    types = sorted({type_of(photo) for photo in photos if photo.startswith(f"{name}/")})
    others = f" (and so for {len(lost) - 1} other classes)" if len(lost) > 1 else ""
    raise DataError(
        f"none of the {count} pictures of the class {name!r} of {spec} are read, their types are {', '.join(types)}"
        f"{others}: convert them, to .png or .jpg, or take the folder out"
    )


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
    if alike := equal_as_read(names):
        raise DataError(
            f"{spec} has class folders that are equal as a reader sees them, {' and '.join(map(ascii, alike))}: "
            "merge them into one folder or rename one"
        )
    number = {name: k for k, name in enumerate(names)}
    return np.array([number[folder] for folder in folders], dtype=np.int64), tuple(names)


def _classes_lost(files: SortedFiles, prefix: str, label_names: Sequence[str]) -> list[str]:
    """Return the class folders that have pictures, all of which were left out."""
    lost = set()
    for names in files.left.values():
        for name in names:
            inner = name.removeprefix(prefix)
            top = f"{prefix}{_first_part(inner)}"
            # a class that is itself the housekeeping folder or run is none
            if name.startswith(prefix) and "/" in inner and not f"{top}/".startswith(f"{files.within[name] or '?'}/"):
                lost.add(_first_part(inner))
    return sorted(lost - set(label_names))


def _left_out(files: SortedFiles, leading: str, prefix: str, choice: Choice) -> Iterator[LeftOut]:
    """Yield what is left out of the split that is read; the other splits are not left out, but not asked for."""
    others = tuple(f"{leading}{folder}/" for folder in choice.others)
    left = {reason: [name for name in names if not name.startswith(others)] for reason, names in files.left.items()}
    beside: dict[str, list[str]] = {}
    for name in sorted([*files.images, *files.photos]):
        is_folder = "/" in name.removeprefix(leading)
        if name.startswith(prefix) or (is_unread_photo(name) and not is_folder):
            if is_unread_photo(name):
                left.setdefault(unread(type_of(name)), []).append(name)
        elif not name.startswith(others):
            top = _first_part(name, leading)
            reason = f"folder {top!r} is beside the split folders" if is_folder else "beside the split folders"
            beside.setdefault(reason, []).append(name)
    for reason, names in [*beside.items(), *left.items()]:
        if names:
            yield LeftOut.of(reason, names)


def _notes(
    spec: str,
    listing: Listing,
    files: SortedFiles,
    ids: Sequence[str],
    prefixes: tuple[str, str],
    choice: Choice,
    splits: str,
    label_names: Sequence[str],
) -> Iterator[str]:
    leading, prefix = prefixes
    # mnist.tar of the folder mnist/ is what everybody expects
    if leading and PurePosixPath(spec).stem != leading.rstrip("/"):
        beside = sorted({_first_part(name) for name in files.others if "/" in name} - {leading.rstrip("/")})
        without = f", beside {format_list(map(repr, beside))} without images," if beside else ""
        yield f"the one folder {leading.rstrip('/')!r} around all images{without} is skipped: it is not read as a class"
    if choice.split is not None and choice.folder not in (choice.split, None):
        yield f"the folder {choice.folder!r} is read as the split {choice.split}"
    for name in named_splits(splits) or ():
        if name not in choice.folders.values():
            folder = next(folder for folder in choice.folders.values() if folder.casefold() == name.casefold())
            yield f"--splits names {name!r}, the folder is {folder!r}: they differ in upper and lower case"
    if dangling := sorted(name for name in listing.dangling if not is_picture(name)):
        yield f"links that lead nowhere: {format_list(dangling)}"
    if label_names:
        tops = {_first_part(name, prefix) for name in files.others if "/" in _inner(name, prefix)}
        if empty := sorted(tops - set(label_names)):
            yield f"folders without images, so not classes: {format_list(map(repr, empty))}"
        nested = {name.split("/")[1] for name in ids if name.count("/") > 1}
        if nested := {folder for folder in nested if split_name(folder)}:
            yield f"folders {format_list(sorted(nested))} inside the class folders are not read as splits"


def _inner(name: str, prefix: str) -> str:
    return name.removeprefix(prefix) if name.startswith(prefix) else ""
