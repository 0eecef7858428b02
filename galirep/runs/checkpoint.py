"""Checkpoints: one file of tensors and plain data, written in one step and read without running code from it."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from galirep.errors import CheckpointError
from galirep.system.files import atomic_write
from galirep.version import __version__

FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain data; the file that was there survives whatever happens meanwhile."""
    buffer = io.BytesIO()  # torch's own writer turns a full disk into a RuntimeError of its internals
    torch.save({"galirep_checkpoint": FORMAT, "galirep_version": __version__, **content}, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(
            buffer.getvalue()
        )  # no copy in CPython; of `getbuffer`, open when the disk is full, CPython 3.13 complains


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, corrupt, of another program, or of a newer format.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise CheckpointError(f"the checkpoint {path} is damaged (in {damaged})")
        content = torch.load(path, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError) as err:
        raise CheckpointError(f"the checkpoint {path} is truncated or damaged: {err}") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds more than tensors and plain data, so it is no checkpoint of galirep"
        ) from None
    if not isinstance(content, dict) or "galirep_checkpoint" not in content:
        raise CheckpointError(f"{path} is no checkpoint of galirep")
    if content["galirep_checkpoint"] != FORMAT:
        theirs = f"format {content['galirep_checkpoint']} (galirep {content['galirep_version']})"
        raise CheckpointError(f"{path} is a checkpoint of {theirs}; this galirep reads {FORMAT}")
    return content
