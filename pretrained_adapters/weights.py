"""Weight files for the adapters: read without unpickling objects, matched to a network, and refused in words when they do not fit."""

import pickle
from collections.abc import Mapping
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor

from galirep.errors import PluginError

State = Mapping[str, Tensor]
_COUNTER = "num_batches_tracked"  # eval mode does not read it, and not every exporter keeps it
_ROLES = frozenset({"weight", "bias", "running_mean", "running_var"})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt or .bin file by name, wrappers (`state_dict`, `model`, `module.`) taken off as timm does.

    Raises:
        PluginError: no such file, damaged, holds pickled objects other than tensors, or no tensors.
    """
    if not path.is_file():
        raise PluginError(f"there is no weight file {path}")
    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as err:  # timm, torch, safetensors and pickle each have their own
        if isinstance(err, pickle.UnpicklingError) or "weights_only" in str(err):
            raise PluginError(
                f"{path} is refused: it is no plain file of tensors but holds other pickled objects, which can run code"
            ) from err
        raise PluginError(f"{path} is no readable weight file: {_first_line(err)}") from err
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise PluginError(f"{path} holds no tensors by name")
    return tensors


def same_order(state: State, target: State) -> dict[str, Tensor] | None:
    """`state` under the names of `target`, if both hold tensors of the same shapes in the same order; else None.

    Where both names end in a usual role (weight, bias, running_mean, running_var) the roles must agree too.
    """
    theirs = [(name, value) for name, value in state.items() if not name.endswith(_COUNTER)]
    ours = [(name, value) for name, value in target.items() if not name.endswith(_COUNTER)]
    if len(theirs) != len(ours):
        return None
    renamed = dict(target)
    for (their_name, value), (our_name, wanted) in zip(theirs, ours, strict=True):
        roles = {their_name.rpartition(".")[2], our_name.rpartition(".")[2]}
        if value.shape != wanted.shape or (len(roles) == 2 and roles <= _ROLES):
            return None
        renamed[our_name] = value
    return renamed


def mismatches(state: State, target: State, most: int = 3) -> str:
    """What keeps `state` from fitting `target`, the first few tensors by name."""
    lines = []
    for name, wanted in target.items():
        if name not in state:
            if not name.endswith(_COUNTER):
                lines.append(f"{name} {tuple(wanted.shape)} is missing in the file")
        elif state[name].shape != wanted.shape:
            lines.append(f"{name} is {tuple(state[name].shape)} in the file, {tuple(wanted.shape)} in the model")
    lines += [f"{name} {tuple(value.shape)} is not in the model" for name, value in state.items() if name not in target]
    rest = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + rest


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
