"""How the output of a layer becomes one vector for each image: which axis has the channels, which tokens count."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from galirep.errors import PluginError
from galirep.networks.map_pooling import describe_pooling, grid_of, pool_map
from galirep.system.pooling_record import EARLIER

_OF_TOKENS = ("mean", "cls", "prefix")
_MEAN = "mean"
_AXES = {
    (2, 1): "(B, d)",
    (3, 1): "(B, d, N)",
    (3, 2): "(B, N, d)",
    (4, 1): "(B, d, H, W)",
    (4, 2): "(B, H, d, W)",
    (4, 3): "(B, H, W, d)",
}
Shape = tuple[int, ...]
_FIRST = (_ConvNd, _NormBase, nn.GroupNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)
_DECLARED = ("num_features", "out_channels", "out_features", "num_channels", "embed_dim", "embedding_dim")


@dataclass(frozen=True)
class Pooling:
    """The map from a layer's output to (B, width).

    `shape` is the output's for one image. `channel_axis` is kept, the others are averaged, or, of a feature map, pooled
    by `choice` (see `galirep.networks.map_pooling`). Of a sequence (B, N, d) that begins with `prefix` tokens which
    stand for no patch (class token, registers, distillation), `choice` takes the mean of the others (""), of all
    ("mean"), the first ("cls") or all prefix tokens side by side ("prefix"). `earlier` says how versions before
    `pooling` was recorded did it, if otherwise.
    """

    shape: Shape
    channel_axis: int
    prefix: int = 0
    choice: str = ""
    earlier: str = ""

    def __call__(self, output: Tensor) -> Tensor:
        """Pool (B, ...) to (B, width)."""
        if self.ndim == 2:
            return output.clone()
        if self._of_map:
            return pool_map(output.movedim(self.channel_axis, 1), self.choice).clone()
        if self.choice == "cls":
            return output[:, 0].clone()
        if self.choice == "prefix":
            return output[:, : self.prefix].flatten(1)
        if self.prefix and not self.choice:
            output = output[:, self.prefix :]
        return output.mean(tuple(axis for axis in range(1, self.ndim) if axis != self.channel_axis))

    @property
    def ndim(self) -> int:
        """Number of the output's axes."""
        return len(self.shape)

    @property
    def width(self) -> int:
        """Number of columns."""
        cells = self.prefix if self.choice == "prefix" else 1
        if self._of_map:
            cells = math.prod(grid_of(self.choice, *self.sides))
        return self.shape[self.channel_axis] * cells

    @property
    def _of_map(self) -> bool:
        return self.ndim == 4 and self.choice not in ("", _MEAN)

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of a feature map."""
        rows, columns = (size for axis, size in enumerate(self.shape) if axis not in (0, self.channel_axis))
        return rows, columns

    def to_dict(self) -> dict[str, str]:
        """Return what `preprocessing` records of the layer."""
        record = {"shape": _AXES[self.ndim, self.channel_axis], "pooled": self._describe()}
        return {**record, EARLIER: self.earlier} if self.earlier else record

    def _describe(self) -> str:
        tokens = f"{self.prefix} prefix token{'s' if self.prefix > 1 else ''}"
        if self.ndim == 2:
            return "output"
        if self._of_map:
            return describe_pooling(self.choice, self.sides, _space(self.ndim, self.channel_axis))
        if self.choice == "cls":
            return "class token"
        if self.choice == "prefix":
            return f"{tokens} side by side" if self.prefix > 1 else tokens
        mean = f"mean over {_space(self.ndim, self.channel_axis)}"
        if not self.prefix:
            return mean
        return f"{mean} with {tokens}" if self.choice else f"{mean} without {tokens}"


def make_pooling(
    name: str, choice: str, what: str, network: nn.Module, shape: tuple[int, ...], axis: int, earlier: int
) -> Pooling:
    """Return how the layer `name` of `network` is pooled, whose output is `shape` for one square image.

    `choice` is the pooling that the user named, or ""; `axis` has the channels; `earlier` is the axis that earlier
    versions took for it.

    Raises:
        PluginError: the pooling is unknown, or the layer has no tokens that it could take.
    """
    if choice and len(shape) == 2:
        raise PluginError(f"{what}: layer {name!r} gives (B, {shape[1]}), one vector an image: leave out ':{choice}'")
    if len(shape) == 4 and choice not in ("", *_OF_TOKENS):
        pooling = Pooling(shape, axis, choice=choice)
        grid_of(choice, *pooling.sides, layer=name, what=what)
        return pooling
    if choice not in ("", *_OF_TOKENS):
        known = ", ".join(f"{name}:{known}" for known in _OF_TOKENS)
        raise PluginError(f"{what}: unknown pooling {choice!r} of layer {name!r}: write {name} or one of {known}")
    is_sequence = len(shape) == 3 and axis == 2
    prefix = _count_prefix(name, choice, what, network, shape[1]) if is_sequence else 0
    if choice in ("cls", "prefix"):
        _require_tokens(name, choice, what, network, shape, prefix)
    before = ""
    if not choice and axis != earlier:
        before = f"mean over {_space(len(shape), earlier, axis)}"
    elif not choice and prefix:
        before = Pooling(shape, axis, prefix, _MEAN).to_dict()["pooled"]
    return Pooling(shape, axis, prefix, choice, before)


def _count_prefix(name: str, choice: str, what: str, network: nn.Module, n: int) -> int:
    """Return how many of a layer's n tokens, for a square image, are prefix tokens: all of the network's, or none."""
    prefix = _int(network, "num_prefix_tokens")
    if not prefix or n < prefix:
        return 0
    # a square image has a square grid of patches
    with_prefix, without = _is_square(n - prefix), _is_square(n)
    if with_prefix and without:
        patches = _int(getattr(network, "patch_embed", None), "num_patches")
        with_prefix, without = n - prefix == patches, n == patches
    if with_prefix != without:
        return prefix if with_prefix else 0
    if choice == "mean":
        return 0
    raise PluginError(
        f"{what}: layer {name!r} gives {n} tokens, of which {prefix} or none may be prefix tokens: "
        f"write {name}:mean for the mean of all"
    )


def _require_tokens(name: str, choice: str, what: str, network: nn.Module, shape: tuple[int, ...], prefix: int) -> None:
    if not prefix:
        sizes = ", ".join(map(str, shape[1:]))
        raise PluginError(f"{what}: layer {name!r} gives (B, {sizes}) without prefix tokens: leave out ':{choice}'")
    # models with registers only
    if choice == "cls" and getattr(network, "cls_token", True) is None:
        raise PluginError(f"{what} has no class token, only {prefix} others: write {name} or {name}:prefix")


def _int(owner: Any, name: str) -> int:
    value = getattr(owner, name, 0)
    return value if isinstance(value, int) else 0


def _is_square(n: int) -> bool:
    return n > 0 and math.isqrt(n) ** 2 == n


def _space(ndim: int, channel_axis: int, true_axis: int | None = None) -> str:
    """Name the axes other than `channel_axis`, by the letters of an output whose channels are on `true_axis`."""
    letters = _AXES[ndim, channel_axis if true_axis is None else true_axis].strip("()").split(", ")
    return " and ".join(letter for axis, letter in enumerate(letters) if axis not in (0, channel_axis))


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
