"""Layers of a run's networks by name, `[e.]NAME[:POOLING]` of E and `dK[:POOLING]` of D's image trunk, as features."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from galirep.errors import CheckpointError, PluginError, format_list, similar
from galirep.networks.map_pooling import describe_pooling, grid_of, pool_map
from galirep.networks.parts import Encoder, Shapes, block_outputs
from galirep.system.layer_names import require_list, split_layer

PAPER = "paper"
"""Stands for the layers that the papers read: E's last three hidden ones and mu (Dandi et al. 2021, section 5)."""
DEFAULT_LAYERS = (PAPER,)
"""What a run exported from now on gives where no layers are chosen; what its networks lack is told by `defaults_of`."""
_PAPER_COUNT = 4
_OF_D = re.compile(r"d[1-9]\d*")
_OF_E = "e."
_LISTED = 12  # names in an error message

LoadTrunk = Callable[[], nn.Module]
"""D's image trunk, an `nn.Sequential`, on demand: most features need E alone."""


def trunk_outputs(trunk: nn.Module, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield `d1`, `d2`, ... and the output of each block of D's image trunk; a block runs when it is asked for."""
    blocks = {f"d{i}": block for i, block in enumerate(trunk.children(), 1)}
    return block_outputs(blocks, images)


@dataclass(frozen=True)
class Layer:
    """A chosen layer: the block `name` of E, or of D if `of_d`, with its pooling and the shape that it gives an image.

    `width` is the number of its columns.
    """

    name: str
    of_d: bool
    pooling: str
    shape: tuple[int, ...]

    def __call__(self, output: Tensor) -> Tensor:
        """Pool the block's output (B, ...) to (B, width)."""
        return pool_map(output, self.pooling) if output.ndim == 4 else output

    @property
    def text(self) -> str:
        """The name that embedding files record: without `e.` where it can be left out, so that a layer has one name."""
        prefix = _OF_E if _OF_D.fullmatch(self.name) and not self.of_d else ""
        return f"{prefix}{self.name}:{self.pooling}" if self.pooling else f"{prefix}{self.name}"

    @property
    def width(self) -> int:
        """Number of columns."""
        if len(self.shape) == 1:
            return self.shape[0]
        channels, *sides = self.shape
        rows, columns = grid_of(self.pooling, *sides)
        return channels * rows * columns

    def to_dict(self) -> dict[str, str]:
        """Return what `preprocessing` records of the layer."""
        if len(self.shape) == 1:
            return {"shape": "(B, d)", "pooled": "output"}
        _, *sides = self.shape
        return {"shape": f"(B, d, {sides[0]}, {sides[1]})", "pooled": describe_pooling(self.pooling, sides)}


class LayerReader:
    """Images (B, C, S, S) in [-1, 1] -> the chosen layers of E and of D's image trunk, by name, each (B, width).

    Only the blocks that the layers need are computed. `trunk` is loaded only if a layer is D's; None says that there is
    none. `what` names the networks in error messages.

    Raises:
        PluginError: a layer is unknown or repeated, or its pooling does not fit.
    """

    def __init__(
        self, encoder: Encoder, shapes: Shapes, layers: Sequence[str], *, what: str, trunk: LoadTrunk | None = None
    ) -> None:
        self.encoder, self.what = encoder, what
        self.trunk: nn.Module | None = None
        self._blank = (1, shapes.channels, shapes.size, shapes.size)
        self._load_trunk = trunk
        self._shapes_of_e = self._probe(encoder, encoder.outputs)
        self._shapes_of_d: dict[str, tuple[int, ...]] = {}
        require_list(layers)
        self.layers = tuple(self._layer(text) for text in self._expand(layers))
        texts = [layer.text for layer in self.layers]
        if not texts or len(set(texts)) < len(texts):
            given = ", ".join(layers) or "(none)"
            raise PluginError(f"{what}: layers {given}: name each layer once, of {self._known()}")
        self._last = {of_d: self._last_block(of_d) for of_d in (False, True)}

    @property
    def widths(self) -> dict[str, int]:
        """The number of columns of each chosen layer, in their order."""
        return {layer.text: layer.width for layer in self.layers}

    @property
    def hidden(self) -> tuple[str, ...]:
        """The names of E's hidden layers, in order."""
        return tuple(self._shapes_of_e)[:-1]

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of E's layers that are feature maps (B, d, H, W), in order."""
        return tuple(name for name, shape in self._shapes_of_e.items() if len(shape) == 3)

    def known_widths(self) -> dict[str, int]:
        """Return the width of every layer without a choice of pooling: E's, then D's where its trunk can be had."""
        shapes_of_d: Mapping[str, tuple[int, ...]] = {}
        with contextlib.suppress(CheckpointError):
            shapes_of_d = {} if self._load_trunk is None else self._of_d("d1")
        known = [Layer(name, False, "", shape) for name, shape in self._shapes_of_e.items()]
        known += [Layer(name, True, "", shape) for name, shape in shapes_of_d.items()]
        return {layer.text: layer.width for layer in known}

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that the chosen layers are of: `e`, `d` or both."""
        used: dict[str, nn.Module] = {}
        if any(not layer.of_d for layer in self.layers):
            used["e"] = self.encoder
        if any(layer.of_d for layer in self.layers):
            assert self.trunk is not None
            used["d"] = self.trunk
        return used

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the chosen layers of the images, in their order."""
        values: dict[str, Tensor] = {}
        for of_d, last in self._last.items():
            if last is None:
                continue
            for name, output in self._outputs(of_d)(images):
                values |= {
                    layer.text: layer(output) for layer in self.layers if (layer.of_d, layer.name) == (of_d, name)
                }
                if name == last:
                    break
        return {layer.text: values[layer.text] for layer in self.layers}

    def _outputs(self, of_d: bool) -> Callable[[Tensor], Iterator[tuple[str, Tensor]]]:
        if not of_d:
            return self.encoder.outputs
        trunk = self.trunk
        assert trunk is not None
        return lambda images: trunk_outputs(trunk, images)

    def _last_block(self, of_d: bool) -> str | None:
        """Return the last block of E or D that a chosen layer is of."""
        order = list(self._shapes_of_d if of_d else self._shapes_of_e)
        used = [order.index(layer.name) for layer in self.layers if layer.of_d == of_d]
        return order[max(used)] if used else None

    def _probe(
        self, network: nn.Module, outputs: Callable[[Tensor], Iterator[tuple[str, Tensor]]]
    ) -> dict[str, tuple[int, ...]]:
        device = next(network.parameters()).device
        with torch.no_grad():
            return {name: tuple(out.shape[1:]) for name, out in outputs(torch.zeros(self._blank, device=device))}

    def _expand(self, layers: Sequence[str]) -> Iterator[str]:
        for text in layers:
            yield from tuple(self._shapes_of_e)[-_PAPER_COUNT:] if text == PAPER else (text,)

    def _layer(self, text: str) -> Layer:
        """Return the layer that a text means.

        Raises:
            PluginError: there is none of that name, or its pooling does not fit.
        """
        of_d = _OF_D.fullmatch(split_layer(text)[0]) is not None
        known, written = (self._of_d(text), text) if of_d else (self._shapes_of_e, text.removeprefix(_OF_E))
        # a layer of E may have a colon in its name
        name, pooling = (written, "") if written in known else split_layer(written)
        if name not in known:
            hint = similar(name, known) or ":"
            raise PluginError(f"{self.what}: unknown layer {text!r}{hint} known: {self._known()}")
        if written.endswith(":"):
            raise PluginError(f"{self.what}: layer {text!r} names no pooling after its colon: write {name}")
        self._require_pooling(name, pooling, known[name])
        return Layer(name, of_d, pooling, known[name])

    def _of_d(self, text: str) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of D's layers, loading its trunk for the first one; `text` is the layer that needs it."""
        if self.trunk is None:
            if self._load_trunk is None:
                raise PluginError(f"{self.what}: layer {text!r} is of D's image trunk, which is not there")
            device = next(self.encoder.parameters()).device
            trunk = self._load_trunk().requires_grad_(False).eval().to(device)
            # in the layout of training, see `GaliEncoder`
            self.trunk = trunk = trunk.to(memory_format=torch.channels_last)
            self._shapes_of_d = self._probe(trunk, lambda images: trunk_outputs(trunk, images))
        return self._shapes_of_d

    def _require_pooling(self, name: str, pooling: str, shape: tuple[int, ...]) -> None:
        if pooling and len(shape) == 1:
            raise PluginError(
                f"{self.what}: layer {name!r} gives (B, {shape[0]}), one vector an image: leave out ':{pooling}'"
            )
        if len(shape) == 3:
            grid_of(pooling, *shape[1:], layer=name, what=self.what)

    def _known(self) -> str:
        """List the layers compactly: those of E by name, those of D as a range."""
        of_e = format_list(self._shapes_of_e, _LISTED)
        of_d = ""
        if self._shapes_of_d:
            of_d = f", d1 to d{len(self._shapes_of_d)} of D"
        elif self._load_trunk is not None:
            of_d = ", d1, d2, ... of D"
        return f"{of_e}{of_d}; {PAPER} stands for {', '.join(self._expand([PAPER]))}"


def defaults_of(encoder: nn.Module, shapes: Shapes, trunk: nn.Module | None) -> list[str]:
    """Return the names that `DEFAULT_LAYERS` mean in these networks; where they lack some, those of `paper`."""
    assert isinstance(encoder, Encoder)
    for layers in (DEFAULT_LAYERS, (PAPER,)):
        with contextlib.suppress(PluginError):
            reader = LayerReader(encoder, shapes, layers, what="", trunk=None if trunk is None else lambda: trunk)
            return list(reader.widths)
    raise AssertionError("every E has the layers of `paper`")
