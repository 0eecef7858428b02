"""What the figures were measured on: card, driver, torch, CUDA, clocks, and the optional libraries that are there."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from galirep.system.devices import device_name, device_of

_LIBRARIES = ("numpy", "torchvision", "safetensors", "tqdm", "timm", "faiss-gpu", "faiss-cpu", "triton")
_ASKED = {
    "driver": "driver_version",
    "clock_sm_mhz": "clocks.sm",
    "clock_sm_max_mhz": "clocks.max.sm",
    "clock_memory_mhz": "clocks.mem",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
}


def describe(device: torch.device) -> dict[str, Any]:
    """Describe the machine for the report.

    Raises:
        ConfigError: there is no such device.
    """
    device = device_of(str(device))
    found: dict[str, Any] = {
        "device": device_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "python": platform.python_version(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "libraries": {name: _version(name) for name in ("galirep", *_LIBRARIES)},
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found["memory_gib"] = round(card.total_memory / 2**30, 1)
        found["capability"] = f"{card.major}.{card.minor}"
        found.update(_nvidia_smi(str(card.uuid) if hasattr(card, "uuid") else None))
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _nvidia_smi(uuid: str | None) -> dict[str, str]:
    """Ask nvidia-smi for the driver and the clocks; empty where it is not there or does not answer."""
    if shutil.which("nvidia-smi") is None:
        return {}
    which = [] if uuid is None else ["-i", uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"]
    command = ["nvidia-smi", *which, f"--query-gpu={','.join(_ASKED.values())}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_ASKED, (cell.strip() for cell in done.stdout.splitlines()[0].split(",")), strict=False))
