"""Progress of a long job: a bar on a terminal and in a notebook, plain lines now and then where output is a file."""

import importlib.util
import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS_A_LINE = 30.0
"""How often a job tells where it is that does not write to a terminal; shorter jobs tell nothing."""


class Lines:
    """A bar as lines on stderr, each written once: `embed: 6,400 of 10,000 images (64%), 00:12 left`."""

    def __init__(self, total: int, what: str | None, unit: str, initial: int) -> None:
        self.total, self.n, self._initial, self._unit = total, initial, initial, unit
        self._head = f"{what}: " if what else ""
        self._note = ""
        self._started = self._told = time.monotonic()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: float) -> None:
        """Go on by `n`, and write a line if it is time for one; at the end the job's result says the rest."""
        self.n += int(n)
        now = time.monotonic()
        if now - self._told < SECONDS_A_LINE or not self._initial < self.n < self.total:
            return
        self._told = now
        left = (now - self._started) * (self.total - self.n) / (self.n - self._initial)
        counts = f"{self.n:,} of {self.total:,} {self._unit} ({100 * self.n // self.total}%)"
        print(f"{self._head}{counts}, {tqdm.format_interval(left)} left{self._note}", file=sys.stderr, flush=True)

    def set_postfix_str(self, s: str) -> None:
        """Set what the next lines end with."""
        self._note = f"; {s}"


def progress_bar(
    total: int, what: str | None, unit: str, *, initial: int = 0, shown: bool = True
) -> "tqdm[Any] | Lines":
    """Return a bar of `total` steps: a context manager with `n`, `update(n)` and `set_postfix_str(text)`.

    On a terminal it keeps to the width; in a notebook it is the notebook's own where ipywidgets is there.
    """
    options: dict[str, Any] = {"total": total, "desc": what, "initial": initial, "unit": f" {unit}"}
    if not shown or sys.stderr.isatty():
        return tqdm(**options, disable=not shown, dynamic_ncols=True)
    if _in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar(**options)
    return Lines(total, what, unit, initial)


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"
