"""Checkpoints that are whole or refused: truncated, foreign, with code inside, on a full disk."""

import os
import pickle
import resource
import zipfile

import pytest
import torch

from galirep.errors import CheckpointError, DataError
from galirep.networks.export_file import sha256_tensors
from galirep.runs.checkpoint import load_checkpoint, save_checkpoint

CONTENT = {"step": 3, "nets": {"E": {"w": torch.arange(1000.0)}}, "names": ["a", "b"], "none": None}


@pytest.fixture
def saved(tmp_path):
    save_checkpoint(tmp_path / "last.pt", CONTENT)
    return tmp_path / "last.pt"


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_loaded(saved):
    content = load_checkpoint(saved)
    assert (
        torch.equal(content["nets"]["E"]["w"], torch.arange(1000.0))
        and content["step"] == 3
        and content["names"] == ["a", "b"]
    )
    assert [p.name for p in saved.parent.iterdir()] == ["last.pt"]


def test_a_missing_checkpoint(tmp_path):
    assert "does not exist" in refused(tmp_path / "last.pt")


@pytest.mark.parametrize("kept", (0, 100, 0.5, 0.99))
def test_a_truncated_checkpoint(saved, kept):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    assert "truncated or damaged" in refused(saved)


def test_a_flipped_bit_in_a_tensor(saved):
    data = bytearray(saved.read_bytes())
    data[data.index(torch.arange(1000.0).numpy().tobytes()[400:800])] ^= 1
    saved.write_bytes(data)
    assert "is damaged" in refused(saved)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"galirep_checkpoint": 1, "galirep_version": "0", "net": Harmful()}, tmp_path / "torch.pt")
    assert "more than tensors and plain data" in refused(tmp_path / "torch.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Harmful()))
    refused(tmp_path / "plain.pkl")
    assert not (tmp_path / "harm").exists()


def test_checkpoints_of_others(tmp_path):
    torch.save({"model": {"w": torch.zeros(2)}}, tmp_path / "other.pt")
    assert "is not a checkpoint of galirep" in refused(tmp_path / "other.pt")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    assert "is not a checkpoint of galirep" in refused(tmp_path / "tensor.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(tmp_path / "zip.pt")
    torch.save({"galirep_checkpoint": 99, "galirep_version": "9.0"}, tmp_path / "newer.pt")
    assert "format 99 (galirep 9.0); this galirep reads 1" in refused(tmp_path / "newer.pt")


def test_where_no_more_can_be_written_the_old_checkpoint_stays(saved):
    before, limits = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DataError, match="no space left"):
            save_checkpoint(saved, {**CONTENT, "big": torch.zeros(200_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == ["last.pt"]
    assert load_checkpoint(saved)["step"] == 3


def test_the_hash_of_tensors_is_of_names_types_shapes_and_values_whatever_their_order_and_layout():
    a, b = torch.arange(24.0).view(1, 2, 3, 4), torch.zeros(2, dtype=torch.int64)
    known = sha256_tensors({"a": a, "b": b})
    assert known == sha256_tensors({"b": b, "a": a.contiguous(memory_format=torch.channels_last)})
    others = [
        {"a": a, "c": b},
        {"a": a + 1, "b": b},
        {"a": a.view(2, 1, 3, 4), "b": b},
        {"a": a, "b": b.int()},
        {"a": a},
    ]
    assert known not in map(sha256_tensors, others)
    assert sha256_tensors({"scalar": torch.tensor(1.0)}) != sha256_tensors({"scalar": torch.tensor(2.0)})
