"""A copy of the samples that is put right after each attempt, which tells what the attempt left."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path


class Stage:
    """A folder with a copy of `samples`. A file is taken for changed if its size, inode or time of change differs."""

    def __init__(self, samples: Path, folder: Path) -> None:
        self.samples, self.folder = samples, folder
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(samples, folder)
        self._sound = dict(_files(folder))

    def restore(self, damaged: str = "") -> set[str]:
        """Put the folder right again, the file `damaged` in any case; return the names of the files that were new."""
        found = dict(_files(self.folder))
        new = set(found) - set(self._sound)
        for name in new:
            (self.folder / name).unlink()
        for name, state in self._sound.items():
            if name == damaged or found.get(name) != state:
                path = self.folder / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                # the time of change is that of the sample, which no attempt can set again
                shutil.copy2(self.samples / name, path)
                self._sound[name] = _state(path.lstat())
        self._remove_new_folders()
        return new

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_new_folders(self) -> None:
        for root, _, _ in os.walk(self.folder, topdown=False):
            if not (self.samples / Path(root).relative_to(self.folder)).is_dir():
                shutil.rmtree(root)


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_ino, status.st_mtime_ns


def _files(folder: Path, prefix: str = "") -> Iterator[tuple[str, tuple[int, int, int]]]:
    with os.scandir(folder / prefix) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _files(folder, f"{name}/")
            else:
                yield name, _state(entry.stat(follow_symlinks=False))
