"""Build a timm model with the tensors of a weight file, whatever that file calls them."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch

from galirep.errors import PluginError, format_list

from .checkpoint import Checkpoint, State, read_checkpoint
from .weights import Found, find_fitting, match_by_order, mismatches, required_names

_log = logging.getLogger(__name__)
_create: Callable[..., Any] = timm.create_model


def load_model(name: str, config: dict[str, Any], path: Path, key: str, size: int) -> Any:
    """Return timm's model without its classification head, with all its tensors from the file at `path`.

    `key` names the set of tensors or their prefix, "" the usual one; `size` is the image size, 0 the model's own.

    Raises:
        PluginError: the file cannot be read, has no such key, no set of tensors that fits, or more than one.
    """
    checkpoint = read_checkpoint(path)
    size_option = size_option_of(config, size)
    heads = config.get("classifier") or ""
    heads = [heads] if isinstance(heads, str) else list(heads)
    state = checkpoint.under(key) if key else checkpoint.sets.get(checkpoint.usual or "")
    if key and state is None:
        raise PluginError(f"{path} has no tensors under {key!r}, but {checkpoint.describe()}")
    errors: list[Exception] = []
    model = None if state is None else _load_strictly(name, config, state, heads[0], size_option, errors)
    if model is None:
        required = required_names(create_untrained(name, 0, size_option, device="meta").state_dict())
        found = find_fitting(checkpoint, key, required, heads, f"timm:{name}@{path}")
        if found is not None:
            state = found.state
            model = _load_strictly(name, config, state, heads[0], size_option, errors)
            if model is not None:
                _tell(path, found)
    if state is None:
        raise PluginError(
            f"{path} has no set of tensors that fits timm's {name}, but {checkpoint.describe()}; "
            f"choose one, as in timm:{name}@{path}#{next(iter(checkpoint.sets))}"
        )
    if model is None:
        model = _load_by_order(name, config, path, state, heads[0], size_option, checkpoint, errors)
    model.reset_classifier(0)
    return model


def size_option_of(config: dict[str, Any], size: int) -> dict[str, int]:
    """Return the argument of `timm.create_model` for an image size, for models that are built for one."""
    return {"img_size": size} if size and config.get("fixed_input_size") else {}


def _tell(path: Path, found: Found) -> None:
    """Log where the weights were found, and which tensors of the file are no part of the model."""
    where = f" under {found.under!r}" if found.under else ""
    if found.left_out:
        names = format_list(found.left_out)
        _log.warning("%s: of its tensors%s %d are left out: %s", path, where, len(found.left_out), names)
    else:
        _log.info("%s: weights%s", path, where)


def _head_widths(config: dict[str, Any], state: State, head: str) -> list[int]:
    """Return the numbers of classes to try: that of the file, or that of timm's weights and none."""
    if f"{head}.weight" in state:
        return [state[f"{head}.weight"].shape[0]]
    return [config.get("num_classes", 1000), 0]


def _load_strictly(
    name: str, config: dict[str, Any], state: State, head: str, size_option: dict[str, int], errors: list[Exception]
) -> Any:
    """Return the model with the tensors of `state`, which must be its own by name; None (and `errors`) if they are not.

    The head is removed at the end. Until then it is as wide as the one in the file, so that timm can load the file
    strictly, whatever number of classes it was trained for.
    """
    for width in _head_widths(config, state, head):
        overlay = {"state_dict": dict(state), "num_classes": width, "label_offset": 0}
        try:
            return _create(name, pretrained=True, num_classes=width, pretrained_cfg_overlay=overlay, **size_option)
        except (RuntimeError, KeyError, AttributeError, IndexError, TypeError, ValueError, AssertionError) as err:
            errors.append(err)
    return None


def _load_by_order(
    name: str,
    config: dict[str, Any],
    path: Path,
    state: State,
    head: str,
    size_option: dict[str, int],
    checkpoint: Checkpoint,
    errors: list[Exception],
) -> Any:
    """Return the model with tensors of other names, matched by order and shape."""
    widths = _head_widths(config, state, head)
    # in a file with other names the head cannot be identified, but it is usually the last tensor
    if f"{head}.weight" not in state:
        widths += list(state.values())[-1].shape[:1]
    for width in widths:
        model = create_untrained(name, width, size_option)
        renamed = match_by_order(state, model.state_dict())
        if renamed is not None:
            _log.warning(
                "%s has other names for its %d tensors than timm's %s: they were matched by order and shape",
                path,
                len(state),
                name,
            )
            model.load_state_dict(renamed)
            return model
    problem = mismatches(state, model.state_dict()) or str(errors[0])
    # which keys there are, if the file is more than one plain set
    keys = "" if set(checkpoint.sets) == {""} else f"; the file has {checkpoint.describe()}"
    raise PluginError(f"{path} does not fit timm's {name}: {problem}{keys}") from errors[0]


def create_untrained(name: str, classes: int, size_option: dict[str, int], *, device: str = "cpu") -> Any:
    """Create the model without weights; on the device meta it takes no time, for its names."""
    try:
        # a few models compute with numbers while they are built
        with contextlib.suppress(RuntimeError, NotImplementedError), torch.device(device):
            return _create(name, pretrained=False, num_classes=classes, **size_option)
        return _create(name, pretrained=False, num_classes=classes, **size_option)
    # the model is timm's own, so any error here is about the size
    except Exception as err:
        raise PluginError(
            f"timm's {name} cannot take {size_option.get('img_size', 'its own')} pixels: {type(err).__name__}: {err}"
        ) from err
