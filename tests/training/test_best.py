"""Evaluation of held-out images during a run, and the checkpoint that is best by it."""

import numpy as np
import pytest
import torch
from tiny_runs import config, info_of, labelled, metrics_of, scripted_evaluations, tiny

from galirep.errors import ConfigError
from galirep.features.registry import load_extractor
from galirep.networks.saved import export_run, load_autoencoder
from galirep.runs.checkpoint import load_checkpoint
from galirep.system.settings import read_settings
from galirep.training.config import TrainConfig
from galirep.training.loop import train


def test_the_best_evaluation_keeps_its_checkpoint_and_its_export(tmp_path, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "out"
    scripted_evaluations(monkeypatch, [0.5, 0.3, 0.3, 0.4, 0.6])
    train(config(steps=5, holdout=4, evaluate_every=1, checkpoint_every=5, log_every=5), tiny(), out=run)
    best = {"by": "pixel_mse", "step": 2, "value": 0.3}
    content = load_checkpoint(run / "checkpoints" / "best.pt")
    assert content["step"] == 2 and content["best"] == best == info_of(run)["best"]
    encoder, _, about = load_autoencoder(run / "best")
    assert about["step"] == 2 and (about["data"]["images"], about["data"]["held_out"]) == (16, 4)
    assert all(torch.equal(v, content["average"]["E"][k]) for k, v in encoder.state_dict().items())
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 5 and load_autoencoder(run)[2]["step"] == 5
    assert load_extractor(str(run / "best")).tag == "step 2" and len(export_run(run / "best", out)) == 5
    text = (run / "summary.md").read_text()
    assert "| mse of mu(G(z)) |" in text
    assert "those of step 2, with the least pixel_mse on held-out images, 0.3" in text and "| 4 | 0.4000 | - |" in text
    assert [row["evaluation"]["pixel_mse"] for row in metrics_of(run)] == [0.5, 0.3, 0.3, 0.4, 0.6]
    assert "held-out mse 0.3000" in (run / "train.log").read_text()


def test_best_by_knn_error(tmp_path):
    run = tmp_path / "run"
    train(config(steps=4, holdout=10, evaluate_every=1, best_by="knn_error"), labelled(), out=run)
    errors = [row["evaluation"]["knn_error"] for row in metrics_of(run)]
    assert info_of(run)["best"] == {"by": "knn_error", "step": 1 + int(np.argmin(errors)), "value": min(errors)}


def test_labels_and_evaluations_change_nothing_that_is_trained(tmp_path):
    images = labelled(20)
    for name, every, labels in (("a", 0, images.labels), ("b", 1, images.labels), ("c", 1, None)):
        images.labels = labels
        train(config(steps=3, holdout=4, evaluate_every=every), images, out=tmp_path / name)
    a, b, c = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in "abc")
    for letter in "EGD":
        for key, value in a["nets"][letter].items():
            assert torch.equal(value, b["nets"][letter][key]) and torch.equal(value, c["nets"][letter][key])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"holdout": 13}, "holdout 13 leaves 7 of 20 images, fewer than a batch of 8"),
        ({"holdout": 99}, "holdout 99 leaves 0 of 20 images"),
        ({"holdout": -1}, "holdout -1: must be 0 or more"),
        ({"evaluate_every": 10}, "evaluate_every 10 needs images to evaluate on, and holdout is 0"),
        (
            {"holdout": 2, "best_by": "knn_error"},
            "best_by knn_error needs labels of held-out images, but tiny has none: choose pixel_mse",
        ),
        (
            {"best_by": "knn_error"},
            "best_by knn_error needs labels of held-out images, but no images are evaluated on: choose",
        ),
        ({"best_by": "mse"}, "best_by"),
    ],
)
def test_an_evaluation_that_cannot_be_made_is_one_line_and_leaves_nothing(settings, says, tmp_path):
    with pytest.raises(ConfigError) as caught:
        train(config(**settings), tiny(), out=tmp_path / "run")
    assert says in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_what_is_held_out_where_nothing_is_said(tmp_path):
    for name, n, held in (("a", 40, 4), ("b", 8, 0)):
        train(config(holdout=None), tiny(n=n), out=tmp_path / name)
        stored = TrainConfig.from_dict(read_settings(tmp_path / name / "config.yaml"))
        assert (stored.holdout, stored.evaluate_every) == (held, 1000 if held else 0)
        assert info_of(tmp_path / name)["data"]["images"] == n - held
