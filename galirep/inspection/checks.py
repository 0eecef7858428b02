"""The checks of `doctor`: Python, torch, GPUs, faiss, HDF5, disk, memory and weights, one function each."""

import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch

from galirep.errors import GalirepError, plural
from galirep.search.faiss_library import installed_packages, load_faiss
from galirep.version import __version__

Status = Literal["PASS", "WARN", "FAIL"]
_GIB = 2**30
LITTLE_DISK = 5 * _GIB
LITTLE_SHARED_MEMORY = _GIB
"""Bytes below which a warning is given."""
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Check:
    """One piece: `PASS`, `WARN` (something will not work, or be slow) or `FAIL` (nothing will), and what mends it."""

    name: str
    status: Status
    found: str
    fix: str = ""


def _python(_: Path) -> Check:
    found = f"{platform.python_version()}, galirep {__version__}, {platform.system()} {platform.machine()}"
    return Check("python", "PASS", found)


def _torch(_: Path) -> Check:
    found = f"torch {torch.__version__}"
    product = torch.ones(2, 3) @ torch.ones(3, 2)
    if not bool((product == 3).all()):
        return Check("torch", "FAIL", f"{found}: 2 x 3 by 3 x 2 ones is not 3", "reinstall torch")
    try:
        torchvision = importlib.import_module("torchvision")
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        importlib.import_module("torchvision.ops").nms(boxes, torch.ones(1), 0.5)
    except (ImportError, RuntimeError, AttributeError) as err:
        return Check(
            "torch",
            "FAIL",
            f"{found}, and a torchvision that does not fit it ({str(err).splitlines()[0]})",
            "install torch and torchvision together: pip install --upgrade torch torchvision",
        )
    return Check("torch", "PASS", f"{found}, torchvision {torchvision.__version__}")


def _cuda(_: Path) -> Check:
    built, driver = torch.version.cuda, shutil.which("nvidia-smi") is not None
    if not torch.cuda.is_available():
        if not driver:
            return Check("cuda", "PASS", "no NVIDIA GPU: everything runs on the CPU")
        why = f"torch is built for CUDA {built}" if built else "torch is built without CUDA"
        fix = "update the driver, or install a torch built for its CUDA" if built else "install a torch built with CUDA"
        return Check("cuda", "FAIL", f"there is an NVIDIA driver, but torch sees no GPU: {why}", fix)
    names = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        # a GPU that is too new or too old for this build fails here
        torch.ones(2, 2, device=f"cuda:{index}") @ torch.ones(2, 2, device=f"cuda:{index}")
        names.append(f"cuda:{index} {properties.name}, {properties.total_memory / _GIB:.0f} GiB")
    return Check("cuda", "PASS", f"CUDA {built}: {'; '.join(names)}")


def _threads(_: Path) -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _quota()
    found = f"torch takes {plural(torch.get_num_threads(), 'thread')} of {plural(usable, 'core')}"
    allowed = usable if limit is None else min(usable, limit)
    if torch.get_num_threads() > allowed:
        found += f", and this container may use {allowed:g}"
        return Check("threads", "WARN", found, f"set OMP_NUM_THREADS={max(1, int(allowed))}")
    return Check("threads", "PASS", found)


