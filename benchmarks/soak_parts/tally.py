"""The table that a soak prints: what was tried, and all that must be zero."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

COLUMNS = ("tried", "survived", "lost", "stuck", "tracebacks", "hangs", "memory", "outside")
"""`survived` is the complement of all that follow it: they must be zero."""
MEANINGS = {
    "tried": "kills, inputs, pairs or disks",
    "survived": "ended as it should",
    "lost": "finished work, or an earlier output, that is gone or changed",
    "stuck": "states that no command goes on from",
    "tracebacks": "or a death by a signal that nobody sent",
    "hangs": "over 10 s for one input",
    "memory": "over 2 GiB",
    "outside": "files left beside the output",
}


@dataclass
class Tally:
    """The counts of one subject, and the places of its faults: a text -> how often."""

    part: str
    subject: str
    counts: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)

    def add(self, *faults: str, place: str = "") -> None:
        """Count one attempt; `faults` are names of columns, none where it ended as it should."""
        self.counts["tried"] += 1
        self.counts.update(faults or ("survived",))
        if faults:
            self.places[f"{', '.join(faults)}: {place}" if place else ", ".join(faults)] += 1

    @property
    def clean(self) -> bool:
        """Whether something was tried, and all of it survived."""
        return 0 < self.counts["tried"] == self.counts["survived"]

    def to_dict(self) -> dict[str, object]:
        """Return the row as a JSON object."""
        return {
            "part": self.part,
            "subject": self.subject,
            **{name: self.counts[name] for name in COLUMNS},
            "places": dict(self.places.most_common()),
        }


def table(tallies: Iterable[Tally]) -> str:
    """Return the Markdown table of all subjects."""
    lines = ["| part | subject | " + " | ".join(COLUMNS) + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for tally in tallies:
        cells = [tally.part, tally.subject, *(f"{tally.counts[name]:,}" for name in COLUMNS)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
