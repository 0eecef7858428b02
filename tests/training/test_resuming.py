"""A resumed run equals one never interrupted; what cannot be resumed is refused. A killed process: tests/cli."""

import dataclasses
import errno
import json
import signal
from pathlib import Path

import pytest
import torch
from tiny_runs import assert_same_checkpoint, config, contents, info_of, labelled, metrics_of, stop_at, tiny

from galirep.errors import CheckpointError, DataError
from galirep.features.registry import load_extractor
from galirep.game.variant import Variant
from galirep.runs.checkpoint import load_checkpoint
from galirep.system.settings import read_settings
from galirep.training.loop import train


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_saves_and_a_resumed_run_ends_as_one_never_interrupted(tmp_path, monkeypatch, number):
    settings = config(steps=7, checkpoint_every=4, log_every=2, d_steps=2, schedule="cosine", variant="gali-mix")
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(settings, tiny(), out=whole)
    with monkeypatch.context() as patch:
        stop_at(patch, 3, number)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tiny(), out=run)
    assert (info_of(run)["status"], info_of(run)["step"]) == ("interrupted", 3)
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 3
    result = train(settings, tiny(), out=run, resume=True)
    assert result.steps == 7 and info_of(run)["status"] == "complete"
    assert_same_checkpoint(run, whole)
    assert [row["step"] for row in metrics_of(run)] == [2, 3, 4, 6, 7] and metrics_of(run)[-1] == metrics_of(whole)[-1]


