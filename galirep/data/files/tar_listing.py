"""What an uncompressed tar holds, by name: places of files, links followed inside it, and all that is no file."""

import posixpath
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from galirep.errors import DataError, format_list
from galirep.system.reading.files import parsing, require_regular

_MAX_LINKS = 40  # that one name may lead through, as in Linux
_BLOCK = 1 << 20


@dataclass
class TarListing:
    """The files in a tar.

    `places` are the offset and size of each by its name, links to it included; `unreadable` the reason for files and
    links without a place; `not_files` pipes, devices and members of unknown kinds; `replaced` members that a later one
    of the same name replaces; `outside` members whose names lead out of the tar; `renamed` the names under which those
    with others are read. `rooted` says that every name begins with `./`: the tar has the content of a folder, not
    the folder itself.
    """

    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    not_files: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rooted: bool = True


def list_tar(spec: str, path: Path) -> TarListing:
    """List the members of a tar.

    Raises:
        DataError: it is not a tar, is damaged, or goes on after its end.
    """
    members = _Members()
    listing = TarListing()
    require_regular(path, spec, DataError)
    with parsing(f"{spec} is not a readable tar", DataError), tarfile.open(path, "r:", tarinfo=_Member) as tar:
        for member in tar:
            listing.rooted = listing.rooted and (member.name == "." or member.name.startswith("./"))
            if member.size < 0:
                raise DataError(f"{spec} is a damaged tar: {member.name[:100]!r} declares {member.size} bytes")
            _add(members, member, listing)
        end = tar.offset
    _require_end(spec, path, end, len(members.files))
    members.walk("", "", (), listing)
    if renamed := listing.renamed:
        first = format_list((f"{old!r} as {new!r}" for old, new in renamed.items()), 3)
        listing.notes.append(f"members whose names begin with '/' or have '..' are read under other names: {first}")
    return listing


class _Member(tarfile.TarInfo):
    """A member whose header does not declare a negative size, which would lead tarfile round for ever."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:
            raise tarfile.HeaderError("a member has a negative size")
        return member


def _add(members: "_Members", member: tarfile.TarInfo, listing: TarListing) -> None:
    name = posixpath.normpath(member.name).lstrip("/")
    if name in ("", "."):
        return
    if name == ".." or name.startswith("../"):
        listing.outside.append(name)
        return
    if not member.isdir() and (member.name.startswith("/") or ".." in member.name.split("/")):
        listing.renamed[member.name] = name
    folder, _, file = name.rpartition("/")
    if members.links and folder:
        # a member below the name of a link is where the link leads
        real = members.resolve(folder, missing=True)
        if real is None:
            listing.unreadable[name] = f"its folder {folder!r} is a link that leads nowhere"
            return
        name = f"{real}/{file}" if real else file
    if members.forget(name):
        listing.replaced.append(name)
    if member.isdir():
        members.folder(name)
        return
    members.folder(posixpath.dirname(name)).add(posixpath.basename(name))
    if member.isreg() and not member.issparse():
        members.files[name] = (member.offset_data, member.size)
    elif member.isreg() or member.issparse():
        members.bad[name] = "stored as a sparse file, which is not read: make the tar without --sparse"
    elif member.issym():
        members.links[name] = member.linkname
    elif member.islnk():
        # the name of another member, from the root of the tar
        members.links[name] = f"/{member.linkname}"
    else:
        members.special.add(name)


def _require_end(spec: str, path: Path, end: int, files: int) -> None:
    """Raise unless the tar ends with zeros, to the last byte of the file.

    tarfile stops, without an error, at a truncated or damaged header and at the first block of zeros.
    """
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{spec} is a damaged tar: it breaks off after {files} files")
        while block := file.read(_BLOCK):
            if block.strip(b"\0"):
                raise DataError(
                    f"{spec} goes on after the end of its first tar, at byte {end}: it is of several tars that were "
                    "joined byte by byte; join them with tar --concatenate, or unpack them with tar --ignore-zeros -xf"
                )


class _Members:
    """The members of a tar as a tree in which links are followed."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, int]] = {}
        self.links: dict[str, str] = {}
        self.bad: dict[str, str] = {}
        self.special: set[str] = set()
        self.folders: dict[str, set[str]] = {"": set()}

    def folder(self, name: str) -> set[str]:
        """Return the names in a folder, after making it and those above it."""
        if name not in self.folders:
            self.folders[name] = set()
            self.folder(posixpath.dirname(name)).add(posixpath.basename(name))
        return self.folders[name]

    def forget(self, name: str) -> bool:
        """Forget the file or link of this name; return whether there was one."""
        known = [kind for kind in (self.files, self.links, self.bad) if name in kind]
        for kind in known:
            del kind[name]
        self.special.discard(name)
        return bool(known)

    def resolve(self, name: str, *, missing: bool = False) -> str | None:
        """Follow the links in a name to a file or folder; None if it leads out of the tar, nowhere or round.

        `missing` allows names that are not in the tar, or not yet.
        """
        here, parts, links = "", name.split("/"), 0
        while parts:
            part = parts.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                if not here:
                    return None
                here = posixpath.dirname(here)
                continue
            step = f"{here}/{part}" if here else part
            target = self.links.get(step)
            if target is None:
                if not missing and not any(step in kind for kind in (self.files, self.bad, self.special, self.folders)):
                    return None
                here = step
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            if target.startswith("/"):
                here = ""
            parts = [*target.split("/"), *parts]
        return here

    def walk(self, folder: str, prefix: str, parents: tuple[str, ...], listing: TarListing) -> None:
        """List a folder under the name `prefix`; links are not followed into one of the `parents`."""
        if folder in parents:
            listing.notes.append(f"the link {prefix.rstrip('/')!r} leads to a folder above it and is not followed")
            return
        for part in sorted(self.folders[folder]):
            member = f"{folder}/{part}" if folder else part
            name, place = prefix + part, self.resolve(member)
            if member in self.links and place is None:
                target = self.links[member].lstrip("/") if self.links[member].startswith("/") else self.links[member]
                listing.unreadable[name] = f"a link to {target!r}, which is not in the tar"
            if place is not None:
                self._list_member(place, name, (*parents, folder), listing)

    def _list_member(self, place: str, name: str, parents: tuple[str, ...], listing: TarListing) -> None:
        if place in self.files:
            listing.places[name] = self.files[place]
        elif place in self.bad:
            listing.unreadable[name] = self.bad[place]
        elif place in self.special:
            listing.not_files.append(name)
        else:
            self.walk(place, f"{name}/", parents, listing)
