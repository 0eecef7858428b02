"""Devices, arithmetic precision and memory of a process."""

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from galirep.errors import ConfigError, unknown

PRECISIONS = ("fp32", "bf16", "fp16")


def device_of(name: str) -> torch.device:
    """Return the torch device for `auto` (CUDA if available, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; pass --device cpu or auto"
        )
    return device


def device_name(device: torch.device) -> str:
    """Return what a run records of its device: `cpu`, or `cuda (NVIDIA H100 80GB HBM3)`, by torch's name of it."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def autocast_of(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[object]]:
    """Return a context manager factory in which networks compute in `fp32`, `bf16` or `fp16`.

    Raises:
        ConfigError: another precision, or fp16 on a CPU, which has no fast fp16 and no need for it.
    """
    if precision not in PRECISIONS:
        raise ConfigError(unknown("precision", precision, PRECISIONS))
    if precision == "fp32":
        return nullcontext
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError(f"precision 'fp16' needs a CUDA device, not {device.type}: take fp32 or bf16")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return lambda: torch.autocast(device.type, dtype)


def peak_memory(device: torch.device) -> float:
    """Return the peak memory so far, in MiB: allocated on a GPU, else resident in this process (0 on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # in bytes on macOS, in KiB elsewhere
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


# parameters of mallopt(3)
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MAX_HEAP_BLOCK = 32 << 20  # bytes; the largest threshold that glibc accepts


def keep_freed_memory() -> bool:
    """Make glibc reuse freed tensor memory (blocks of up to 32 MiB) instead of returning it to the system.

    The system has to clear every page that it hands out again, so this saves page faults. It holds for the whole
    process, so only a command calls it, never the library.

    Returns:
        Whether it took effect; with another C library nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows; a C library without mallopt
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MAX_HEAP_BLOCK) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
