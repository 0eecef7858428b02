"""NaN, returns to the last good checkpoint, and a learning rate far too high: told in words, nothing lost."""

import math

import pytest
import torch
from tiny_runs import break_weights, config, flat, info_of, metrics_of, scripted_evaluations, tiny

from galirep.errors import GalirepError
from galirep.features.registry import load_extractor
from galirep.runs.checkpoint import load_checkpoint
from galirep.training.loop import train


def test_nan_is_told_and_rolled_back_at_half_the_learning_rate(tmp_path, monkeypatch, caplog):
    run = tmp_path / "run"
    break_weights(monkeypatch, times=2)
    train(config(steps=8, checkpoint_every=2, lr=2e-4, schedule="constant"), tiny(), out=run)
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == list(range(1, 9)) and all(math.isfinite(row["loss_g"]) for row in rows)
    assert [row["lr"] for row in rows] == pytest.approx([2e-4] * 4 + [0.5e-4] * 4)
    content = load_checkpoint(run / "checkpoints" / "last.pt")
    assert (content["rollbacks"], content["lr_scale"], content["step"]) == (2, 0.25, 8)
    assert all(v.isfinite().all() for v in flat(content).values() if isinstance(v, torch.Tensor))
    told = (
        "losses, gradients or weights became infinite or NaN by step 5: back to step 4 with 0.5 times the learning rate"
    )
    assert told in caplog.text and told in (run / "train.log").read_text() and info_of(run)["status"] == "complete"


def test_nan_that_comes_back_ends_the_run_after_three_returns(tmp_path, monkeypatch):
    run = tmp_path / "run"
    break_weights(monkeypatch, times=100)
    with pytest.raises(
        GalirepError, match=r"became infinite or NaN by step 5, after 3 returns to .* begin anew with a lower --lr"
    ):
        train(config(steps=8, checkpoint_every=2), tiny(), out=run)
    assert info_of(run)["status"] == "failed" and load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 4
    assert (run / "train.log").read_text().count("back to step 4") == 3
    assert all(math.isfinite(row["loss_g"]) for row in metrics_of(run))
    assert load_extractor(f"run:{run}")(torch.zeros(1, 1, 8, 8)).isfinite().all()


def test_a_run_without_roll_backs_ends_at_the_first_nan(tmp_path, monkeypatch):
    break_weights(monkeypatch, times=1, at=1)
    with pytest.raises(GalirepError, match="by step 1, after 0 returns"):
        train(config(max_rollbacks=0), tiny(), out=tmp_path / "run")
    break_weights(monkeypatch, times=1, at=1)
    train(config(max_rollbacks=1), tiny(), out=tmp_path / "other")  # to the checkpoint of step 0
    assert metrics_of(tmp_path / "other")[0]["lr"] == pytest.approx(2.5e-4)


def test_a_roll_back_keeps_the_best_and_the_end_names_it(tmp_path, monkeypatch):
    run = tmp_path / "run"
    break_weights(monkeypatch, times=100)
    scripted_evaluations(monkeypatch, [0.3] + [0.5] * 9)
    with pytest.raises(
        GalirepError, match=r"after 1 returns to .*; .*best has the networks of step 2, the best before"
    ):
        train(config(steps=8, holdout=4, evaluate_every=2, checkpoint_every=8, max_rollbacks=1), tiny(), out=run)
    info = info_of(run)
    assert (info["status"], info["best"]["step"]) == ("failed", 2)
    assert load_extractor(str(run / "best"))(torch.zeros(1, 1, 8, 8)).isfinite().all()


def test_a_learning_rate_100_times_too_high_is_told_in_words_and_survived(digit_images, tmp_path, caplog):
    run = tmp_path / "run"
    settings = {"width": 8, "latent_dim": 8, "batch_size": 32, "steps": 120, "log_every": 20, "d_regularizer": "none"}
    train(config(**settings, lr=0.05, holdout=None, evaluate_every=20), digit_images, out=run)
    told = caplog.text
    assert "Traceback" not in told and "reconstruction no better than the mean image" in told
    info = info_of(run)
    assert info["status"] == "complete" and info["warnings"] and info["warnings"] == metrics_of(run)[-1]["warnings"]
    assert all(f"- {text}" in (run / "summary.md").read_text() for text in info["warnings"])
    assert load_extractor(str(run / "best"))(torch.zeros(1, 1, 8, 8)).isfinite().all()
