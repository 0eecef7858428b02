"""Checkpoints: one file of tensors and plain data, written atomically and read without running code from it."""

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galirep.errors import CheckpointError
from galirep.system.files import atomic_write
from galirep.system.reading.files import kind_of, parsing
from galirep.system.reading.records import check, quoted
from galirep.version import __version__

FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain data; the file that was there is kept if writing fails."""
    # torch's own writer turns a full disk into a RuntimeError of its internals
    buffer = io.BytesIO()
    torch.save({"galirep_checkpoint": FORMAT, "galirep_version": __version__, **content}, buffer)
    with atomic_write(path) as temporary:
        # `getvalue` makes no copy in CPython; where the disk is full, CPython 3.13 complains of an open `getbuffer`
        temporary.write_bytes(buffer.getvalue())


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; `check_state` says whether it is that of a certain job.

    Raises:
        CheckpointError: the file is missing, truncated, corrupt, of another program, or of a newer format.
    """
    if not path.is_file():
        kind = kind_of(path)
        raise CheckpointError(f"the checkpoint {path} {f'is {kind}, not a file' if kind else 'does not exist'}")
    with parsing(f"the checkpoint {path} is truncated or damaged", CheckpointError):
        _require_plain_zip(path)
        try:
            content = torch.load(path, map_location=device, weights_only=True)
        except pickle.UnpicklingError:
            raise CheckpointError(
                f"{path} contains more than tensors and plain data, so it is not a checkpoint of galirep"
            ) from None
        _require_plain_tensors(content, path)
    if not isinstance(content, dict) or "galirep_checkpoint" not in content:
        raise CheckpointError(f"{path} is not a checkpoint of galirep")
    content = check(content, dict[str, Any], f"the checkpoint {path}", CheckpointError, "is damaged")
    if content["galirep_checkpoint"] != FORMAT:
        version = quoted(content.get("galirep_version", "of another time")).strip("'")
        written = f"format {quoted(content['galirep_checkpoint'])} (galirep {version})"
        raise CheckpointError(f"{path} is a checkpoint of {written}; this galirep reads {FORMAT}")
    checked: dict[str, Any] = content
    return checked


def check_state(state: Mapping[str, Any], kind: type, path: Path) -> dict[str, Any]:
    """Return a checkpoint that has what a job needs of it, as the TypedDict `kind` says (see `runs.records`).

    Raises:
        CheckpointError: it has not.
    """
    checked: dict[str, Any] = check(state, kind, f"the checkpoint {path}", CheckpointError, "is damaged")
    return checked


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turn what torch raises while a state is loaded that does not fit into one line.

    Raises:
        CheckpointError: in place of such an error.
    """
    with parsing(f"the checkpoint {path} is damaged or of another run", CheckpointError):
        yield


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the moments of an Adam; its settings stay those of the job, which are the run's.

    torch takes moments of any shape and fails at the next update.

    Raises:
        ValueError: a moment is missing, or not of its weight's shape.
    """
    own = optimizer.state_dict()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, moments in state["state"].items():
        weight = weights[number]
        if missing := {"step", "exp_avg", "exp_avg_sq"} - moments.keys():
            raise ValueError(f"the optimizer has no {min(missing)} of weight {number}")
        for name, value in moments.items():
            shape = () if name == "step" else weight.shape
            if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
                raise ValueError(f"{name} of weight {number} in the optimizer is not of the shape {tuple(shape)}")
    optimizer.load_state_dict({"state": state["state"], "param_groups": own["param_groups"]})


def require_like(given: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """Check named tensors against those of a network that will take them later.

    Raises:
        ValueError: a name or shape differs.
    """
    shapes = {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in given.items()}
    if shapes != {name: tuple(value.shape) for name, value in own.items()}:
        names = [name for name in sorted({**own, **given}) if shapes.get(name) != getattr(own.get(name), "shape", None)]
        raise ValueError(f"{names[0]} is not of the shape that the network has")


def _require_plain_zip(path: Path) -> None:
    """Check sizes and checksums of the members, which torch stores without compression."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise CheckpointError(f"the checkpoint {path} is compressed, so it was not written by galirep")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise CheckpointError(f"the checkpoint {path} declares more bytes than it has")
        if damaged := archive.testzip():
            raise CheckpointError(f"the checkpoint {path} is damaged (in {damaged})")


def _require_plain_tensors(content: Any, path: Path) -> None:
    """Check that no tensor is a view that is larger than what is stored of it, or of another layout."""
    todo = [content]
    while todo:
        item = todo.pop()
        if isinstance(item, Mapping):
            todo += item.values()
        elif isinstance(item, list | tuple):
            todo += item
        elif isinstance(item, Tensor) and (
            item.layout is not torch.strided or item.numel() * item.element_size() > item.untyped_storage().nbytes()
        ):
            raise CheckpointError(f"{path} has a tensor {tuple(item.shape)} that is larger than what it stores of it")
