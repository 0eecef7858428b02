"""The one door to faiss: imported on first use, after torch, and only where exactly one of its two packages is installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch  # noqa: F401  faiss before torch ends in a crash on some systems (faiss issue 4273)

from galirep.errors import ConfigError

PACKAGES = ("faiss-cpu", "faiss-gpu")  # both install the module `faiss`
_MISSING = "install galirep[cpu], or galirep[gpu] on Linux with an NVIDIA GPU"


def installed_packages() -> list[str]:
    """Which of the faiss packages are installed, as `name version`."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


@cache
def load_faiss() -> Any:
    """The module `faiss`.

    Raises:
        ConfigError: it is missing or broken, or both packages are installed: they overwrite each other's files.
    """
    packages = installed_packages()
    if len(packages) > 1:
        both = " and ".join(packages)
        raise ConfigError(
            f"{both} are both installed and overwrite each other: pip uninstall both of them, then {_MISSING}"
        )
    try:
        import faiss
    except (ImportError, RuntimeError) as err:  # RuntimeError: a shared library of faiss-gpu is missing
        raise ConfigError(f"faiss cannot be imported ({err}): {_MISSING}") from err
    if not hasattr(faiss, "IndexFlat"):  # what uninstalling one of two packages leaves behind
        raise ConfigError(f"the module faiss is an empty shell: pip uninstall faiss-cpu and faiss-gpu, then {_MISSING}")
    return faiss


def has_faiss() -> bool:
    """Whether faiss is installed; a broken installation is not the same as none, and fails when it is loaded."""
    return bool(installed_packages())
