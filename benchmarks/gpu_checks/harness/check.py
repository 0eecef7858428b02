"""What a check is: a function of the setup that returns a figure, or raises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


class Skip(Exception):
    """The check cannot be made here; the message says why."""


class Failed(Exception):
    """What was measured misses its tolerance; `values` go into the JSON all the same."""

    def __init__(self, text: str, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.values = dict(values or {})


@dataclass(frozen=True)
class Figure:
    """What a check found: a few words for the table, numbers for the JSON."""

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """Where and how thoroughly to check; `quick` is for the test suite: smallest networks, two updates."""

    device: torch.device
    quick: bool = False

    @property
    def on_card(self) -> bool:
        return self.device.type == "cuda"

    @property
    def updates(self) -> int:
        return 2 if self.quick else 20

    def synchronize(self) -> None:
        """Wait for what the device was given."""
        if self.on_card:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Check:
    """A named check with its time limit in seconds. `quick` False leaves it out of --quick."""

    name: str
    run: Callable[[Setup], Figure]
    seconds: float = 60.0
    quick: bool = True


def require(holds: bool, text: str, values: Mapping[str, Any] | None = None) -> Figure:
    """Return the figure, or raise it as a failure where the condition does not hold."""
    if not holds:
        raise Failed(text, values)
    return Figure(text, dict(values or {}))
