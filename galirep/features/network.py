"""An `nn.Module` as an extractor."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from galirep.errors import PluginError, unknown
from galirep.features.frozen import FrozenExtractor, freeze

OUTPUT = "features"


class NetworkExtractor(FrozenExtractor):
    """An `nn.Module` as an extractor: its output, or the pooled output of modules inside it, by name.

    The layer `features` is the network's own output; any other layer is the dotted name of a module, as in `named_modules`. Feature maps
    and token sequences are averaged over space; a layer's width is found by a probe of one image. The network is frozen in place.

    Args:
        network: prepared images -> (B, d), (B, d, H, W) or (B, tokens, d).
        channels_last: its feature maps are (B, H, W, d).
        preparation: see `FrozenExtractor`.

    Raises:
        PluginError: the network cannot take images of that size, or gives no tensor.
    """

    def __init__(
        self, network: nn.Module, *, channels_last: bool = False, probe_size: int = 32, **preparation: Any
    ) -> None:
        super().__init__(**preparation)
        self.network = freeze(network)
        self.channels_last, self._probe_size = channels_last, self.image_size or probe_size
        self._choose((OUTPUT,))

    def with_layers(self, layers: Sequence[str]) -> "NetworkExtractor":
        """The same network (shared, not copied) giving the named layers, in that order.

        Raises:
            PluginError: a layer is unknown, named twice, not reached by the forward pass, or gives no tensor.
        """
        other = copy.copy(self)
        other._choose(tuple(layers))
        return other

    def features(self, images: Tensor) -> Tensor:
        """Prepared images -> the chosen layers side by side, (B, dim)."""
        if images.device.type == "cpu":  # convolutions there are up to 1.5 times faster on this layout, and keep it
            images = images.contiguous(memory_format=torch.channels_last)
        return torch.cat(self._outputs(images, tuple(self.layers)), 1)

    def _outputs(self, images: Tensor, layers: tuple[str, ...]) -> list[Tensor]:
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
                found[name] = self._vector(name, output)  # pooled at once: a layer behind may work in place

            return hook

        hooks = [
            self.network.get_submodule(name).register_forward_hook(keep(name)) for name in layers if name != OUTPUT
        ]
        try:
            output = self.network(images)
        finally:
            for handle in hooks:
                handle.remove()
        if OUTPUT in layers:
            found[OUTPUT] = self._vector(OUTPUT, output)
        if missing := [name for name in layers if name not in found]:
            raise PluginError(f"layer {missing[0]!r} of {self.name} takes no part in the forward pass")
        return [found[name] for name in layers]

    def _choose(self, layers: tuple[str, ...]) -> None:
        modules = [name for name, _ in self.network.named_modules() if name]
        for name in layers:
            if name not in (OUTPUT, *modules):
                raise PluginError(
                    unknown("layer", name, [OUTPUT, *(m for m in modules if m.count(".") < 2)]) + f" (of {self.name})"
                )
        if not layers or len(set(layers)) < len(layers):
            raise PluginError(f"layers {', '.join(layers) or '(none)'} of {self.name}: name one or more, each once")
        side = self._probe_size
        with torch.no_grad():
            try:
                outputs = self._outputs(self.scale.new_zeros(1, self.channels, side, side), layers)
            except PluginError:
                raise
            except Exception as err:  # whatever a network raises, the user needs to hear which one and at which size
                reason = (str(err).strip().splitlines() or [""])[-1]  # TorchScript puts a traceback before it
                raise PluginError(
                    f"{self.name} cannot take {side}x{side} images: {type(err).__name__}: {reason}"
                ) from err
        self.layers = {name: output.shape[1] for name, output in zip(layers, outputs, strict=True)}
        self.dim = sum(self.layers.values())

    def _vector(self, name: str, output: Any) -> Tensor:
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
