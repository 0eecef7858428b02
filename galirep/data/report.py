"""What an image set holds and what of it was left out: made while it is opened, shown and kept by every command."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from galirep.errors import DataError, format_list
from galirep.system.reading.records import read_record

_log = logging.getLogger("galirep.data")
_FIRST = 5  # names that are kept of each reason
# reasons, notes and names that a short report keeps, and how many characters of each: tried in turn until it fits
_SHORT = ((20, 200), (20, 60), (6, 30), (0, 0))


@dataclass(frozen=True)
class LeftOut:
    """Images that are not rows: the reason, how many, and the first names."""

    reason: str
    count: int
    first: tuple[str, ...] = ()

    @classmethod
    def of(cls, reason: str, names: Sequence[str]) -> "LeftOut":
        """Count `names` and keep the first of them."""
        return cls(reason, len(names), tuple(map(_utf8, names[:_FIRST])))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as a JSON object."""
        return {"reason": self.reason, "count": self.count, "first": list(self.first)}


@dataclass(frozen=True)
class DataReport:
    """What a set holds and what was left out of it.

    Attributes:
        spec: the set as the user wrote it.
        split: the split that was read; None where the set has none.
        splits: all splits of the set.
        images: rows, with those whose image turns out to be unreadable.
        left_out: images that are not rows, by reason.
        notes: what was assumed in reading splits, labels, delimiters or ranges, a sentence each.
        classes: rows by the name of the class; "" for rows without a label.
        classes_lost: classes all of whose images were left out.
        other_files: files that are no pictures, by type.
    """

    spec: str
    split: str | None = None
    splits: tuple[str, ...] = ()
    images: int = 0
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    classes_lost: tuple[str, ...] = ()
    other_files: Mapping[str, int] = field(default_factory=dict)

    @property
    def remarkable(self) -> bool:
        """Whether something was left out or assumed."""
        return bool(self.left_out or self.notes or self.classes_lost)

    def adding(self, *left_out: LeftOut, notes: Sequence[str] = ()) -> "DataReport":
        """Return the report with more that was left out or assumed."""
        return replace(self, left_out=(*self.left_out, *left_out), notes=(*self.notes, *notes))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "spec": _utf8(self.spec),
            "split": self.split,
            "splits": list(self.splits),
            "images": self.images,
            "left_out": [entry.to_dict() for entry in self.left_out],
            "notes": list(map(_utf8, self.notes)),
            "classes": {_utf8(name): count for name, count in self.classes.items()},
            "classes_lost": list(map(_utf8, self.classes_lost)),
            "other_files": dict(self.other_files),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataReport":
        """Read what `to_dict` returned; keys that a later version added are ignored.

        Raises:
            DataError: a value is missing or of another type.
        """
        return read_record(cls, values, "the data report", DataError, ignore_unknown=True)

    def short_dict(self, limit: int) -> dict[str, Any]:
        """Return the report as a JSON object of at most `limit` characters, 8,000 or more.

        What is too long loses the rows by class first (an embedding file has the labels themselves), then reasons and
        notes after the first ones, which are counted, and the ends of long names.
        """
        values = self.to_dict()
        if len(json.dumps(values)) <= limit:
            return values
        note = f"{len(self.classes)} classes, not listed here"
        short = replace(self, classes={}, notes=(note, *self.notes))
        for entries, width in _SHORT:
            values = short.to_dict()
            if len(json.dumps(values)) <= limit:
                break
            short = short._cut(entries, width)
        return short.to_dict()

    def _cut(self, entries: int, width: int) -> "DataReport":
        """Return the report with `entries` reasons, notes and names at most, of `width` characters."""
        more = self.left_out[entries:]
        kept = [LeftOut(e.reason[:width], e.count, tuple(n[:width] for n in e.first[:1])) for e in self.left_out]
        others = [LeftOut(f"{len(more)} other reasons", sum(e.count for e in more))] if more else []
        types = Counter(self.other_files).most_common(entries)
        return replace(
            self,
            spec=self.spec[:width],
            left_out=(*kept[:entries], *others),
            notes=tuple(note[:width] for note in self.notes[:entries]),
            splits=tuple(name[:width] for name in self.splits[:entries]),
            classes_lost=tuple(name[:width] for name in self.classes_lost[:entries]),
            other_files={kind[:width]: count for kind, count in types},
        )

    def lines(self) -> list[str]:
        """Return the report for people: what was read, then what was left out or assumed, a line each."""
        split = f", split {self.split} of {', '.join(self.splits)}" if self.split and self.splits else ""
        named = [name for name in self.classes if name]
        classes = f" of {len(named)} classes" if named else ""
        unlabelled = self.classes.get("", 0)
        without = f", {unlabelled} without a label" if named and unlabelled else ""
        lines = [f"{self.spec}{split}: {self.images} images{classes}{without}"]
        for entry in self.left_out:
            names = ", ".join(entry.first) + (", ..." if entry.count > len(entry.first) else "")
            lines.append(f"left out, {entry.count}: {entry.reason}" + (f" ({names})" if entry.first else ""))
        if self.classes_lost:
            lines.append(f"classes without an image: {format_list(self.classes_lost, 10)}")
        return [*map(_utf8, lines), *map(_utf8, self.notes)]


def join_reports(reports: Sequence[DataReport]) -> DataReport:
    """Return one report of the rows of several sets; what was left out keeps its reasons."""
    left_out: dict[str, LeftOut] = {}
    for entry in (entry for report in reports for entry in report.left_out):
        known = left_out.get(entry.reason, LeftOut(entry.reason, 0))
        names = tuple(dict.fromkeys((*known.first, *entry.first)))[:_FIRST]
        left_out[entry.reason] = LeftOut(entry.reason, known.count + entry.count, names)
    specs = dict.fromkeys(report.spec for report in reports)
    splits = {report.split for report in reports}
    return DataReport(
        spec=format_list(specs, separator="; "),
        split=splits.pop() if len(specs) == len(splits) == 1 else None,
        splits=_distinct(name for report in reports for name in report.splits),
        images=sum(report.images for report in reports),
        left_out=tuple(left_out.values()),
        notes=_distinct(note for report in reports for note in report.notes),
        classes=dict(sum((Counter(report.classes) for report in reports), Counter())),
        classes_lost=_distinct(name for report in reports for name in report.classes_lost),
        other_files=dict(sum((Counter(report.other_files) for report in reports), Counter())),
    )


def announce(report: DataReport) -> None:
    """Log the report as warnings of the logger `galirep.data` if something was left out or assumed."""
    if report.remarkable:
        for line in report.lines():
            _log.warning("%s", line)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _utf8(text: str) -> str:
    # the name of a file may have other bytes
    return text.encode(errors="replace").decode()