def _quota() -> float | None:
    """Return the cores that a cgroup grants this process; None where there is no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _faiss(_: Path) -> Check:
    packages = installed_packages()
    if not packages:
        fix = "pip install 'galirep[cpu]', or 'galirep[gpu]' on Linux with an NVIDIA GPU"
        return Check("faiss", "WARN", "not installed: index files and large galleries need it", fix)
    try:
        faiss = load_faiss()
    except GalirepError as err:
        found, fix = str(err).rsplit(": ", 1)
        return Check("faiss", "FAIL", found, fix)
    vectors = np.eye(4, dtype=np.float32)
    index = faiss.IndexFlatL2(4)
    index.add(vectors)
    if index.search(vectors, 1)[1][:, 0].tolist() != [0, 1, 2, 3]:
        return Check("faiss", "FAIL", f"{packages[0]} does not find vectors again", "reinstall faiss")
    return Check("faiss", "PASS", packages[0])


def _timm(_: Path) -> Check:
    timm = importlib.import_module("timm")
    return Check("timm", "PASS", f"timm {timm.__version__}, {len(timm.list_models())} models")


def _extras(_: Path) -> Check:
    packages = {"parquet": "pyarrow", "inception": "pytorch-fid", "fidelity": "torch-fidelity"}
    packages |= {"tensorboard": "tensorboard"}
    there, missing = [], []
    for extra, package in packages.items():
        try:
            there.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(f"galirep[{extra}]")
    found = ", ".join(there) or "none"
    return Check("extras", "PASS", found + (f"; not installed: {', '.join(missing)}" if missing else ""))


def _hdf5(folder: Path) -> Check:
    found = f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}"
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary, "check.h5")
        try:
            with h5py.File(path, "w", locking=True) as file:
                file["rows"] = np.arange(3)
            with h5py.File(path, "r", locking=True) as file:
                whole = file["rows"][:].tolist() == [0, 1, 2]
        except OSError as err:
            return Check(
                "hdf5",
                "WARN",
                f"{found}: files in {folder} cannot be locked ({str(err).splitlines()[0]})",
                "pass --no-file-locking, or set HDF5_USE_FILE_LOCKING=FALSE; let one process at a time write a file",
            )
    if not whole:
        return Check("hdf5", "FAIL", f"{found}: a file in {folder} does not read as written", "take another folder")
    return Check("hdf5", "PASS", f"{found}, files in {folder} can be locked")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB free in {folder}"
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        first, second = Path(temporary, "first"), Path(temporary, "second")
        with first.open("wb") as file:
            file.write(b"galirep")
            file.flush()
            os.fsync(file.fileno())
        second.touch()
        first.replace(second)
    if free < LITTLE_DISK:
        return Check("disk", "WARN", found, "free some space: a run keeps checkpoints, an embedding file every feature")
    return Check("disk", "PASS", found)


def _shared_memory(_: Path) -> Check:
    if not _SHARED_MEMORY.is_dir():
        return Check("shared memory", "PASS", f"{platform.system()} has no {_SHARED_MEMORY}")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    found = f"{free / _GIB:.1f} GiB free in {_SHARED_MEMORY}"
    if free < LITTLE_SHARED_MEMORY:
        fix = "give the container more (docker run --shm-size=4g), or pass --num-workers 0"
        return Check("shared memory", "WARN", f"{found}: decoding workers may die", fix)
    return Check("shared memory", "PASS", found)


def _weights(_: Path) -> Check:
    files = sorted(_cached())
    if not files:
        found = "no pretrained weights in the caches of torch and Hugging Face"
        return Check("weights", "PASS", f"{found}; name a file (timm:MODEL@FILE) or allow --download")
    size = sum(file.stat().st_size for file in files)
    found = f"{plural(len(files), 'cached file')} of {size / _GIB:.1f} GiB"
    empty = [file for file in files if not file.stat().st_size]
    if empty:
        return Check("weights", "WARN", f"{found}; {empty[0]} is empty", f"delete {empty[0]} and load it again")
    return Check("weights", "PASS", found)


def _cached() -> Iterator[Path]:
    hugging_face = importlib.import_module("huggingface_hub.constants").HF_HUB_CACHE
    for folder, pattern in (
        (Path(torch.hub.get_dir(), "checkpoints"), "*.pt*"),
        (Path(hugging_face), "*/snapshots/*/*.safetensors"),
        (Path(hugging_face), "*/snapshots/*/*.bin"),
    ):
        yield from folder.glob(pattern)


CHECKS: dict[str, Callable[[Path], Check]] = {
    "python": _python,
    "torch": _torch,
    "cuda": _cuda,
    "threads": _threads,
    "faiss": _faiss,
    "timm": _timm,
    "extras": _extras,
    "hdf5": _hdf5,
    "disk": _disk,
    "shared memory": _shared_memory,
    "weights": _weights,
}
"""Name -> check of a folder; the order is that of the output."""
