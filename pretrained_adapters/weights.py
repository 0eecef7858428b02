"""Match the tensors of a weight file to a network: by name, under a prefix, or by order and shape."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from galirep.errors import PluginError

from .checkpoint import Checkpoint, State, read_checkpoint

# a counter that eval mode does not read and not every exporter keeps
_COUNTER = "num_batches_tracked"
_ROLES = frozenset({"weight", "bias", "running_mean", "running_var"})
# first parts of the names of what a training program keeps beside the network
_TRAINING = re.compile(r"(?i).*(loss|criterion|metric|queue|accuracy|auroc)|acc|center|train_.*|val_.*")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file by name, under the usual key or the only one.

    Raises:
        PluginError: the file cannot be read (see `read_checkpoint`), or has tensors under several keys.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.usual is None:
        raise PluginError(f"{path} has tensors under several keys: {checkpoint.describe()}")
    return dict(checkpoint.sets[checkpoint.usual])


@dataclass(frozen=True)
class Found:
    """A set of tensors of a file that has all that a network needs: `under` says where, `left_out` names the rest."""

    under: str
    state: State
    left_out: tuple[str, ...]


def find_fitting(
    checkpoint: Checkpoint, key: str, required: frozenset[str], heads: Sequence[str], example: str
) -> Found | None:
    """Return the one set of tensors that has all `required` names, under a prefix or none; None if there is none.

    The set is that of `key`, or else the usual one, or else any. Left out are tensors outside the prefix, a head
    (`heads` are names of modules) that is no single layer, as for contrastive losses, and what training programs keep
    beside a network (losses, metrics, queues). `example` is how the file is spelled in a spec.

    Raises:
        PluginError: more than one set fits: they are listed.
    """
    if key:
        found = _fitting({key: checkpoint.under(key) or {}}, required, heads)
    else:
        usual = checkpoint.usual
        found = [] if usual is None else _fitting({usual: checkpoint.sets[usual]}, required, heads)
        found = found or _fitting(checkpoint.sets, required, heads)
    if len(found) > 1:
        sets = {name for name, _, _ in found}
        # a set is named by its key, several prefixes in one set by the prefix
        names = [name if len(sets) == len(found) else prefix.rstrip(".") or name for name, prefix, _ in found]
        raise PluginError(
            f"{checkpoint.path} has more than one set of tensors that fits: {', '.join(names)}; "
            f"choose one, as in {example}#{names[0]}"
        )
    return found[0][2] if found else None


def _fitting(sets: Mapping[str, State], required: frozenset[str], heads: Sequence[str]) -> list[tuple[str, str, Found]]:
    """Return (key, prefix, found) for each set and prefix under which all `required` names are."""
    fitting = []
    for key, state in sets.items():
        prefixes = _prefixes(state, required)
        # names that fit as they are, beside a copy under a prefix (an average, a teacher), are the network's own
        for prefix in [""] if "" in prefixes else prefixes:
            fitting.append((key, prefix, _take(key, prefix, state, required, heads)))
    return fitting


def _prefixes(state: State, required: frozenset[str]) -> list[str]:
    # the longest name is in few places
    probe = max(required, key=len)
    prefixes = [name.removesuffix(probe) for name in state if name == probe or name.endswith(f".{probe}")]
    return [prefix for prefix in prefixes if all(f"{prefix}{name}" in state for name in required)]


def _take(key: str, prefix: str, state: State, required: frozenset[str], heads: Sequence[str]) -> Found:
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    left_out = [name for name in state if not name.startswith(prefix)]
    layers = {f"{head}.{role}" for head in heads for role in ("weight", "bias")}
    taken = {}
    for name, value in inside.items():
        is_head = any(name.startswith(f"{head}.") for head in heads) and name not in layers
        is_training = _TRAINING.fullmatch(name.partition(".")[0]) is not None
        if name not in required and (is_head or is_training):
            left_out.append(f"{prefix}{name}")
        else:
            taken[name] = value
    return Found(f"{key}: {prefix.rstrip('.')}".strip(": "), taken, tuple(left_out))


def required_names(target: State) -> frozenset[str]:
    """Return the names that a file must have for a network with the state dict `target`."""
    return frozenset(name for name in target if not name.endswith(_COUNTER))


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
