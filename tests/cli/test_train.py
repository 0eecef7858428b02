"""`galirep train` as a user gets it: options from settings, bad input in one line, and a process that is killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml

from galirep.runs.checkpoint import load_checkpoint
from galirep.training.config import TrainConfig
from galirep.training.session import Session

TINY = (
    "--networks",
    "compact",
    "--width",
    "4",
    "--latent-dim",
    "4",
    "--batch-size",
    "8",
    "--device",
    "cpu",
    "--num-workers",
    "0",
    "--sample-every",
    "0",
)
TIMING = ("seconds", "images_per_second", "peak_memory_mib")


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", images=rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    return f"npz:{tmp_path / 'data.npz'}"


def one_line(result, code=1):
    assert result.exit_code == code and "Traceback" not in result.stderr, result.stderr
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("galirep: error: ") and len(lines) == 1
    return lines[-1]


def metrics_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def assert_same(one, other, path=""):
    """Equal to the bit: tensors and plain values."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, path


def test_help_has_every_setting_with_its_default_and_an_example(cli):
    text = cli("train", "--help").stdout
    for field in dataclasses.fields(TrainConfig):
        assert "--" + field.name.replace("_", "-") in text
    for shown in (
        "[default: gali-4]",
        "[default: 0.0005]",
        "Example: galirep train --data",
        "--dry-run",
        "--resume",
        "--overwrite",
        "--set",
    ):
        assert shown in " ".join(text.split())


