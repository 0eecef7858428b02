"""`NetworkExtractor`: an `nn.Module` as an extractor, with its modules as layers."""

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from galirep.errors import PluginError
from galirep.features.frozen import FrozenExtractor, freeze
from galirep.features.pooling import Pooling, find_channel_axis, make_pooling
from galirep.system.layer_names import check_layer_names, split_layer
from galirep.system.pooling_record import POOLING

OUTPUT = "features"
# by how much the second image of the probe differs in size; a multiple of the usual strides
_OTHER_SIZE = 32


class NetworkExtractor(FrozenExtractor):
    """An `nn.Module` as an extractor: its output, or the pooled output of modules inside it, by name.

    The layer `features` is the network's own output; any other layer is the dotted name of a module, as in
    `named_modules`. Feature maps and token sequences are averaged over space, or pooled as `NAME:POOLING` says; the
    width of a layer is found by a probe with one image. The network is frozen in place.

    Args:
        network: a map from preprocessed images to (B, d), (B, d, H, W) or (B, tokens, d).
        channels_last: whether its output, if it is a feature map, is (B, H, W, d); decides where probes do not.
        probe_size: side of the probe image if `image_size` is None.
        name, image_size, mean, std, interpolation, channels, tag, sha256: see `FrozenExtractor`.

    Raises:
        PluginError: the network cannot take images of that size, or its output is not a tensor.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        image_size: int | None,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        interpolation: Literal["bilinear", "bicubic"] = "bicubic",
        channels: int = 3,
        tag: str = "",
        sha256: str = "",
        channels_last: bool = False,
        probe_size: int = 32,
    ) -> None:
        super().__init__(
            name=name,
            image_size=image_size,
            mean=mean,
            std=std,
            interpolation=interpolation,
            channels=channels,
            tag=tag,
            sha256=sha256,
        )
        self.network = freeze(network)
        self.channels_last = channels_last
        self._probe_size = image_size or probe_size
        self._set_layers((OUTPUT,))

    def with_layers(self, layers: Sequence[str]) -> "NetworkExtractor":
        """Return an extractor of the same network (shared, not copied) giving `layers`, in that order.

        Raises:
            PluginError: a layer is unknown, repeated, not reached by the forward pass, or does not give a tensor; its
                channels are not certain to be on one axis; its pooling is unknown or finds no tokens.
        """
        other = copy.copy(self)
        other._set_layers(tuple(layers))
        return other

    def features(self, images: Tensor) -> Tensor:
        """Map preprocessed images to the chosen layers side by side, (B, dim)."""
        # convolutions on a CPU are up to 1.5 times faster on this layout, and keep it
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        values: dict[str, Tensor] = {}

        def pool(name: str, output: Any) -> None:
            # pooled at once: a later layer may work in place
            for layer, pooling in self._poolings[name].items():
                shape = self._require_tensor(name, output, len(images))
                if len(shape) != pooling.ndim:
                    raise PluginError(f"layer {name!r} of {self.name} gives {shape} for {tuple(images.shape)}")
                values[layer] = pooling(output)
                # as `flat` of an image of another size, where the network takes any
                if values[layer].shape[1] != pooling.width:
                    raise PluginError(
                        f"layer {layer!r} of {self.name} has {pooling.width} columns, and {values[layer].shape[1]} "
                        f"for {tuple(images.shape)}: choose a grid, gap or max"
                    )

        self._visit(images, tuple(self._poolings), pool)
        self._require_reached(self.layers, values)
        return torch.cat([values[layer] for layer in self.layers], 1)

    def _visit(self, images: Tensor, names: Collection[str], visit: Callable[[str, Any], None]) -> None:
        """Run the network, calling `visit` with the name and output of each module that is named, when it is done."""

        def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
            return lambda module, inputs, output: visit(name, output)  # noqa: ARG005

        modules = {name: self.network.get_submodule(name) for name in names if name != OUTPUT}
        handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
        try:
            output = self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        if OUTPUT in names:
            visit(OUTPUT, output)

    def _set_layers(self, layers: tuple[str, ...]) -> None:
        """Check `layers` and set `layers`, `dim` and `preprocessing` by a probe with one image."""
        known = [OUTPUT, *(name for name, _ in self.network.named_modules() if name)]
        parts = {layer: (layer, "") if layer in known else split_layer(layer) for layer in layers}
        known_layers = {*known, *(layer for layer, (name, _) in parts.items() if name in known)}
        # error messages leave out deeply nested modules, of which there may be hundreds
        check_layer_names(layers, known_layers, self.name, listed=[name for name in known if name.count(".") < 2])
        names = {name for name, _ in parts.values()}
        other: dict[str, tuple[int, ...]] = {}
        # before the probe at the size that is used, as a network may keep things of the last size
        if names != {OUTPUT}:
            other = self._other_shapes(names)
        shapes = self._shapes(names)
        if names == {OUTPUT} and len(shapes[OUTPUT]) > 2:
            other, shapes = self._other_shapes(names), self._shapes(names)
        made = {
            layer: self._make_pooling(name, choice, shapes[name], other.get(name))
            for layer, (name, choice) in parts.items()
        }
        self._poolings = {name: {layer: made[layer] for layer in made if parts[layer][0] == name} for name in names}
        self.layers = {layer: pooling.width for layer, pooling in made.items()}
        self.dim = sum(self.layers.values())
        pooled = {layer: pooling.to_dict() for layer, pooling in made.items()}
        # not in place: an extractor of other layers has the same dict
        self.preprocessing = {**self.preprocessing, POOLING: pooled}

    def _shapes(self, names: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the named outputs for one image of the network's size."""
        side = self._probe_size
        shapes: dict[str, tuple[int, ...]] = {}

        def record(name: str, output: Any) -> None:
            shapes[name] = self._require_tensor(name, output, 1)

        with torch.no_grad():
            try:
                self._visit(self.scale.new_zeros(1, self.channels, side, side), names, record)
            except PluginError:
                raise
            # a network may raise anything; the message says which network it was and at which size
            except Exception as err:
                # the last line, because TorchScript puts a traceback before it
                reason = (str(err).strip().splitlines() or [""])[-1]
                raise PluginError(
                    f"{self.name} cannot take {side}x{side} images: {type(err).__name__}: {reason}"
                ) from err
        self._require_reached(names, shapes)
        return shapes

    def _other_shapes(self, names: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Return the shapes for an image of another size, of the modules that it reaches: perhaps none."""
        side = self._probe_size
        if side > 2 * _OTHER_SIZE:
            side -= _OTHER_SIZE
        else:
            # on a GPU a larger image might read past a table of positions, after which the device is of no more use
            side = side + _OTHER_SIZE if self.scale.device.type == "cpu" else max(1, side // 2)
        shapes: dict[str, list[tuple[int, ...]]] = {}

        def record(name: str, output: Any) -> None:
            shapes.setdefault(name, []).append(tuple(output.shape))

        complete = True
        with torch.no_grad():
            try:
                self._visit(self.scale.new_zeros(1, self.channels, side, side), names, record)
            # whatever the network raises, it does not take this size
            except Exception:
                complete = False
        # of a module that is used several times the last output counts, which is known if the network came to its end
        return {name: found[-1] for name, found in shapes.items() if complete or len(found) == 1}

    def _make_pooling(self, name: str, choice: str, shape: tuple[int, ...], other: tuple[int, ...] | None) -> Pooling:
        if other is not None and len(other) != len(shape):
            other = None
        # what the documented shapes of an output mean, and versions before this took every layer for
        usual = len(shape) - 1 if len(shape) < 4 or self.channels_last else 1
        axis: int | None = 1
        if len(shape) > 2:
            axis = find_channel_axis(self.network, "" if name == OUTPUT else name, shape, other)
        if axis is None and name == OUTPUT:
            axis = usual
        if axis is None:
            sizes = "" if other is None else f" and {other} for one of another size"
            raise PluginError(
                f"layer {name!r} of {self.name} gives {shape} for one {self._probe_size}x{self._probe_size} "
                f"image{sizes}: which axis has the channels is not certain, so it cannot be averaged over space"
            )
        return make_pooling(name, choice, self.name, self.network, shape, axis, usual)

    def _require_reached(self, layers: Collection[str], reached: Collection[str]) -> None:
        if missing := [layer for layer in layers if layer not in reached]:
            raise PluginError(f"layer {missing[0]!r} of {self.name} takes no part in the forward pass")

    def _require_tensor(self, name: str, output: Any, n: int) -> tuple[int, ...]:
        """Return the shape of a layer's output for n images; raise if it is no tensor that can be pooled."""
        if isinstance(output, Tensor) and 2 <= output.ndim <= 4 and len(output) == n:
            return tuple(output.shape)
        got = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        images = f" for {n} image{'s' if n > 1 else ''}" if isinstance(output, Tensor) else ""
        raise PluginError(
            f"layer {name!r} of {self.name} gives {got}{images}, not a tensor (B, d), (B, d, H, W), (B, H, W, d) or "
            "(B, tokens, d)"
        )
