"""train-classifier: it learns, stops, is killed and resumed to the bit, and its export is an extractor."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from galirep.errors import CheckpointError, ConfigError, DataError, PluginError
from galirep.features.protocol import describe, require_gradient
from galirep.features.registry import load_extractor
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.runs.checkpoint import load_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.supervised.config import FAMILY_NAMES, NET_NAMES, ClassifierConfig
from galirep.supervised.extractor import load_classifier
from galirep.supervised.loop import train_classifier
from galirep.supervised.nets import NETS, build_net, fitting_size
from galirep.supervised.targets import Targets
from galirep.supervised.task import ClassifierTask
from galirep.system.devices import autocast_of

DIGITS = ClassifierConfig("sklearn:digits", epochs=3, batch_size=64, device="cpu", num_workers=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Three epochs on the 8x8 digits of scikit-learn, never interrupted."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_classifier(DIGITS, out=folder, test_split="test")
    return folder


@pytest.mark.parametrize(
    ("net", "size", "inputs"),
    [("digits", 32, 2048), ("digits", 16, 512), ("attributes", 64, 2048), ("attributes", 32, 2048)],
)
def test_nets_end_in_256_hidden_units(net, size, inputs):
    model = build_net(net, Shapes(size, 3, 0), classes=5).eval()
    assert next(m for m in model.trunk if isinstance(m, torch.nn.Linear)).in_features == inputs
    images = torch.rand(2, 3, size, size)
    assert model.trunk(images).shape == (2, 256) and model.trunk(images).min() >= 0 and model(images).shape == (2, 5)


def test_sizes_of_the_nets():
    assert [fitting_size(net, size) for net in sorted(NETS) for size in (28, 32, 50)] == [32, 32, 64, 32, 32, 56]
    with pytest.raises(ConfigError, match="image size 28: the net 'digits' takes multiples of 8, such as 32"):
        build_net("digits", Shapes(28, 1, 0), classes=10)


def test_it_learns_digits_and_reports(trained):
    info = json.loads((trained / "run.json").read_text())
    assert info["status"] == "complete" and info["report"]["accuracy"] > 0.9 and info["test"]["accuracy"] > 0.9
    assert info["report"]["n"] + 1216 == 1352 and info["test"]["n"] == 445
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3] and rows[-1]["val_loss"] < rows[0]["val_loss"]
    assert {p.name for p in trained.iterdir()} == {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "export"}
    assert "10 classes; images 8 x 8, 1 channels" in (trained / "export" / "README.md").read_text()


def test_its_hidden_layer_is_the_feature(trained):
    extractor = load_extractor(f"classifier:{trained}")
    net, header = load_classifier(trained)
    about = describe(extractor)
    assert (about.name, about.dim, about.image_size, about.channels, about.sha256) == (
        "classifier-digits",
        256,
        8,
        1,
        header["sha256"],
    )
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    torch.testing.assert_close(extractor(images), net.trunk(images))
    require_gradient(extractor, torch.rand(2, 3, 20, 20) * 2 - 1)
    assert load_extractor(f"classifier:{trained / 'export'}").sha256 == about.sha256


KILLED = """
import os, signal, sys
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.runs.checkpoint import load_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.supervised.config import FAMILY_NAMES, NET_NAMES, ClassifierConfig
from galirep.supervised.loop import train_classifier
def kill(row):
    if row["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
config = ClassifierConfig("sklearn:digits", epochs=3, batch_size=64, device="cpu", num_workers=0)
train_classifier(config, out=sys.argv[1], on_epoch=kill)
"""


def test_killed_and_resumed_it_ends_as_if_never_interrupted(trained, tmp_path):
    run = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", KILLED, run], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (run / "export" / "classifier.safetensors").exists()
    train_classifier(DIGITS, out=run, test_split="test", resume=True)
    for file in ("export/classifier.safetensors", "metrics.jsonl"):
        assert (run / file).read_bytes() == (trained / file).read_bytes()


def test_an_interrupt_saves_first(tmp_path):
    def interrupt(row):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train_classifier(DIGITS, out=tmp_path / "run", on_epoch=interrupt)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "run" / "checkpoints" / "last.pt").exists()


def _task(pixels, targets, **settings) -> ClassifierTask:
    config = ClassifierConfig("made", net="digits", image_size=8, channels=1, batch_size=4, **settings)
    device = torch.device("cpu")
    return ClassifierTask(config, pixels, targets, device, autocast_of(device, "fp32"))


@pytest.fixture
def made():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return pixels, Targets(torch.randint(-1, 3, (40,), generator=generator), ("a", "b", "c"))


def test_a_state_saved_within_an_epoch_goes_on_to_the_bit(made):
    straight, broken = _task(*made), _task(*made)
    for _ in range(3):
        straight.advance()
        broken.advance()
    resumed = _task(*made)
    resumed.load_state_dict(broken.state_dict())
    for task in (straight, resumed):
        while not task.at_epoch_end:
            task.advance()
    assert straight.close_epoch() == resumed.close_epoch()
    assert all(
        torch.equal(a, b)
        for a, b in zip(straight.net.state_dict().values(), resumed.net.state_dict().values(), strict=True)
    )


def test_held_out_images_are_apart_from_training_and_labelled(made):
    task = _task(*made, val_fraction=0.25)
    held, train = set(task.held_out.tolist()), set(task.train_on.tolist())
    assert not held & train and held | train == {i for i, label in enumerate(made[1].values.tolist()) if label >= 0}
    assert len(held) == -(-len(held | train) // 4)
    with pytest.raises(DataError, match="labelled images are too few to hold"):
        _task(made[0][:1], Targets(made[1].values[:1].clamp_min(0), ("a", "b")))


def test_it_stops_when_held_out_images_bring_nothing_more(made):
    task = _task(*made, epochs=50, patience=2, lr=0.05)  # labels are noise: the loss on held-out images soon rises
    while not task.done:
        task.advance()
        if task.step % task.steps_per_epoch == 0:
            task.close_epoch()
    losses = [row["val_loss"] for row in task.history]
    assert len(losses) < 50 and len(losses) == task.best_epoch + 2 and task.best_epoch == losses.index(min(losses)) + 1


def test_a_resume_under_other_settings_lists_each_difference(trained):
    other = ClassifierConfig("sklearn:digits", epochs=4, batch_size=32, device="cpu", num_workers=0)
    with pytest.raises(
        CheckpointError, match="is a run of another configuration: epochs: 4, not 3; batch_size: 32, not 64"
    ):
        train_classifier(other, out=trained, resume=True)
    with pytest.raises(ConfigError, match="is a run already: pass --resume to go on with it or --overwrite"):
        train_classifier(DIGITS, out=trained)


@pytest.fixture
def faces(tmp_path) -> Path:
    """Two splits of 16x16 pictures, whose attributes `bright` and `left` are plain to see, with their CSV files."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 140), ("test", 40)):
        (tmp_path / "faces" / split).mkdir(parents=True)
        rows = ["id,bright,left"]
        for k in range(count):
            bright, left = rng.integers(0, 2, 2)
            picture = rng.integers(0, 60, (16, 16, 3)) + 100 * bright
            picture[:, slice(0, 8) if left else slice(8, 16)] += 80
            Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "faces" / split / f"{k:03d}.png")
            rows.append(f"{k:03d},{bright},{left}")
        (tmp_path / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_attributes_by_the_command(cli, faces):
    data = [
        "--data",
        faces / "faces",
        "--labels",
        faces / "train.csv",
        "--out",
        faces / "run",
        "--device",
        "cpu",
        "--num-workers",
        0,
    ]
    options = ["--epochs", 6, "--batch-size", 16, "--patience", 6, "--json"]
    done = cli("train-classifier", *data, *options, "--test-split", "test", "--test-labels", faces / "test.csv")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (
        result["test"]["attributes"].keys() == {"bright", "left"}
        and result["test"]["accuracy"] > 0.9
        and result["test"]["n"] == 40
    )
    assert "epoch 1: loss" in done.stderr and "bright: 0.9" in done.stderr.replace("1.0", "0.9")
    assert describe(load_extractor(f"classifier:{faces / 'run'}")).tag.startswith("2 attributes, accuracy ")
    again = cli("train-classifier", *data, *options, "--resume")  # a complete run has nothing left to do
    assert again.exit_code == 0 and "epoch" not in again.stderr.partition("run:")[0]

    labels = (faces / "train.csv").read_text()
    (faces / "train.csv").write_text(
        labels.replace("000,0", "000,1") if "000,0" in labels else labels.replace("000,1", "000,0")
    )
    changed = cli("train-classifier", *data, *options, "--resume")
    assert changed.exit_code == 1 and "labels: its content is not that of the run" in changed.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--image-size", 20], 1, "image size 20: the net 'digits' takes multiples of 8, such as 24"),
        (["--lr", 0], 1, "lr 0.0: must be more than 0"),
        (["--val-fraction", 1], 1, "val_fraction 1"),
        (["--net", "digit"], 2, "'digit'"),
        (["--labels", "missing.csv"], 1, "cannot read missing.csv: No such file"),
        (["--test-labels", "a.csv"], 1, "name the split too, --test-split"),
        (["--test-split", "tset"], 1, "tset"),
        (["--resume", "--data", ""], 1, "is not a run, so it cannot be resumed"),
    ],
)
def test_bad_options(cli, tmp_path, options, code, message):
    done = cli("train-classifier", "--data", "sklearn:digits", "--out", tmp_path / "run", *options)
    assert done.exit_code == code and message in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_settings_come_from_options_files_and_the_run_that_is_resumed(cli, tmp_path):
    (tmp_path / "m.yaml").write_text("data: sklearn:digits\nepochs: 1\nbatch_size: 64\nlr: 2e-3\n")
    command = ("train-classifier", "--out", tmp_path / "run")
    done = cli(*command, "--config", tmp_path / "m.yaml", "--batch-size", 128, "--set", "val_fraction=.2", "--json")
    assert done.exit_code == 0, done.stderr
    settings = RunDirectory(tmp_path / "run").settings()
    assert [settings[k] for k in ("epochs", "batch_size", "lr", "val_fraction")] == [1, 128, 2e-3, 0.2]
    again = cli(*command, "--resume", "--json")
    assert json.loads(again.stdout) == json.loads(done.stdout)
    refused = cli(*command, "--resume", "--lr", 1e-3)
    assert refused.exit_code == 1 and "another configuration: lr: 0.001, not 0.002" in refused.stderr
    both = cli(*command[:1], "--out", tmp_path / "x", "--set", "batchsize=3")
    assert both.exit_code == 1 and "unknown setting 'batchsize': did you mean 'batch_size'?" in both.stderr


