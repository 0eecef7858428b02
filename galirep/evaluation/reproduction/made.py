"""What a row of a study is once it is made, and the layers that probes of it may choose among."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from galirep.data.tensors import ImageFunction
from galirep.errors import PluginError
from galirep.evaluation.subjects import Subject
from galirep.features.gali import GaliEncoder
from galirep.features.protocol import FeatureExtractor


@dataclass(frozen=True, eq=False)
class Made:
    """A row that was trained or fitted.

    Attributes:
        subject: what `galirep evaluate` measures.
        features: what a probe reads: images (B, C, S, S) in [-1, 1] -> (B, D); None for a row without features.
        layer_sets: name -> likewise: the sets of layers among which training labels may choose.
        gradient_norms: of G, in the order of the rows of metrics.jsonl, for a GALI run.
        facts: recorded with the result: updates, CPU minutes, hashes.
    """

    subject: Subject
    features: ImageFunction | None = None
    layer_sets: Mapping[str, ImageFunction] = field(default_factory=dict)
    gradient_norms: Sequence[float] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


_MAX_COLUMNS = 5000


def layer_sets(extractor: FeatureExtractor) -> dict[str, FeatureExtractor]:
    """Return the sets of layers that a probe may choose among: the same rule for every row, trained or not.

    Of a network with E and D: the papers' layers, E's first feature map, D's second block, D's second to fourth, and
    the papers' with D's second. Maps of E and a second block of D keep their own grid, or get 8 x 8 where it is larger
    than `_MAX_COLUMNS` columns. Without D, without maps (E on a body) or of another extractor: what there is of these,
    at least its own layers.
    """
    if not isinstance(extractor, GaliEncoder):
        return {"own": extractor}
    known = list(extractor.known_layers)
    blocks = [name for name in known if re.fullmatch(r"d\d+", name)]
    paper = [name for name in known if name not in blocks and name != "mu"][-3:]
    with contextlib.suppress(PluginError):
        # a self-supervised E has no mu that was trained
        paper = list(extractor.with_layers([*paper, "mu"]).layers)
    names = {"paper": paper}
    if extractor.map_layers:
        names["first of E"] = [_fine(extractor, extractor.map_layers[0])]
    if len(blocks) > 3:
        second = _fine(extractor, blocks[1])
        names |= {"d2": [second], "d2 to d4": [second, *blocks[2:4]], "paper and d2": [*paper, second]}
    return {name: extractor.with_layers(chosen) for name, chosen in names.items()}


def _fine(extractor: GaliEncoder, layer: str) -> str:
    """Return a feature map with its own grid, or 8 x 8 where that is too wide."""
    flat = f"{layer}:flat"
    return flat if extractor.with_layers([flat]).dim <= _MAX_COLUMNS else f"{layer}:8x8"
