"""`doctor`: what galirep stands on here, checked piece by piece; each that is not in order comes with what mends it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from galirep.errors import ConfigError
from galirep.inspection.checks import CHECKS, Check


@dataclass(frozen=True)
class Diagnosis:
    """All checks, in order."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check failed; warnings are allowed."""
        return all(check.status != "FAIL" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the checks as plain data."""
        return {"healthy": self.healthy, "checks": [asdict(check) for check in self.checks]}

    def lines(self) -> list[str]:
        """Return the checks for people: one line each, and what mends it below."""
        width = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{check.status}  {check.name:{width}}  {check.found}")
            lines += [f"{'':{6 + width}}  fix: {check.fix}"] if check.fix else []
        return lines


def doctor(folder: str | Path = ".") -> Diagnosis:
    """Check Python, torch, CUDA, faiss, timm, HDF5, memory, disk and weights; `folder` is where outputs are to be.

    Nothing is downloaded; small files are written to `folder` and removed. A check that itself breaks is a FAIL.

    Raises:
        ConfigError: `folder` is not a directory.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a directory: name the folder where outputs are to be written")
    return Diagnosis(tuple(_guarded(name, check, folder) for name, check in CHECKS.items()))


def _guarded(name: str, check: Callable[[Path], Check], folder: Path) -> Check:
    try:
        return check(folder)
    except Exception as err:  # a broken installation may raise anything
        found = str(err).splitlines()[0] if str(err) else type(err).__name__
        return Check(name, "FAIL", found, "reinstall what the message names, or report it with this output")
