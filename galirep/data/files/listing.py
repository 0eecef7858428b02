"""The files below a folder or in a tar, sorted into images, other pictures, other files and what is left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from galirep.data.files.formats import is_drawing, is_image, is_picture, is_unread_photo, type_of, unread
from galirep.errors import DataError

# folders that systems and programs make beside the images: NAS indexes, thumbnails, waste baskets, caches
_HOUSEKEEPING = frozenset(
    {
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "synophoto_thumb"),
        *("__macosx", "__pycache__", "lost+found", "$recycle.bin", "system volume information"),
    }
)
_HIDDEN = "hidden file or folder, its name begins with a dot"


@dataclass(frozen=True)
class Listing:
    """The files below a folder or in a tar, as paths with `/`, hidden ones and those in housekeeping folders included.

    `not_files` are pipes and devices, `replaced` the members of a tar that a later one of the same name replaces, and
    `dangling` links that lead nowhere; `outside` members of a tar whose names lead out of it; `is_run` says of a folder
    with a run.json whether galirep wrote it.
    """

    files: Sequence[str]
    not_files: Sequence[str] = ()
    replaced: Sequence[str] = ()
    dangling: Sequence[str] = ()
    notes: Sequence[str] = ()
    outside: Sequence[str] = ()
    is_run: Callable[[str], bool] = field(default=lambda _: False)


def housekeeping(name: str) -> str | None:
    """Return the reason why a file or folder of this name is left out with all its content; None if it is not."""
    if name.startswith("."):
        return _HIDDEN
    return f"housekeeping folder {name}" if name.casefold() in _HOUSEKEEPING else None


@dataclass
class SortedFiles:
    """The files of a listing by kind; `left` has names by reason, `within` the folder that is the reason."""

    images: list[str] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)
    within: dict[str, str] = field(default_factory=dict)

    def leave(self, reason: str, name: str, folder: str = "") -> None:
        """Leave a picture out, because of `folder` if it is given."""
        self.left.setdefault(reason, []).append(name)
        self.within[name] = folder


def sort_out(spec: str, listing: Listing) -> SortedFiles:
    """Sort the files of a listing by what is done with them.

    Raises:
        DataError: the listing is that of a run of galirep.
    """
    found, runs = SortedFiles(), _runs(listing)
    if "" in runs:
        raise DataError(f"{spec} is a run of galirep, not a set of images: name a folder of images in it")
    causes: dict[str, tuple[str, str] | None] = {}
    for name in sorted(listing.files):
        folder, _, file = name.rpartition("/")
        if folder not in causes:
            causes[folder] = _cause(folder, runs)
        cause = causes[folder] or ((_HIDDEN, name) if file.startswith(".") else None)
        if cause is not None:
            if is_picture(name):
                found.leave(cause[0], name, cause[1])
        elif is_image(name):
            found.images.append(name)
        elif is_unread_photo(name):
            found.photos.append(name)
        elif is_drawing(name):
            found.leave(unread(type_of(name)), name)
        else:
            found.others.append(name)
    for name in sorted(listing.not_files):
        if is_picture(name):
            found.leave("pipe or device, not a file", name)
    for name in sorted(listing.replaced):
        if is_picture(name):
            found.leave("earlier copy of a file that occurs twice, the last one counts", name)
    for name in sorted(listing.outside):
        if is_picture(name):
            # the folder `..` is the reason, so it is no class that is lost
            found.leave("its name leads out of the tar", name, "..")
    return found


def _runs(listing: Listing) -> set[str]:
    """Return the folders that hold a run of galirep."""
    names = set(listing.files)
    folders = {name.rpartition("/")[0] for name in names if name.rpartition("/")[2] == "run.json"}
    return {
        folder
        for folder in folders
        if (f"{folder}/config.yaml" if folder else "config.yaml") in names and listing.is_run(folder)
    }


def _cause(folder: str, runs: set[str]) -> tuple[str, str] | None:
    """Return why a folder is left out, and which of its parents is the reason."""
    path = ""
    for part in folder.split("/") if folder else ():
        path = f"{path}/{part}" if path else part
        if (reason := housekeeping(part)) is not None:
            return reason, path
        if path in runs:
            return f"run of galirep {path!r}", path
    return None
