"""Import faiss on first use, after torch, and check that exactly one of its two packages is installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# faiss imported before torch crashes on some systems (faiss issue 4273)
import torch  # noqa: F401

from galirep.errors import ConfigError

# both packages install the module `faiss`
PACKAGES = ("faiss-cpu", "faiss-gpu")
_INSTALL_HINT = "install galirep[cpu], or galirep[gpu] on Linux with an NVIDIA GPU"


def installed_packages() -> list[str]:
    """Return the installed faiss packages, each as `name version`."""
    packages = []
    for name in PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return packages


@cache
def load_faiss() -> Any:
    """Import and return the module `faiss`.

    Raises:
        ConfigError: faiss is missing or broken, or both packages are installed (they overwrite each other's files).
    """
    packages = installed_packages()
    if len(packages) > 1:
        both = " and ".join(packages)
        raise ConfigError(
            f"{both} are both installed and overwrite each other: pip uninstall both of them, then {_INSTALL_HINT}"
        )
    try:
        import faiss
    # RuntimeError: a shared library of faiss-gpu is missing
    except (ImportError, RuntimeError) as err:
        raise ConfigError(f"faiss cannot be imported ({err}): {_INSTALL_HINT}") from err
    # an empty module is what uninstalling one of two packages leaves behind
    if not hasattr(faiss, "IndexFlat"):
        raise ConfigError(f"the module faiss is empty: pip uninstall faiss-cpu and faiss-gpu, then {_INSTALL_HINT}")
    return faiss


def has_faiss() -> bool:
    """Return whether a faiss package is installed; a broken one counts, and fails in `load_faiss`."""
    return bool(installed_packages())


def faiss_metric(metric: str) -> int:
    """Return faiss's constant for a metric; cosine is the inner product of unit vectors."""
    faiss = load_faiss()
    return int(faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def gpu_count() -> int:
    """Return the number of GPUs that the installed faiss can use.

    Check it before an index is copied to a GPU: without one, faiss gives an empty index instead of an error.
    """
    faiss = load_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def copy_to_gpu(index: Any, device: str) -> Any:
    """Return a copy of `index` on the GPU `device`; None if `device` is a CPU or this faiss cannot use a GPU."""
    if not device.startswith("cuda") or not gpu_count():
        return None
    faiss = load_faiss()
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), int(device.partition(":")[2] or 0), index)
