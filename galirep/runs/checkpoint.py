"""Checkpoints: one file of tensors and plain data, written atomically and read without running code from it."""

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
    """Write tensors and plain data; the file that was there is kept if writing fails."""
    # torch's own writer turns a full disk into a RuntimeError of its internals
    buffer = io.BytesIO()
    torch.save({"galirep_checkpoint": FORMAT, "galirep_version": __version__, **content}, buffer)
    with atomic_write(path) as temporary:
        # `getvalue` makes no copy in CPython; where the disk is full, CPython 3.13 complains of an open `getbuffer`
        temporary.write_bytes(buffer.getvalue())


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, corrupt, of another program, or of a newer format.
    """
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise CheckpointError(f"the checkpoint {path} is damaged (in {damaged})")
        content = torch.load(path, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError) as err:
        raise CheckpointError(f"the checkpoint {path} is truncated or damaged: {err}") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} contains more than tensors and plain data, so it is not a checkpoint of galirep"
        ) from None
    if not isinstance(content, dict) or "galirep_checkpoint" not in content:
        raise CheckpointError(f"{path} is not a checkpoint of galirep")
    if content["galirep_checkpoint"] != FORMAT:
        written = f"format {content['galirep_checkpoint']} (galirep {content['galirep_version']})"
        raise CheckpointError(f"{path} is a checkpoint of {written}; this galirep reads {FORMAT}")
    return content
