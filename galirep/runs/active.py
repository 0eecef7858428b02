"""A run while a job works in it: begun or resumed, with its status kept in run.json. All training commands use it."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import torch

from galirep.errors import CheckpointError
from galirep.runs.directory import RunDirectory
from galirep.system.devices import device_name
from galirep.system.outputs.temporary import remove_leftovers_within
from galirep.version import __version__


class ActiveRun:
    """A run directory and what its run.json records; get one with `begin` or `resume`."""

    def __init__(self, directory: RunDirectory, info: Mapping[str, Any]) -> None:
        self.directory, self.info = directory, dict(info)

    @classmethod
    def begin(
        cls, directory: RunDirectory, settings: Mapping[str, Any], facts: Mapping[str, Any], device: torch.device
    ) -> "ActiveRun":
        """Create the run directory; `facts` are recorded in run.json beside versions, arguments, time and device."""
        info = {**_origin(), "devices": [device_name(device)], **facts}
        directory.create(settings, info)
        return cls(directory, info)

    @classmethod
    def resume(cls, directory: RunDirectory, differences: Sequence[str], device: torch.device) -> "ActiveRun":
        """Take up a run that exists; `differences` say in what the job differs from the one that made it.

        The device is noted behind those that the run was made on before, unless it is the last of them. A run of an
        older galirep names none; its list begins with the first that is known.

        Raises:
            CheckpointError: there are differences (all are listed).
        """
        if differences:
            raise CheckpointError(f"{directory.path} is a run of another configuration: {'; '.join(differences)}")
        remove_leftovers_within(directory.path)
        info = directory.info()
        devices, here = info.get("devices", []), device_name(device)
        if devices[-1:] != [here]:
            devices = [*devices, here]
        return cls(directory, {**info, "devices": devices})

    def write_status(self, status: str, **facts: Any) -> None:
        """Replace run.json: `running`, `interrupted`, `failed` or `complete`, and the facts of this moment."""
        self.directory.write_info({**self.info, "status": status, **facts, "updated": _now()})


def _origin() -> dict[str, Any]:
    """Return what run.json records of how and when a run was begun."""
    return {
        "galirep": __version__,
        "torch": torch.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "argv": sys.argv,
        "started": _now(),
        "status": "running",
    }


def _now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
