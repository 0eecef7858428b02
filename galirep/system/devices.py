"""Where networks run and in which arithmetic."""

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from galirep.errors import ConfigError


def device_of(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is there.

    Raises:
        ConfigError: there is no such device.
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
    """Return what a run records of its device: `cpu`, or `cuda (NVIDIA H100 80GB HBM3)` with torch's name of the card."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def autocast_of(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[object]]:
    """A context in which networks compute in fp32, bf16 or fp16.

    Raises:
        ConfigError: fp16 on a CPU, which has no fast fp16 and no need for it.
    """
    if precision == "fp32":
        return nullcontext
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError(f"precision 'fp16' needs a CUDA device, not {device.type}: take fp32 or bf16")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return lambda: torch.autocast(device.type, dtype)


def peak_memory(device: torch.device) -> float:
    """The most memory held so far, MiB: of the device where it is a GPU, else of this process (0 where the system does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_MOST_ON_HEAP = 32 << 20  # bytes; the largest threshold that glibc takes


def keep_freed_memory() -> bool:
    """Have glibc keep the memory of tensors that are freed for the next ones, up to 32 MiB each, instead of handing it back to the system,
    which has to clear every page that it gives out again. It holds for the whole process, so only a command calls this, never the library.

    Gives whether it took effect; where the C library is another, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows; a C library without it
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MOST_ON_HEAP) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
