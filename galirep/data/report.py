"""What a data set holds, what was left out of it, and how it was read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class LeftOut:
    """Files or rows that are no images of the set, for one reason: how many, and up to five names."""

    reason: str
    count: int
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataReport:
    """What a source holds: `images` rows, what was left out by reason, notes on how it was read, rows by class."""

    spec: str
    split: str | None
    splits: tuple[str, ...]
    images: int
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)

    def adding(self, *left_out: LeftOut, notes: Sequence[str] = ()) -> "DataReport":
        """Return the report with more left out or noted."""
        return replace(self, left_out=(*self.left_out, *left_out), notes=(*self.notes, *notes))
