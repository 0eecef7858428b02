"""`doctor`: a sound installation passes, and each thing that can be wrong is told with what mends it."""

import json
from collections import namedtuple
from importlib.metadata import PackageNotFoundError

import h5py
import pytest
import torch

import galirep
from galirep.errors import ConfigError
from galirep.inspection import checks
from galirep.inspection.doctor import doctor

Usage = namedtuple("Usage", "total used free")


def only(name, folder="."):
    (check,) = (check for check in doctor(folder).checks if check.name == name)
    return check


@pytest.fixture
def two_faiss(monkeypatch):
    monkeypatch.setattr(checks, "installed_packages", lambda: ["faiss-cpu 1.15", "faiss-gpu 1.15"])
    monkeypatch.setattr("galirep.search.faiss_library.installed_packages", checks.installed_packages)
    checks.load_faiss.cache_clear()
    yield
    checks.load_faiss.cache_clear()


def test_this_installation_is_healthy_and_nothing_is_left_behind(tmp_path):
    diagnosis = doctor(tmp_path)
    assert diagnosis.healthy and [check.name for check in diagnosis.checks] == list(checks.CHECKS)
    assert list(tmp_path.iterdir()) == []
    assert str(torch.__version__) in only("torch").found and h5py.__version__ in only("hdf5").found


def test_command_and_python_say_the_same(cli, tmp_path):
    result = cli("doctor", tmp_path, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    # free space moves while others write
    steady = [check for check in told["checks"] if check["name"] not in ("disk", "shared memory")]
    mine = galirep.doctor(tmp_path).to_dict()["checks"]
    assert steady == [check for check in mine if check["name"] not in ("disk", "shared memory")]


def test_two_faiss_packages_fail_the_command(cli, two_faiss, tmp_path):
    check = only("faiss")
    assert check.status == "FAIL" and "faiss-cpu 1.15 and faiss-gpu 1.15 are both installed" in check.found
    assert "pip uninstall both" in check.fix
    result = cli("doctor", tmp_path)
    assert result.exit_code == 1 and "FAIL  faiss" in result.stdout and "fix: pip uninstall both" in result.stdout


def test_without_faiss_only_a_warning(monkeypatch):
    monkeypatch.setattr(checks, "installed_packages", list)
    assert only("faiss").status == "WARN" and "galirep[cpu]" in only("faiss").fix and doctor().healthy


@pytest.mark.parametrize(("built", "fix"), [("13.0", "update the driver"), (None, "built with CUDA")])
def test_a_gpu_that_torch_cannot_see(monkeypatch, built, fix):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(checks.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert only("cuda").status == "FAIL" and fix in only("cuda").fix
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    assert only("cuda").status == "PASS"


def test_torchvision_of_another_torch(monkeypatch):
    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr("torchvision.ops.nms", nms)
    check = only("torch")
    assert check.status == "FAIL" and "torchvision::nms does not exist)" in check.found and "together" in check.fix


def test_more_threads_than_the_container_may_use(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(checks, "_quota", lambda: 1.5)
    assert only("threads").status == "WARN" and only("threads").fix == "set OMP_NUM_THREADS=1"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert only("threads").status == "PASS"


def test_files_that_cannot_be_locked(monkeypatch, tmp_path):
    class File(h5py.File):
        def __init__(self, *args, locking=None, **options):
            if locking:
                raise OSError("unable to lock file, errno = 95")
            super().__init__(*args, **options)

    monkeypatch.setattr(checks.h5py, "File", File)
    check = only("hdf5", tmp_path)
    assert check.status == "WARN" and "errno = 95" in check.found and "--no-file-locking" in check.fix


def test_little_disk_and_little_shared_memory(monkeypatch):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: Usage(2**40, 0, 2**29))
    assert only("disk").status == "WARN" and "0.5 GiB free" in only("disk").found
    assert only("shared memory").status == "WARN" and "--num-workers 0" in only("shared memory").fix
    monkeypatch.setattr(checks, "_SHARED_MEMORY", checks._SHARED_MEMORY / "none")
    assert only("shared memory").status == "PASS"


def test_extras_that_are_missing_are_named(monkeypatch):
    def version(name):
        if name == "torch-fidelity":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(checks, "version", version)
    assert "pyarrow 1" in only("extras").found and "galirep[fidelity]" in only("extras").found


def test_weights_that_were_loaded_to_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "whole.pth").write_bytes(b"x" * 9)
    assert only("weights").status == "PASS" and "1 cached file of" in only("weights").found
    (folder / "empty.pth").touch()
    assert only("weights").status == "WARN" and "empty.pth is empty" in only("weights").found


def test_a_check_that_breaks_is_a_failure_and_the_others_go_on(monkeypatch):
    def broken(_):
        raise ValueError("an odd thing")

    monkeypatch.setitem(checks.CHECKS, "timm", broken)
    assert (only("timm").status, only("timm").found) == ("FAIL", "an odd thing")
    assert only("torch").status == "PASS" and not doctor().healthy


def test_the_folder_has_to_be_one(cli, tmp_path):
    with pytest.raises(ConfigError, match="is not a directory: name the folder"):
        doctor(tmp_path / "none")
    result = cli("doctor", tmp_path / "none")
    assert result.exit_code == 1 and "is not a directory" in result.stderr and "Traceback" not in result.stderr
