"""Checkpoint files of other programs: read without running code, and the sets of tensors that they hold, by key."""

import contextlib
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from galirep.errors import PluginError
from galirep.system.reading.files import kind_of
from galirep.system.reading.limits import require_inflated

State = Mapping[str, Tensor]
# the keys in which timm looks for a state dict, in its order
_USUAL = ("state_dict_ema", "model_ema", "state_dict", "model")
_MAX_DEPTH = 3
# "whose module X is blocked", "was not an allowed global"
_GLOBAL = re.compile(r"GLOBAL (\S+)")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a weight file: `sets` maps a key (dotted if nested, "" for the file itself) to tensors by name."""

    path: Path
    sets: Mapping[str, State]

    @property
    def usual(self) -> str | None:
        """The key that is meant if none is named: as in timm, else the only one; None if there are several."""
        for key in (*_USUAL, ""):
            if key in self.sets:
                return key
        return next(iter(self.sets)) if len(self.sets) == 1 else None

    def under(self, key: str) -> State | None:
        """Return the tensors of the set `key`, or those whose names begin with `key` or go through it; else None."""
        if key in self.sets:
            return self.sets[key]
        nested = [name for name in self.sets if name.startswith(f"{key}.")]
        if len(nested) == 1:
            return self.sets[nested[0]]
        for tensors in self.sets.values():
            found: dict[str, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                before, mark, rest = f".{name}".partition(f".{key}.")
                if mark:
                    found.setdefault(before, {})[rest] = value
            if found:
                # the prefix under which most of them are
                return max(found.values(), key=len)
        return None

    def describe(self) -> str:
        """List the sets with the first parts of their names: `student (152 tensors: backbone 150, head 2)`."""
        texts = []
        for key, tensors in self.sets.items():
            parts = Counter(name.partition(".")[0] for name in tensors)
            first = ", ".join(f"{part} {count}" for part, count in parts.most_common(4))
            rest = f" and {len(parts) - 4} more" if len(parts) > 4 else ""
            texts.append(
                f"{key or 'the file itself'} ({len(tensors)} tensor{'s' if len(tensors) > 1 else ''}: {first}{rest})"
            )
        return "; ".join(texts)


def read_checkpoint(path: Path, *, mmap: bool = False) -> Checkpoint:
    """Read the tensors of a .safetensors, .pth, .pt, .ckpt or .bin file by key and name.

    Prefixes of wrappers (`module.`, `_orig_mod.`) are removed as in timm. Beside tensors and plain values, a pickled
    file may have numpy scalars, paths and `argparse.Namespace`, which are replaced by plain values; no class or
    function that the file names is called. `mmap` reads no more than the names, where the format allows.

    Raises:
        PluginError: the file does not exist, is damaged, has other pickled objects, or no tensors by name.
    """
    if kind := kind_of(path):
        raise PluginError(f"the weight file {path} is {kind}, not a file")
    if not path.is_file():
        raise PluginError(f"the weight file {path} does not exist")
    _require_size(path)
    try:
        content = _read(path, mmap)
    # torch, safetensors and pickle raise errors of their own
    except Exception as err:
        if isinstance(err, pickle.UnpicklingError) or "weights_only" in str(err):
            named = _GLOBAL.search(str(err))
            what = f" ({named[1]})" if named else ""
            raise PluginError(
                f"{path} is refused: it contains pickled objects other than tensors{what}, which can run code"
            ) from err
        raise PluginError(f"{path} is not a readable weight file: {_first_line(err)}") from err
    if not isinstance(content, Mapping):
        raise PluginError(f"{path} is not a readable weight file: it holds a {type(content).__name__}, no dictionary")
    sets = {key: clean_state_dict(dict(tensors)) for key, tensors in _tensor_sets(content, "", 0)}
    if not sets:
        keys = ", ".join(map(str, content)) or "none"
        raise PluginError(f"{path} contains no named tensors, neither itself nor under its keys ({keys})")
    return Checkpoint(path, sets)


def _require_size(path: Path) -> None:
    """Check what a zip, as torch writes it, declares before it is unpacked.

    Raises:
        PluginError: it unpacks to far more than the file has, over the limit.
    """
    # a file of torch before 1.6 is no zip, and its tensors are read from it one after the other
    with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        require_inflated(sum(m.file_size for m in archive.infolist()), path.stat().st_size, str(path), PluginError)


def _tensor_sets(content: Mapping[Any, Any], key: str, depth: int) -> Iterator[tuple[str, State]]:
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield key, tensors
    if depth == _MAX_DEPTH:
        return
    for name, value in content.items():
        # moments of an optimizer have the parameters' shapes, but are no weights
        if isinstance(name, str) and isinstance(value, Mapping) and not name.startswith("optim"):
            yield from _tensor_sets(value, f"{key}.{name}" if key else name, depth + 1)


def _read(path: Path, mmap: bool) -> Any:
    if path.suffix == ".safetensors":
        return load_file(str(path))
    with torch.serialization.safe_globals(_SAFE):
        if mmap:
            # a file of torch before 1.6 cannot be mapped
            with contextlib.suppress(RuntimeError, ValueError):
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
        return torch.load(str(path), map_location="cpu", weights_only=True)


class _Dtype:
    """What a file says of a numpy dtype: its code and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Namespace:
    """An `argparse.Namespace` of a file, whose values nobody reads."""


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    """Return a numpy scalar of a plain kind: number, truth value or text.

    Raises:
        UnpicklingError: it is of another kind.
    """
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a numpy scalar that is not plain")
    plain = np.dtype(f"{dtype.order if dtype.order in '<>' else '='}{dtype.code}")
    if plain.kind not in "biufcSU" or plain.itemsize != len(data):
        raise pickle.UnpicklingError(f"a numpy scalar of dtype {dtype.code!r}")
    return np.frombuffer(data, plain)[0]


def _path(*parts: str) -> str:
    return "/".join(map(str, parts))


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
# what stands for a class or function that a file names: none of them is called
_SAFE: list[Any] = [
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_Namespace, "argparse.Namespace"),
    *((_path, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name in _PATHS),
]


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
