"""Outputs that would destroy what a command reads, or that are no files: refused before anything is written."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from galirep.errors import ConfigError
from galirep.system.reading.files import kind_of

RUN_FILES = frozenset(
    ("config.yaml", "run.json", "train.log", "metrics.jsonl", "summary.md", "tb", "checkpoints", "samples")
    + ("export", "best")
)
"""What a run writes into its folder; anything else may be put there."""
ROWS_ENDING, SIDECAR_ENDING = ".rows.h5", ".json"
"""The endings of the files beside an index."""
_EXPORT_FILES = frozenset(("encoder.json", "README.md", "body", "galirep.json", "img_emb", "metadata"))
# what is never an image or a list of images
_RESULTS = frozenset((".h5", ".hdf5", ".html", ".json", ".faiss", ".partial"))


def require_file_or_folder(path: Path) -> None:
    """Check that an output that exists may be replaced: pipes, devices and sockets never are.

    Raises:
        ConfigError: it is one, or a link to one.
    """
    if (kind := kind_of(path)) not in (None, "a directory"):
        raise ConfigError(f"{path} is {kind}, which is never replaced: name a file")


def require_apart(outputs: Iterable[str | Path], inputs: Iterable[Any], *, whole: bool = False) -> None:
    """Check that no output is an input of the same command, or among its files; links and `..` are followed.

    An input is whatever may name a file: a path, a spec (`csv:FILE`, `run:DIR`, `RUN@best`), a list or settings with
    such; what names no path that exists is passed over. The files of an input are those that galirep wrote for it (of
    a run: `RUN_FILES`) and the images and lists of a folder. With `whole`, an output that is a folder is replaced with
    all that is in it, so that inputs in it are refused too.

    Raises:
        ConfigError: one is.
    """
    paths = {path.resolve() for value in inputs for path in _paths(value)}
    indices = [path for path in paths if Path(f"{path}{ROWS_ENDING}").exists()]
    paths |= {Path(f"{path}{ending}") for path in indices for ending in (ROWS_ENDING, SIDECAR_ENDING)}
    for output in map(Path, outputs):
        real = output.resolve()
        for path in sorted(paths):
            if _is_same(real, path) or _is_file_of(real, path) or (whole and path.is_relative_to(real)):
                named = "" if real == path else f" ({path})"
                raise ConfigError(f"{output} is an input of this command{named}: choose another output")


def _paths(value: Any) -> Iterator[Path]:
    """Yield the paths that exist of what a value may name."""
    if isinstance(value, str | Path):
        text = os.fspath(value)
        # spec:PATH, RUN@best
        for part in {text, text.partition(":")[2]}:
            for name in {part, part.rpartition("@")[0], part.partition("?")[0]}:
                if name and "\0" not in name and os.path.exists(name):  # noqa: PTH110
                    yield Path(name)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _paths(vars(value))
    else:
        # sources and subjects say what they were opened from
        yield from _paths(tuple(text for text in (getattr(value, "spec", None),) if isinstance(text, str)))


def _is_same(output: Path, path: Path) -> bool:
    return output == path or (output.exists() and path.exists() and output.samefile(path))


def _is_file_of(output: Path, path: Path) -> bool:
    """Return whether an output is among the files of the run, export or set of images that an input is, or is in."""
    for folder in output.parents:
        if _is_run(folder) and path.is_relative_to(folder):
            return output.relative_to(folder).parts[0] in RUN_FILES
    if not path.is_dir() or not output.is_relative_to(path) or not output.exists():
        return False
    first = output.relative_to(path).parts[0]
    if (path / "encoder.json").exists() or (path / "galirep.json").exists() or any(path.glob("*.safetensors")):
        return first in _EXPORT_FILES or output.suffix == ".safetensors"
    return output.is_file() and output.suffix.lower() not in _RESULTS and not any(map(_is_run, output.parents))


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() and (folder / "config.yaml").is_file()
