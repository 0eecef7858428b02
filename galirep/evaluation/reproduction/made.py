"""What a row of a study is once it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from galirep.data.tensors import ImageFunction
from galirep.evaluation.subjects import Subject


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
