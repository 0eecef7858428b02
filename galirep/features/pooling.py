"""How the output of a layer becomes one vector for each image: which axis has the channels, which tokens count."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from galirep.errors import PluginError
from galirep.system.pooling_record import EARLIER

CHOICES = ("mean", "cls", "prefix")
_AXES = {
    (2, 1): "(B, d)",
    (3, 1): "(B, d, N)",
    (3, 2): "(B, N, d)",
    (4, 1): "(B, d, H, W)",
    (4, 2): "(B, H, d, W)",
    (4, 3): "(B, H, W, d)",
}


def split_layer(layer: str) -> tuple[str, str]:
    """Split `NAME[:POOLING]` into the name of a module and the pooling, "" if none is named."""
    name, _, pooling = layer.partition(":")
    return name, pooling


@dataclass(frozen=True)
class Pooling:
    """The map from a layer's output to (B, width).

    `channel_axis` is kept, the others are averaged. Of a sequence (B, N, d) that begins with `prefix` tokens which
    stand for no patch (class token, registers, distillation), `choice` takes the mean of the others (""), of all
    ("mean"), the first ("cls") or all prefix tokens side by side ("prefix"). `earlier` says how versions before
    `pooling` was recorded did it, if otherwise.
    """

    ndim: int
    channel_axis: int
    channels: int
    prefix: int = 0
    choice: str = ""
    earlier: str = ""

    def __call__(self, output: Tensor) -> Tensor:
        """Pool (B, ...) to (B, width)."""
        if self.ndim == 2:
            return output.clone()
        if self.choice == "cls":
            return output[:, 0].clone()
        if self.choice == "prefix":
            return output[:, : self.prefix].flatten(1)
        if self.prefix and not self.choice:
            output = output[:, self.prefix :]
        return output.mean(tuple(axis for axis in range(1, self.ndim) if axis != self.channel_axis))

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.channels * (self.prefix if self.choice == "prefix" else 1)

    def to_dict(self) -> dict[str, str]:
        """Return what `preprocessing` records of the layer."""
        record = {"shape": _AXES[self.ndim, self.channel_axis], "pooled": self._describe()}
        return {**record, EARLIER: self.earlier} if self.earlier else record

    def _describe(self) -> str:
        tokens = f"{self.prefix} prefix token{'s' if self.prefix > 1 else ''}"
        if self.ndim == 2:
            return "output"
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
    if choice and choice not in CHOICES:
        known = ", ".join(f"{name}:{known}" for known in CHOICES)
        raise PluginError(f"{what}: unknown pooling {choice!r} of layer {name!r}: write {name} or one of {known}")
    if choice and len(shape) == 2:
        raise PluginError(f"{what}: layer {name!r} gives (B, {shape[1]}), one vector an image: leave out ':{choice}'")
    is_sequence = len(shape) == 3 and axis == 2
    prefix = _count_prefix(name, choice, what, network, shape[1]) if is_sequence else 0
    if choice in ("cls", "prefix"):
        _require_tokens(name, choice, what, network, shape, prefix)
    before = ""
    if not choice and axis != earlier:
        before = f"mean over {_space(len(shape), earlier, axis)}"
    elif not choice and prefix:
        before = Pooling(len(shape), axis, shape[axis], prefix, "mean").to_dict()["pooled"]
    return Pooling(len(shape), axis, shape[axis], prefix, choice, before)


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
