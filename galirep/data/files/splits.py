"""Which top-level folders are splits: train, val and test under all their names, or what the user names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from galirep.errors import ConfigError, DataError, format_list, unknown

SPLITS = ("train", "val", "test")
AUTO, NONE = "auto", "none"
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_WORDS = {**_NAMES, "dev": "val", "eval": "test", "evaluation": "test", "holdout": "test"}
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_LIKE = re.compile(rf"^({_WORD})(?:set|data|imgs|images)?(?![a-z])|(?<![a-z])({_WORD})(?:set|data)?$")


class NoSuchSplit(DataError):
    """A set has splits, but not the one that was asked for; `splits` are those it has."""

    def __init__(self, message: str, splits: Sequence[str]) -> None:
        super().__init__(message)
        self.splits = tuple(splits)


@dataclass(frozen=True)
class Choice:
    """The split to read.

    `folders` gives the folder of each split, in the order of train, val, test and others; empty without splits. `split`
    is one of its keys, or None.
    """

    split: str | None
    folders: Mapping[str, str]

    @property
    def folder(self) -> str | None:
        """The folder of the split that is read."""
        return None if self.split is None else self.folders[self.split]

    @property
    def others(self) -> list[str]:
        """The folders of the other splits."""
        return [folder for name, folder in self.folders.items() if name != self.split]


def split_name(folder: str) -> str | None:
    """Return train, val or test for a folder of that meaning (Train, valid, testing, ...); None for any other."""
    return _NAMES.get(folder.strip().casefold())


def write_splits(splits: str | Sequence[str] | None) -> str:
    """Return how splits are told as one text: `auto` (also for None), `none`, or names with commas.

    Raises:
        ConfigError: no name is given, or one is empty or no text.
    """
    if splits is None:
        return AUTO
    if not isinstance(splits, str) and not (isinstance(splits, Sequence) and all(isinstance(s, str) for s in splits)):
        raise ConfigError(f"splits {splits!r}: write 'auto', 'none', or a list of the folders that are splits")
    names = [name.strip() for name in (splits.split(",") if isinstance(splits, str) else splits)]
    if not names or "" in names:
        raise ConfigError(f"splits {splits!r}: write auto, none, or the folders that are splits, with commas")
    return ",".join(names)


def named_splits(splits: str) -> list[str] | None:
    """Return the folders that `splits` (see `write_splits`) names; None where it is `auto` or `none`."""
    return None if splits in (AUTO, NONE) else splits.split(",")


def choose_split(spec: str, folders: Mapping[str, int], split: str | None, splits: str) -> Choice:
    """Return the split to read, `train` by default.

    `folders` are the top-level folders with the number of their pictures, `splits` is `auto`, `none` or names.

    Raises:
        DataError: there is no such split, or it is not plain whether folders are splits or classes.
    """
    if splits == NONE:
        if split is not None:
            raise DataError(f"{spec} has no split {split!r}: --splits none says that it has no splits")
        return Choice(None, {})
    named = named_splits(splits)
    found = _find_splits(spec, folders) if named is None else _take_named(spec, folders, named)
    if not found:
        _require_no_likeness(spec, folders)
        if split is not None:
            raise DataError(f"{spec} has no split {split!r}: it has no splits, so leave --split out")
        return Choice(None, {})
    if named is None and split is None and len(found) == 1 and len(folders) > 1:
        ((name_of_split, folder),) = found.items()
        others = format_list(f"{name!r} ({folders[name]} images)" for name in folders if name != folder)
        raise DataError(
            f"{spec} has a folder {folder!r} that may be a split or a class, beside {others}: pass --splits none "
            f"(splits='none') to take all of them as classes, or --split {name_of_split} to read {folder!r} alone"
        )
    return Choice(_select(spec, folders, found, split), found)


def _find_splits(spec: str, folders: Mapping[str, int]) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in folders:
        name = split_name(folder)
        if name is None:
            continue
        if name in found:
            raise DataError(
                f"{spec} has two folders for the split {name}, {found[name]!r} and {folder!r}: "
                "name the folders that are splits, such as "
                f"--splits {','.join(f for f in folders if split_name(f) and f != folder)}, or pass --splits none"
            )
        found[name] = folder
    return {name: found[name] for name in SPLITS if name in found}


def _take_named(spec: str, folders: Mapping[str, int], named: Sequence[str]) -> dict[str, str]:
    by_case = {folder.casefold(): folder for folder in folders}
    taken = []
    for name in named:
        folder = name if name in folders else by_case.get(name.casefold())
        if folder is None:
            raise DataError(f"{spec}: --splits: {unknown('folder', name, folders)}")
        taken.append(folder)
    names = [split_name(folder) or folder for folder in taken]
    if len(set(names)) < len(names):
        # such as val and validation, which are two splits here
        names = taken
    found = dict(zip(names, taken, strict=True))
    return {name: found[name] for name in sorted(found, key=lambda n: SPLITS.index(n) if n in SPLITS else len(SPLITS))}


def _select(spec: str, folders: Mapping[str, int], found: Mapping[str, str], split: str | None) -> str:
    if split is None:
        split = next(iter(found)) if len(found) == 1 and next(iter(found)) not in SPLITS else "train"
    by_folder = {folder: name for name, folder in found.items()}
    for name in (split, by_folder.get(split), split_name(split)):
        if name is not None and name in found:
            return name
    hint = ""
    if split in folders:
        hint = f"; to take the folder {split!r} as one, pass --splits {','.join([*found.values(), split])}"
    raise NoSuchSplit(f"{spec} has no split {split!r}: its splits are {', '.join(found)}{hint}", list(found))


def _require_no_likeness(spec: str, folders: Mapping[str, int]) -> None:
    """Raise if two folders look like different splits, such as train2017 and val2017, but are not named so."""
    like = {}
    for folder in folders:
        if found := _LIKE.search(folder.casefold()):
            like[folder] = _WORDS[found[1] or found[2]]
    if len(set(like.values())) > 1:
        raise DataError(
            f"the folders {format_list(map(repr, like))} of {spec} look like splits, but splits are called train, val "
            f"and test: pass --splits {','.join(like)} to take them so, or --splits none to take them as classes"
        )
