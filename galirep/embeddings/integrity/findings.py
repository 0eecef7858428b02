"""What the checks of `verify` collect."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from galirep.errors import format_list


@dataclass
class Findings:
    """Messages: `problems` make a file unfit for use, `warnings` do not."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def list_problem(self, what: str, items: Iterable[object], note: str = "") -> None:
        """Add `what (3): a, b, c` if there are any items."""
        if texts := [str(item) for item in items]:
            self.problems.append(f"{what} ({len(texts)}): {format_list(texts)}{note}")
