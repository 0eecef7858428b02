"""Weight files for the adapters: read them without unpickling objects, and match them to a network."""

import pickle
from collections.abc import Mapping
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor

from galirep.errors import PluginError

State = Mapping[str, Tensor]
# a counter that eval mode does not read and not every exporter keeps
_COUNTER = "num_batches_tracked"
_ROLES = frozenset({"weight", "bias", "running_mean", "running_var"})


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors, .pth, .pt or .bin file by name.

    Wrappers and prefixes (`state_dict`, `model`, `module.`) are removed as in timm.

    Raises:
        PluginError: the file does not exist, is damaged, contains pickled objects other than tensors, or no tensors.
    """
    if not path.is_file():
        raise PluginError(f"the weight file {path} does not exist")
    try:
        state = load_state_dict(str(path), weights_only=True)
    # timm, torch, safetensors and pickle raise errors of their own
    except Exception as err:
        if isinstance(err, pickle.UnpicklingError) or "weights_only" in str(err):
            raise PluginError(
                f"{path} is refused: it contains pickled objects other than tensors, which can run code"
            ) from err
        raise PluginError(f"{path} is not a readable weight file: {_first_line(err)}") from err
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise PluginError(f"{path} contains no named tensors")
    return tensors


def match_by_order(state: State, target: State) -> dict[str, Tensor] | None:
    """Return `state` with the names of `target` if both have tensors of the same shapes in the same order, else None.

    If both names end in a usual role (weight, bias, running_mean, running_var), the roles must agree too.
    """
    tensors = [(name, value) for name, value in state.items() if not name.endswith(_COUNTER)]
    targets = [(name, value) for name, value in target.items() if not name.endswith(_COUNTER)]
    if len(tensors) != len(targets):
        return None
    renamed = dict(target)
    for (name, value), (target_name, target_value) in zip(tensors, targets, strict=True):
        roles = {name.rpartition(".")[2], target_name.rpartition(".")[2]}
        if value.shape != target_value.shape or (len(roles) == 2 and roles <= _ROLES):
            return None
        renamed[target_name] = value
    return renamed


def mismatches(state: State, target: State, limit: int = 3) -> str:
    """Return why `state` does not fit `target`: the first `limit` tensors that are missing, extra or different."""
    problems = []
    for name, value in target.items():
        if name not in state:
            if not name.endswith(_COUNTER):
                problems.append(f"{name} {tuple(value.shape)} is missing in the file")
        elif state[name].shape != value.shape:
            problems.append(f"{name} is {tuple(state[name].shape)} in the file, {tuple(value.shape)} in the model")
    problems += [
        f"{name} {tuple(value.shape)} is not in the model" for name, value in state.items() if name not in target
    ]
    rest = f"; and {len(problems) - limit} more" if len(problems) > limit else ""
    return "; ".join(problems[:limit]) + rest


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
