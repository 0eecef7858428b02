"""Which axis of a layer's output has the channels: found at two image sizes, or from what the modules declare."""

from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

Shape = tuple[int, ...]
_FIRST = (_ConvNd, _NormBase, nn.GroupNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)
_DECLARED = ("num_features", "out_channels", "out_features", "num_channels", "embed_dim", "embedding_dim")


def find_channel_axis(network: nn.Module, name: str, shape: Shape, other: Shape | None) -> int | None:
    """Return the axis of the channels of an output, or None if it is not certain.

    `name` is the module ("" is the network itself), `shape` its output for one image; `other` is that for one of
    another size, None if the network does not take it. The number of channels is what does not follow the image's size.
    Where more than one axis does not, or there is no other size, these decide in turn: axes of length 1 are space; the
    type of the module (a convolution has its channels on axis 1, a linear layer on the last); the widths which the
    module, else the module round it and so on, declares.
    """
    axes = [axis for axis in range(1, len(shape)) if other is None or shape[axis] == other[axis]]
    if other is not None and not axes:
        return None
    axes = [axis for axis in axes if shape[axis] > 1] or axes
    if len(axes) == 1:
        return axes[0]
    module = network.get_submodule(name)
    by_type = _axis_of_type(module, len(shape))
    if by_type is not None:
        return by_type if by_type in axes else None
    for scope in _scopes(network, name):
        widths = {width for inner in scope.modules() for width in _declared_widths(inner)}
        matches = [axis for axis in axes if shape[axis] in widths]
        if matches:
            axis = matches[0] if len(matches) == 1 else _vote(module, scope, matches, len(shape))
            # as in a network that mixes tokens by linear layers over them
            contradicted = [a for a in axes if a != axis and shape[a] == getattr(network, "num_features", None)]
            return None if contradicted and len(matches) == 1 else axis
    return None


def _scopes(network: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the module, the one that contains it, and so on to the network."""
    parts = name.split(".") if name else []
    for length in range(len(parts), -1, -1):
        yield network.get_submodule(".".join(parts[:length]))


def _axis_of_type(module: nn.Module, ndim: int) -> int | None:
    if isinstance(module, _FIRST):
        return 1
    # subclasses of LayerNorm may move the axes
    if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm:
        return ndim - 1
    return None


def _vote(module: nn.Module, scope: nn.Module, axes: Sequence[int], ndim: int) -> int | None:
    """Return the one axis of `axes` on which the layers of `module` have their channels, or else those of `scope`."""
    for within in (module, scope):
        votes = {_axis_of_type(inner, ndim) for inner in within.modules()} - {None}
        if votes:
            (first, *rest) = votes
            return first if not rest and first in axes else None
    return None


def _declared_widths(module: nn.Module) -> Iterator[int]:
    for attribute in _DECLARED:
        value = getattr(module, attribute, None)
        if isinstance(value, int) and value > 1:
            yield value
    normalized = getattr(module, "normalized_shape", None)
    if isinstance(normalized, tuple) and len(normalized) == 1:
        yield int(normalized[0])
