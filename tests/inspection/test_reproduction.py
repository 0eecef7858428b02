"""`galirep info RUN --reproduce`: the printed command makes the run again, to the bit."""

import json
import shlex
from pathlib import Path

import pytest
from tiny_runs import TINY

import galirep
from galirep.errors import CheckpointError, ConfigError
from galirep.networks.export_file import load_export
from galirep.supervised.config import ClassifierConfig
from galirep.training.config import TrainConfig


def _sha256(run, kind):
    return load_export(Path(run), kind)[1]["sha256"]


@pytest.fixture
def pictures(picture_folder, monkeypatch):
    """Work in the folder that has the images."""
    monkeypatch.chdir(picture_folder.parent)
    return picture_folder.name


@pytest.fixture
def picture_folder(tmp_path):
    """Make sixteen small pictures in two classes."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for i in range(16):
        path = tmp_path / "my images" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return tmp_path / "my images"


def test_the_printed_command_makes_the_same_networks(pictures, cli):
    values = {**TINY, "data": pictures, "steps": 2, "image_size": 8, "channels": 1, "num_workers": 0, "lr": 0.001}
    galirep.train(TrainConfig.from_dict(values), out="run")
    printed = cli("info", "run", "--reproduce")
    assert printed.exit_code == 0, printed.stderr
    command, *comments = printed.stdout.splitlines()
    assert all(line.startswith("# ") for line in comments)
    arguments = shlex.split(command)
    assert arguments[:2] == ["galirep", "train"] and arguments[-2:] == ["--out", "run-again"]
    again = cli(*arguments[1:])
    assert again.exit_code == 0, again.stderr
    for kind in ("encoder", "generator", "discriminator"):
        assert _sha256("run", kind) == _sha256("run-again", kind)
        assert f"# {kind}.safetensors must have the sha256 {_sha256('run', kind)}" in comments
    told = galirep.info("run", reproduce=True)["reproduce"]
    assert told["shell"] == command and told["command"] == arguments
    assert told["fingerprint"] == json.loads(Path("run/run.json").read_text())["data"]["fingerprint"]
    assert set(told["versions"]) == {"galirep", "torch", "python"} and told["devices"] == ["cpu"]
    assert json.loads(cli("info", "run", "--reproduce", "--json").stdout)["reproduce"] == told


def test_a_classifier_is_made_again_too(pictures, cli):
    values = {"data": pictures, "net": "compact", "width": 4, "image_size": 8, "channels": 1, "batch_size": 8}
    galirep.train_classifier(ClassifierConfig.from_dict({**values, "epochs": 1, "device": "cpu"}), out="net")
    command = galirep.info("net", reproduce=True)["reproduce"]["command"]
    again = cli(*command[1:])
    assert again.exit_code == 0, again.stderr
    assert _sha256("net", "classifier") == _sha256("net-again", "classifier")


def test_what_is_no_run_is_told(pictures, tmp_path):
    with pytest.raises(ConfigError, match="my images is data, not a run: --reproduce is for what train made"):
        galirep.info(pictures, reproduce=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("width: 4\n")
    (tmp_path / "broken" / "run.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"run\.json is not a JSON object"):
        galirep.info(tmp_path / "broken", reproduce=True)