def test_every_setting_has_an_option_with_help_and_a_net_behind_its_name(cli):
    text = cli("train-classifier", "--help").stdout
    assert all("--" + field.name.replace("_", "-") in text for field in dataclasses.fields(ClassifierConfig))
    assert set(NET_NAMES) == set(NETS) and tuple(NETWORKS) == FAMILY_NAMES


def test_exports_that_cannot_be_loaded(trained, tmp_path):
    with pytest.raises(PluginError, match="needs the directory that galirep train-classifier made"):
        load_extractor("classifier:")
    with pytest.raises(CheckpointError, match="has no exported classifier"):
        load_extractor(f"classifier:{tmp_path}")
    content = (trained / "export" / "classifier.safetensors").read_bytes()
    file = tmp_path / "classifier.safetensors"
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[: len(content) // 2], b""):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            load_extractor(f"classifier:{tmp_path}")
    save_file({"weight": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match="is not a galirep export of kind 'classifier'"):
        load_extractor(f"classifier:{tmp_path}")
    save_file({"weight": torch.ones(2)}, file, metadata={"galirep": json.dumps({"kind": "classifier", "format": 99})})
    with pytest.raises(CheckpointError, match="has export format 99; this galirep reads 1"):
        load_extractor(f"classifier:{tmp_path}")


def test_a_checkpoint_whose_history_is_not_plain_is_one_line(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    last = RunDirectory(run).last
    content = load_checkpoint(last)
    content["history"][0]["loss"] = torch.zeros(2)
    torch.save(content, last)
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"the checkpoint .*last.pt is damaged or of another run: .*Tensor"):
        train_classifier(DIGITS, out=run, resume=True, test_split="test")
    assert (run / "metrics.jsonl").read_bytes() == before
