"""Preparing an extractor for use: choose its layers, move it to a device, check it."""

from collections.abc import Sequence
from typing import Any

import torch

from galirep.errors import ConfigError, PluginError
from galirep.features.protocol import FeatureExtractor, check
from galirep.system.layer_names import require_list


def select_layers(extractor: Any, layers: Sequence[str] | None, what: str) -> Any:
    """Return the extractor that gives `layers`, in this order; the same object if `layers` is None.

    `what` names the extractor in the error message.

    Raises:
        PluginError: it has no choice of layers, or (from its own `with_layers`) a layer is unknown or repeated.
        ConfigError: `layers` is one text, or names none.
    """
    require_list(layers)
    if layers is None:
        return extractor
    if not layers:
        raise ConfigError(
            f"layers of {what}: none is named: name one or more, or leave the list out for its own choice"
        )
    if not hasattr(extractor, "with_layers"):
        raise PluginError(f"the extractor {what!r} has one layer of features: name no layers")
    return extractor.with_layers(tuple(layers))


def prepare_extractor(extractor: Any, spec: str, device: str | torch.device) -> FeatureExtractor:
    """Move an extractor that is a module to `device`, in eval mode, and check it on two images.

    Raises:
        PluginError: see `check`.
    """
    if isinstance(extractor, torch.nn.Module):
        extractor = extractor.to(device).eval()
    return check(extractor, spec, device)
