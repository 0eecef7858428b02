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
        layers: name -> function of images (B, C, S, S) in [-1, 1]: the features that a probe reads, side by side.
        candidates: likewise, the layers among which they may be chosen.
        gradient_norms: of G, in the order of the rows of metrics.jsonl, for a GALI run.
        facts: recorded with the result: updates, CPU minutes, hashes.
    """

    subject: Subject
    layers: Mapping[str, ImageFunction] = field(default_factory=dict)
    candidates: Mapping[str, ImageFunction] = field(default_factory=dict)
    gradient_norms: Sequence[float] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
