"""Files of earlier versions: a run, an embedding file and an index of commit 04408f9 (fixtures/, with make.py)."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import galirep
from galirep.errors import CheckpointError
from galirep.inspection.paths import info
from galirep.networks.saved import load_network
from galirep.runs.directory import RunDirectory
from galirep.training.config import TrainConfig

WRITTEN = Path(__file__).parent / "fixtures" / "written_by_04408f9"


@pytest.fixture
def old(tmp_path):
    """Copy the files, so that they may be changed."""
    return Path(shutil.copytree(WRITTEN, tmp_path / "old"))


def test_the_encoder_of_a_run_gives_the_features_it_gave(old):
    digits = galirep.open_data("sklearn:digits", "test")
    images = np.stack([digits.read(i) for i in range(len(digits))])
    encoder = galirep.load_encoder(old / "run", ["mu"], device="cpu")
    with galirep.load_embeddings(old / "digits.h5") as stored:
        assert stored.meta.encoder_sha256 == encoder.extractor.sha256
        np.testing.assert_allclose(encoder.transform(images), stored.features[:], atol=1e-5)
        assert list(stored.ids) == list(digits.ids) and list(stored.labels) == digits.labels.tolist()


def test_a_run_has_statistics_of_whole_images(old):
    header = load_network(old / "run", "encoder", statistics="whole")[1]
    assert "statistics" not in header
    with pytest.raises(CheckpointError, match="has no BatchNorm statistics 'masked': it has whole"):
        load_network(old / "run", "encoder", statistics="masked")


def test_a_run_goes_on_from_its_checkpoint(old):
    run = RunDirectory(old / "run")
    config = TrainConfig.from_dict(run.settings())
    longer = TrainConfig.from_dict({**run.settings(), "steps": 8})
    assert galirep.train(config, out=run.path, resume=True).steps == 6  # complete: nothing is left to do
    result = galirep.train(longer, out=run.path, resume=True)
    assert (result.steps, run.info()["status"]) == (8, "complete")
    assert [row["step"] for row in run.metrics()] == [2, 3, 4, 6, 8]
    assert run.info()["argv"][:2] == ["galirep", "train"]  # what made it stays on record


def test_an_embedding_file_is_verified_probed_and_resumed(old, cli, monkeypatch):
    monkeypatch.chdir(old)  # the encoder is named by a relative path
    assert not galirep.verify("digits.h5", data="sklearn:digits").problems
    assert galirep.probe("digits.h5")["n_train"] > 300
    done = cli("embed", "--encoder", "run", "--data", "sklearn:digits", "--split", "test", "--layers", "mu")
    assert done.exit_code == 2  # no --out
    again = ("--split", "test", "--layers", "mu", "--out", "digits.h5", "--device", "cpu", "--resume")
    assert "is complete: 445 rows" in cli("embed", "--encoder", "run", "--data", "sklearn:digits", *again).stdout


def test_an_index_is_searched(old):
    exact = galirep.retrieve(old / "digits.h5", old / "digits.h5", k=5)
    found = galirep.retrieve(old / "digits.faiss", old / "digits.h5", k=5)
    np.testing.assert_array_equal(found.neighbors, exact.neighbors)
    assert found.leave_one_out


@pytest.mark.parametrize("name", ["run", "run/checkpoints/last.pt", "digits.h5", "digits.faiss"])
def test_info_tells_what_it_is(old, name):
    assert info(old / name)["kind"] in ("run", "checkpoint", "embeddings", "index")
