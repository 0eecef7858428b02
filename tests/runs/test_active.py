"""run.json of a run in progress: the devices that it was made on."""

import pytest
import torch

from galirep.errors import CheckpointError
from galirep.runs.active import ActiveRun
from galirep.runs.directory import RunDirectory
from galirep.system.devices import device_name

CPU, CARD = torch.device("cpu"), torch.device("cuda:0")
H100 = "cuda (NVIDIA H100 80GB HBM3)"


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Begin a run on a CPU, on a machine that has a card."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    directory = RunDirectory(tmp_path / "run")
    ActiveRun.begin(directory, {}, {}, CPU)
    return directory


def test_the_name_of_a_device(directory):
    assert (device_name(CPU), device_name(CARD)) == ("cpu", H100)


def test_the_device_of_the_beginning_and_of_each_resume_that_changed_it(directory):
    assert directory.info()["devices"] == ["cpu"]
    for device, devices in ((CPU, ["cpu"]), (CARD, ["cpu", H100]), (CARD, ["cpu", H100]), (CPU, ["cpu", H100, "cpu"])):
        ActiveRun.resume(directory, [], device).write_status("running")
        assert directory.info()["devices"] == devices


def test_a_run_of_an_older_galirep_names_its_devices_from_its_resume_on(directory):
    info = directory.info()
    del info["devices"]
    directory.write_info(info)
    ActiveRun.resume(directory, [], CARD).write_status("running")
    assert directory.info()["devices"] == [H100]


def test_a_refused_resume_records_nothing(directory):
    with pytest.raises(CheckpointError, match="lr: 1, not 2"):
        ActiveRun.resume(directory, ["lr: 1, not 2"], CARD)
    assert directory.info()["devices"] == ["cpu"]