def test_a_dry_run_prints_the_settings_and_writes_nothing(cli, tmp_path):
    result = cli(
        "train", "--data", "sklearn:digits", "--out", tmp_path / "run", "--lr", "1e-3", "--set", "beta1=.9", "-n"
    )
    settings = yaml.safe_load(result.stdout)
    assert (settings["lr"], settings["beta1"], settings["variant"]) == (1e-3, 0.9, "gali-4") and not (
        tmp_path / "run"
    ).exists()
    as_json = cli("train", "--data", "sklearn:digits", "--out", tmp_path / "run", "--dry-run", "--json")
    assert TrainConfig.from_dict(json.loads(as_json.stdout)) == TrainConfig(data="sklearn:digits")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--variant", "gali4"], "unknown variant 'gali4': did you mean"),
        (["--variant", "/dev/zero"], "unknown variant '/dev/zero'"),
        (["--variant", "{folder}/bad.toml"], "bad.toml is not valid TOML"),
        (["--variant", "gali-pt"], "uses M(.): name a feature extractor"),
        (["--data", "npz:{folder}/none.npz"], "none.npz' does not exist"),
        (["--out", "{folder}"], "exists and is not a run of galirep"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_dry_run_refuses_what_a_run_would(cli, tmp_path, args, says):
    (tmp_path / "bad.toml").write_text("classes = [")
    args = [arg.format(folder=tmp_path) for arg in args]
    result = cli("train", "-n", "--data", "sklearn:digits", "--out", tmp_path / "run", *args)
    assert says in one_line(result, 1) and not result.stdout


def test_options_win_over_the_file_and_set_over_both(cli, tmp_path):
    (tmp_path / "my.yaml").write_text("data: sklearn:digits\nlr: 2e-3\nbatch_size: 7\nepochs: 3\nseed: 5\n")
    args = (
        "train",
        "--config",
        tmp_path / "my.yaml",
        "--out",
        tmp_path / "run",
        "--lr",
        "1e-3",
        "--batch-size",
        "9",
        "--set",
        "batch-size=11",
    )
    settings = json.loads(cli(*args, "-n", "--json").stdout)
    assert [settings[k] for k in ("lr", "batch_size", "epochs", "steps", "seed")] == [1e-3, 11, 3.0, None, 5]
    settings = json.loads(cli(*args, "--steps", "20", "-n", "--json").stdout)
    assert (settings["steps"], settings["epochs"]) == (20, None)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--objective", "prodct"], 2, "prodct"),
        (["--steps", "many"], 2, "'many' is not a valid integer"),
        (["--stepps", "3"], 2, "--stepps"),
        (["--batch-size", "1"], 1, "batch_size 1: must be 2 or more"),
        (["--lr", "99", "--width", "2"], 1, "width 2: must be from 4 to 1024; lr 99.0: must be from 0 to 10"),
        (["--set", "lr"], 1, "--set 'lr': write KEY=VALUE"),
        (["--set", "learning_rate=3"], 1, "unknown setting 'learning_rate'"),
        (["--variant", "gali4"], 1, "unknown variant 'gali4': did you mean 'gali-4'?"),
        (["--variant", "none.toml"], 1, "cannot read the variant file none.toml: No such file"),
        (["--body", "timm:nothing"], 1, "timm has no model 'nothing'"),
        (["--body-lr", "0.1"], 1, "body_layers and body_lr are of a body: name one"),
        (["--body", "pixels:16", "--body-layers", "conv1"], 1, "has one layer of features: name no layers"),
        (
            ["--init-from", "none"],
            1,
            "init_from 'none': no such folder; name a run, an export folder or classifier:DIR",
        ),
        (["--networks", "svhn"], 1, "unknown networks 'svhn': did you mean 'svhn32'?"),
        (["--num-workers", "some"], 2, "'some' is neither 'auto' nor a whole number of workers"),
        (["--config", "none.yaml"], 1, "cannot read none.yaml: No such file"),
        (["--steps", "3", "--epochs", "2"], 1, "steps 3 and epochs 2: give one of them"),
        (["--batch-size", "100"], 1, "a batch of 100 is larger than the data set of 40 images"),
        (["--image-size", "64"], 1, "16"),
        (["--data", "npz:none.npz"], 1, "none.npz"),
        (["--resume", "--data", ""], 1, "is not a run, so it cannot be resumed"),
        (["--split", "test"], 1, "has no split 'test'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_bad_input_is_one_line_and_leaves_nothing(cli, data, tmp_path, args, code, says):
    result = cli("train", "--data", data, "--out", tmp_path / "run", "--device", "cpu", "--num-workers", "0", *args)
    assert says in one_line(result, code) and not (tmp_path / "run").exists()


def test_a_run_by_command_and_its_summary_as_json(cli, data, tmp_path):
    run = tmp_path / "run"
    result = cli("train", "--data", data, "--out", run, *TINY, "--steps", 3, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["run"] == str(run) and summary["steps"] == 3 and summary["loss_d"] > 0
    assert "is a run already: pass --resume" in one_line(cli("train", "--data", data, "--out", run, *TINY))
    refused = one_line(cli("train", "--out", run, "--resume", "--steps", 2, "--lr", 1e-3))
    assert "steps: 2, not 3; lr: 0.001, not 0.0005" in refused
    assert cli("train", "--out", run, "--resume").exit_code == 0  # a finished run is a finished run
    assert json.loads(cli("train", "--out", run, "--resume", "--steps", 5, "--json").stdout)["steps"] == 5


def test_a_signal_is_exit_code_130_and_the_same_command_with_resume_goes_on(cli, data, tmp_path, monkeypatch):
    run, advance = tmp_path / "run", Session.advance
    (tmp_path / "my.yaml").write_text(f"data: {data}\nepochs: 1\nlr: 1e-3\n")
    args = ("train", "--config", tmp_path / "my.yaml", "--out", run, *TINY)

    def advance_and_signal(self):
        advance(self)
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "advance", advance_and_signal)
        result = cli(*args)
    assert (
        result.exit_code == 130
        and "interrupted" in result.stderr
        and load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 2
    )
    result = cli(*args, "--resume")  # epochs in the file, steps in the run
    assert result.exit_code == 0, result.stderr
    assert json.loads((run / "run.json").read_text())["step"] == 5


def test_a_process_that_is_killed_resumes_to_the_same_numbers(cli, data, tmp_path):
    """SIGKILL at any moment, then --resume: every tensor and every metric as of a run never interrupted."""
    args = [
        *TINY,
        "--data",
        data,
        "--steps",
        "40",
        "--log-every",
        "4",
        "--checkpoint-every",
        "7",
        "--d-steps",
        "2",
        "--schedule",
        "cosine",
    ]
    args += ["--variant", "gali-mix", "--d-regularizer", "sn-scale", "--holdout", "6", "--evaluate-every", "5"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    threads = str(torch.get_num_threads())  # sums are split by threads, so equal numbers need equally many
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    process = subprocess.Popen(
        [sys.executable, "-m", "galirep.cli", "train", "--out", str(run), *args],
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "metrics.jsonl").exists() and metrics_of(run)[-1:] and metrics_of(run)[-1]["step"] >= 16:
            process.kill()
            break
        time.sleep(0.002)
    _, stderr = process.communicate()
    assert process.returncode == -signal.SIGKILL, stderr.decode()
    reached = load_checkpoint(run / "checkpoints" / "last.pt")["step"]
    assert 14 <= reached < 40 and (
        reached % 7 == 0 or reached % 5 == 0
    )  # an evaluation that is the best so far is saved too
    assert json.loads((run / "run.json").read_text())["status"] == "running"

    assert cli("train", "--out", whole, *args).exit_code == 0
    resumed = cli("train", "--out", run, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert metrics_of(run) == metrics_of(whole) and metrics_of(run)[-1]["step"] == 40
    assert_same(*(load_checkpoint(folder / "checkpoints" / "last.pt") for folder in (run, whole)))
    assert_same(*(load_checkpoint(folder / "checkpoints" / "best.pt") for folder in (run, whole)))
    assert sum("evaluation" in row for row in metrics_of(run)) == 8
    assert not list(run.rglob("*.tmp"))