def test_a_finished_run_resumes_to_itself(tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    first = train(config(), tiny(), out=run)
    train(config(), tiny(), out=whole)
    (run / "export" / "encoder.safetensors").unlink()  # as if killed between the last checkpoint and its export
    (run / "summary.md").unlink()
    again = train(config(), tiny(), out=run, resume=True)
    assert again.metrics == first.metrics and again.steps == 3 and (run / "summary.md").is_file()
    assert_same_checkpoint(run, whole)
    assert metrics_of(run) == metrics_of(whole)
    assert load_extractor(f"run:{run}").sha256 == load_extractor(f"run:{whole}").sha256


@pytest.mark.parametrize("stop", (2, 3, 5))
def test_evaluation_survives_an_interruption_to_the_bit(tmp_path, monkeypatch, stop):
    settings = config(steps=7, holdout=4, evaluate_every=3, checkpoint_every=2, log_every=1)
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(settings, labelled(20), out=whole)
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            train(settings, labelled(20), out=run)
    if stop == 3:
        (run / "checkpoints" / "best.pt").unlink()  # as if killed between last.pt and it
    train(settings, labelled(20), out=run, resume=True)
    assert_same_checkpoint(run, whole)
    assert metrics_of(run) == metrics_of(whole) and info_of(run)["best"] == info_of(whole)["best"]
    assert load_checkpoint(run / "checkpoints" / "best.pt")["step"] == info_of(run)["best"]["step"]


def test_a_users_variant_resumes_after_its_file_is_gone(tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text(
        'classes = [["x", "E(x)"], ["G(z)", "z"], ["y", "E(x)"]]\n'
        'penalties = [["l1", "E(x)", "E(y)", 0.1]]\n[where]\ny = "G(E(x))"\n'
    )
    settings, run = config(variant=str(path), steps=4), tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tiny(), out=run)
    mine = Variant.from_toml(path)
    path.write_text('name = "mine"\nclasses = [["x", "E(x)"], ["G(z)", "z"]]\n')
    with pytest.raises(CheckpointError, match="variant: "):
        train(settings, tiny(), out=run, resume=True)
    path.unlink()
    train(settings, tiny(), out=run, resume=True)
    assert Variant.from_dict(load_checkpoint(run / "checkpoints" / "last.pt")["variant"]) == mine
    assert load_extractor(f"run:{run}").dim > 0 and info_of(run)["status"] == "complete"


def test_a_run_with_views_and_a_projector_ends_as_one_never_interrupted(tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text(
        'classes = [["x", "E(T1(x))"], ["G(z)", "z"]]\n'
        'penalties = [["vicreg", "E(T1(x))", "E(T2(x))", 0.1], ["info-nce", "mu(x)", "E(T2(x))"]]\n'
    )
    settings = config(variant=str(path), views="crop,flip", steps=5, checkpoint_every=2, lr_e=1e-3, d_steps=2)
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(settings, tiny(), out=whole)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tiny(), out=run)
    with pytest.raises(CheckpointError, match="views: 'crop', not 'crop,flip'"):
        train(dataclasses.replace(settings, views=None), tiny(), out=run, resume=True)
    train(settings, tiny(), out=run, resume=True)
    assert_same_checkpoint(run, whole)
    state = load_checkpoint(run / "checkpoints" / "last.pt")
    assert set(state["nets"]) == {"E", "G", "D", "P"} and set(state["average"]) == {"E", "G"}
    row = metrics_of(run)[-1]
    assert row["penalty"] > 0 and set(row["weight_norms"]) == set(row["gradient_norms"]) == {"E", "G", "D"}


def test_what_only_describes_a_variant_may_differ(tmp_path):
    run = tmp_path / "run"
    train(config(steps=2), tiny(), out=run)
    info = info_of(run)
    # as runs of earlier versions are recorded, and with another description
    del info["variant"]["origin"]
    info["variant"]["about"] = "told otherwise"
    (run / "run.json").write_text(json.dumps(info))
    assert train(config(steps=3), tiny(), out=run, resume=True).steps == 3


def test_a_resume_that_differs_is_refused_with_each_difference_and_changes_nothing(tmp_path):
    run = tmp_path / "run"
    train(config(), tiny(), out=run)
    before = contents(run)
    with pytest.raises(CheckpointError) as caught:
        train(config(lr=1e-3, steps=2, d_regularizer="none", num_workers=3), tiny(seed=1), out=run, resume=True)
    message = str(caught.value)
    assert message.startswith(f"{run} is a run of another configuration: ")
    for part in (
        "steps: 2, not 3",
        "lr: 0.001, not 0.0005",
        "d_regularizer: 'none', not 'r1r2'",
        "the images are not those of the run",
    ):
        assert part in message
    assert "num_workers" not in message and contents(run) == before


@pytest.mark.parametrize("settings", ({}, {"d_regularizer": "sn", "instance_noise": 0.0, "warmup": 4}))
def test_a_run_at_a_constant_rate_can_be_made_longer_and_ends_as_one_that_was_so_from_the_start(tmp_path, settings):
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(config(steps=7, **settings), tiny(), out=whole)
    train(config(steps=3, **settings), tiny(), out=run)
    assert train(config(steps=7, **settings), tiny(), out=run, resume=True).steps == 7
    assert_same_checkpoint(run, whole)
    assert metrics_of(run) == metrics_of(whole)
    assert info_of(run)["status"] == "complete" and read_settings(run / "config.yaml") == read_settings(
        whole / "config.yaml"
    )
    with pytest.raises(CheckpointError, match="steps: 3, not 7"):
        train(config(steps=3, **settings), tiny(), out=run, resume=True)


@pytest.mark.parametrize("settings", ({"schedule": "cosine"}, {"d_regularizer": "sn", "instance_noise": 0.1}))
def test_a_run_whose_rate_or_noise_falls_over_its_length_keeps_its_length(tmp_path, settings):
    train(config(**settings), tiny(), out=tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(CheckpointError, match="steps: 9, not 3"):
        train(config(steps=9, **settings), tiny(), out=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("damage", ("truncated", "foreign", "another run's", "no run.json"))
def test_a_checkpoint_that_cannot_be_resumed_from_is_told_and_nothing_changes(damage, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    train(config(), tiny(), out=run)
    last = run / "checkpoints" / "last.pt"
    if damage == "truncated":
        last.write_bytes(last.read_bytes()[:-2000])
    elif damage == "foreign":
        torch.save({"model": torch.zeros(3)}, last)
    elif damage == "another run's":
        train(config(width=8, lr=1e-3), tiny(), out=other)
        last.write_bytes((other / "checkpoints" / "last.pt").read_bytes())
    else:
        (run / "run.json").write_text('{"status": "run')
    before = contents(run)
    says = {
        "truncated": "truncated or damaged",
        "foreign": "is not a checkpoint of galirep",
        "no run.json": "is not valid JSON",
    }.get(damage, "width: 4, not 8; lr")
    with pytest.raises(CheckpointError, match=says):
        train(config(), tiny(), out=run, resume=True)
    assert contents(run) == before


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_later(tmp_path, monkeypatch):
    run, whole = tmp_path / "run", tmp_path / "whole"
    settings = config(steps=6, checkpoint_every=2)
    train(settings, tiny(), out=whole)
    write_bytes, saves = Path.write_bytes, []

    def full(self, data):
        if ".last.pt." in self.name and (saves.append(self) or len(saves) == 3):
            write_bytes(self, bytes(data)[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            DataError, match=r"no space left for .*last\.pt: free some and run again; what was there before"
        ):
            train(settings, tiny(), out=run)
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 2 and not list(run.rglob("*.tmp"))
    train(settings, tiny(), out=run, resume=True)
    assert_same_checkpoint(run, whole)
    assert metrics_of(run) == metrics_of(whole)
