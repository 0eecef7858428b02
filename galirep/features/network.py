"""`NetworkExtractor`: an `nn.Module` as an extractor, with its modules as layers."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from galirep.errors import PluginError
from galirep.features.frozen import FrozenExtractor, freeze
from galirep.system.layer_names import check_layer_names

OUTPUT = "features"


class NetworkExtractor(FrozenExtractor):
    """An `nn.Module` as an extractor: its output, or the pooled output of modules inside it, by name.

    The layer `features` is the network's own output; any other layer is the dotted name of a module, as in
    `named_modules`. Feature maps and token sequences are averaged over space; the width of a layer is found by a probe
    with one image. The network is frozen in place.

    Args:
        network: a map from preprocessed images to (B, d), (B, d, H, W) or (B, tokens, d).
        channels_last: whether its feature maps are (B, H, W, d).
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
            PluginError: a layer is unknown, repeated, not reached by the forward pass, or does not give a tensor.
        """
        other = copy.copy(self)
        other._set_layers(tuple(layers))
        return other

    def features(self, images: Tensor) -> Tensor:
        """Map preprocessed images to the chosen layers side by side, (B, dim)."""
        # convolutions on a CPU are up to 1.5 times faster on this layout, and keep it
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        return torch.cat(self._compute_layers(images, tuple(self.layers)), 1)

    def _compute_layers(self, images: Tensor, layers: tuple[str, ...]) -> list[Tensor]:
        values: dict[str, Tensor] = {}

        def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
                # pooled at once: a later layer may work in place
                values[name] = self._pool(name, output)

            return hook

        modules = {name: self.network.get_submodule(name) for name in layers if name != OUTPUT}
        handles = [module.register_forward_hook(record(name)) for name, module in modules.items()]
        try:
            output = self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        if OUTPUT in layers:
            values[OUTPUT] = self._pool(OUTPUT, output)
        if missing := [name for name in layers if name not in values]:
            raise PluginError(f"layer {missing[0]!r} of {self.name} takes no part in the forward pass")
        return [values[name] for name in layers]

    def _set_layers(self, layers: tuple[str, ...]) -> None:
        """Check `layers` and set `layers` and `dim` by a probe with one image."""
        known = [OUTPUT, *(name for name, _ in self.network.named_modules() if name)]
        # error messages leave out deeply nested modules, of which there may be hundreds
        check_layer_names(layers, known, self.name, listed=[name for name in known if name.count(".") < 2])
        side = self._probe_size
        with torch.no_grad():
            try:
                outputs = self._compute_layers(self.scale.new_zeros(1, self.channels, side, side), layers)
            except PluginError:
                raise
            # a network may raise anything; the message says which network it was and at which size
            except Exception as err:
                # the last line, because TorchScript puts a traceback before it
                reason = (str(err).strip().splitlines() or [""])[-1]
                raise PluginError(
                    f"{self.name} cannot take {side}x{side} images: {type(err).__name__}: {reason}"
                ) from err
        self.layers = {name: output.shape[1] for name, output in zip(layers, outputs, strict=True)}
        self.dim = sum(self.layers.values())

    def _pool(self, name: str, output: Any) -> Tensor:
        """Average the output of a layer over space: (B, d)."""
        if isinstance(output, Tensor) and output.ndim == 2:
            return output.clone()
        if isinstance(output, Tensor) and output.ndim == 3:
            return output.mean(1)
        if isinstance(output, Tensor) and output.ndim == 4:
            return output.mean((1, 2) if self.channels_last else (2, 3))
        got = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise PluginError(
            f"layer {name!r} of {self.name} gives {got}, not a tensor (B, d), (B, d, H, W) or (B, tokens, d)"
        )
