"""Curves of a run for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """A writer of TensorBoard curves in `folder`; it does nothing where tensorboard is not installed."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(folder), purge_step=step)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Add every number of a row of metrics.jsonl."""
        if self._writer is not None:
            for name, value in metrics.items():
                for key, number in value.items() if isinstance(value, dict) else [("", value)]:
                    if isinstance(number, int | float) and name != "step":
                        self._writer.add_scalar(f"{name}/{key}" if key else name, number, metrics["step"])
            self._writer.flush()

    def close(self) -> None:
        """Close the file of curves and end the thread that writes it."""
        if self._writer is not None:
            self._writer.close()
