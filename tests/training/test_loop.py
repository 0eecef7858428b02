"""The training loop: every variant end to end, what a run leaves, what cannot begin, and that training learns."""

import math
import threading

import numpy as np
import psutil
import pytest
import torch
from tiny_runs import assert_same_checkpoint, config, contents, info_of, metrics_of, tiny
from torch import nn

from galirep.errors import CheckpointError, ConfigError, GalirepError, PluginError
from galirep.features.registry import load_extractor
from galirep.game.objectives import chance
from galirep.game.variant import Variant
from galirep.game.variants import VARIANTS, get_variant
from galirep.networks.saved import load_autoencoder
from galirep.runs.checkpoint import load_checkpoint
from galirep.system.settings import read_settings
from galirep.training.config import TrainConfig
from galirep.training.loop import train


class Plain(nn.Module):
    """An ordinary network as M(.), which knows nothing of galirep."""

    def __init__(self, blocked=False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net, self.blocked = (
                nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 6)),
                blocked,
            )

    def forward(self, x):
        return self.net(x.detach() if self.blocked else x)


# --- every variant


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_checkpoints_and_reloads(name, tmp_path):
    variant, run = get_variant(name), tmp_path / "run"
    adapter = Plain() if variant.needs_features else None
    result = train(config(variant=name, d_regularizer="none", instance_noise=0.0), tiny(), out=run, adapter=adapter)
    assert (result.run, result.steps, result.metrics["step"]) == (run, 3, 3)
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["loss_d"] == pytest.approx(chance(variant.n).d, rel=0.02) == rows[0]["loss_g"]
    assert np.allclose(rows[0]["probs"], 1 / variant.n, atol=0.05)
    assert ("penalty" in rows[0]) == bool(variant.penalties) and all(v > 0 for v in rows[0]["gradient_norms"].values())
    assert info_of(run)["status"] == "complete" and Variant.from_dict(info_of(run)["variant"]) == variant

    content = load_checkpoint(run / "checkpoints" / "last.pt")
    assert content["step"] == 3 and Variant.from_dict(content["variant"]) == variant
    encoder, generator, _ = load_autoencoder(run)
    for net, letter in ((encoder, "E"), (generator, "G")):
        assert all(torch.equal(v, content["average"][letter][k]) for k, v in net.state_dict().items())
    features = load_extractor(f"run:{run}")(torch.zeros(2, 1, 8, 8))
    assert features.isfinite().all()


@pytest.mark.parametrize(
    "settings",
    [
        {"d_regularizer": "sn"},
        {"d_regularizer": "sn-scale"},
        {"d_regularizer": "r1r2", "r1_every": 2},
        {"d_regularizer": "r1r2", "r1_every": 2, "r1_on": "pairs", "objective": "relativistic"},
        {"d_regularizer": "r1r2", "r1_every": 2, "r1_on": "all-pairs"},
        {"objective": "relativistic", "d_regularizer": "none", "grad_clip": 1.0, "schedule": "cosine", "warmup": 2},
        {"objective": "misclassification", "d_regularizer": "none", "d_steps": 5, "batch_size": 3},
        {"objective": "minimax", "d_regularizer": "none", "precision": "bf16", "ema_half_life": 0.0},
    ],
    ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()),
)
def test_settings_train(settings, tmp_path):
    train(config(**settings), tiny(), out=tmp_path / "run")
    rows = metrics_of(tmp_path / "run")
    assert len(rows) == 3 and all(
        math.isfinite(row[k]) for row in rows for k in ("loss_d", "loss_g", "mu_std", "sigma")
    )
    assert [("r1" in row) for row in rows] == [
        settings.get("d_regularizer") == "r1r2" and row["step"] in (1, 3) for row in rows
    ]


def test_d_steps_are_updates_of_d_on_images_of_their_own(tmp_path, monkeypatch):
    calls = []
    from galirep.training import session

    plain = session.compute_gradients
    monkeypatch.setattr(
        session,
        "compute_gradients",
        lambda game, x, *a, **k: calls.append((k["d_only"], x.flatten(1).sum(1))) or plain(game, x, *a, **k),
    )
    train(config(d_steps=5, batch_size=2, steps=None, epochs=2.0, holdout=0), tiny(), out=tmp_path / "run")
    assert [d_only for d_only, _ in calls] == [True, True, True, True, False] * 4  # 2 epochs of 20 images, 10 an update
    seen = torch.cat([sums for _, sums in calls]).view(2, 20)
    torch.testing.assert_close(seen[0].sort().values, seen[1].sort().values)
    assert len(seen[0].unique()) == 20 and metrics_of(tmp_path / "run")[-1]["epoch"] == 2


def test_what_a_run_leaves(tmp_path):
    run = tmp_path / "run"
    train(config(steps=5, checkpoint_every=2, sample_every=2, log_every=3), tiny(), out=run)
    names = set(contents(run))
    assert {
        "config.yaml",
        "run.json",
        "train.log",
        "metrics.jsonl",
        "summary.md",
        "checkpoints/last.pt",
        "checkpoints/step-00000005.pt",
    } <= names
    assert {
        f"export/{name}"
        for name in (
            *("encoder.safetensors", "generator.safetensors", "discriminator.safetensors"),
            *("encoder.json", "README.md"),
        )
    } <= names
    assert "variant `gali-4` (of the paper), 5 updates" in (run / "export" / "README.md").read_text()
    pictures = {f"samples/{kind}-{step:08d}.png" for kind in ("prior", "reconstruction") for step in (2, 4, 5)}
    assert {n for n in names if n.startswith("samples/")} == pictures
    assert not [n for n in names if n.endswith(".tmp")] and len([n for n in names if n.endswith(".pt")]) == 2
    assert [row["step"] for row in metrics_of(run)] == [
        2,
        3,
        4,
        5,
    ]  # before each checkpoint too, so that a resumed run writes the same
    stored = TrainConfig.from_dict(read_settings(run / "config.yaml"))
    assert (stored.steps, stored.image_size, stored.channels, stored.latent_dim, stored.networks) == (
        5,
        8,
        1,
        4,
        "compact",
    )


def test_a_run_leaves_no_open_file_and_no_thread(tmp_path):
    threads = threading.active_count()
    train(config(steps=1), tiny(), out=tmp_path / "run")
    assert not [f.path for f in psutil.Process().open_files() if f.path.startswith(str(tmp_path))]
    assert threading.active_count() == threads


def test_the_seed_decides_the_run(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed * 7)  # what the caller did before does not
        torch.rand(ord(name))
        train(config(seed=seed), tiny(), out=tmp_path / name)
    assert metrics_of(tmp_path / "a") == metrics_of(tmp_path / "b") != metrics_of(tmp_path / "c")
    assert_same_checkpoint(tmp_path / "a", tmp_path / "b")


def test_where_a_run_may_begin(tmp_path, caplog):
    run, other = tmp_path / "run", tmp_path / "other"
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is not a run, so it cannot be resumed: leave --resume out to begin one"):
        train(config(), tiny(), out=tmp_path / "file", resume=True)
    # an early kill leaves nothing
    train(config(), tiny(), out=run, resume=True)
    assert "does not exist yet, or is empty: the run starts from the beginning" in caplog.text
    before = contents(run)
    with pytest.raises(
        ConfigError, match="is a run already: pass --resume to go on with it or --overwrite to replace it"
    ):
        train(config(), tiny(), out=run)
    assert contents(run) == before
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for overwrite in (False, True):  # --overwrite replaces a run, and nothing else
        with pytest.raises(ConfigError, match="exists and is not a run of galirep"):
            train(config(), tiny(), out=other, overwrite=overwrite)
    assert (other / "thesis.txt").read_text() == "mine"
    train(config(steps=2), tiny(), out=run, overwrite=True)
    assert [row["step"] for row in metrics_of(run)] == [1, 2]


# --- what cannot begin


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"variant": "gali4"}, GalirepError, "did you mean 'gali-4'"),
        ({"batch_size": 21}, ConfigError, "a batch of 21 is larger than the data set of 20 images"),
        ({"networks": "svhn32"}, ConfigError, "take images of 32 pixels, not 8"),
        ({"variant": "gali-pt"}, ConfigError, "uses M(.): name a feature extractor"),
        ({"adapter": "pixels"}, ConfigError, "does not use M(.), so it takes no adapter"),
        ({"r1_features": True}, ConfigError, "r1_features: no tuple of the variant 'gali-4' has features of M(.)"),
        ({"precision": "fp16", "d_regularizer": "sn"}, ConfigError, "precision 'fp16' needs a CUDA device"),
        ({"device": "tpu"}, ConfigError, "device 'tpu'"),
        ({"device": "cuda:77"}, ConfigError, "CUDA devices; pass --device cpu or auto"),
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing(settings, error, says, tmp_path):
    with pytest.raises(error) as caught:
        train(config(**settings), tiny(), out=tmp_path / "run")
    assert says in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        (Plain(blocked=True), "lets no gradient pass to its input"),
        (torch.no_grad()(Plain().eval()), "lets no gradient pass to its input"),
        (lambda x: x.detach().flatten(1) * torch.ones(64, requires_grad=True), "lets no gradient pass to its input"),
        (lambda x: x, "must return (2, d) finite numbers for two images, not (2, 1, 8, 8)"),
        (lambda x: x.flatten(1) / 0, "must return (2, d) finite numbers"),
        (lambda x: [1.0], "not list"),
    ],
    ids=["detaches", "no_grad", "weights-only", "images", "infinite", "list"],
)
def test_an_adapter_that_g_cannot_learn_from_is_refused(adapter, says, tmp_path):
    with pytest.raises(PluginError) as caught:
        train(config(variant="gali-pt"), tiny(), out=tmp_path / "run", adapter=adapter)
    assert says in str(caught.value) and not (tmp_path / "run").exists()


def test_m_is_frozen_and_standardised(tmp_path, monkeypatch):
    from galirep.training import session

    adapter, known = Plain().train(), []
    state = {k: v.clone() for k, v in adapter.state_dict().items()}
    plain = session.compute_gradients
    monkeypatch.setattr(
        session, "compute_gradients", lambda *a, **k: known.extend(k["known"].values()) or plain(*a, **k)
    )
    train(config(variant="gali-pt", batch_size=20, steps=1), tiny(), out=tmp_path / "run", adapter=adapter)
    assert all(torch.equal(v, state[k]) for k, v in adapter.state_dict().items()) and all(
        p.grad is None for p in adapter.parameters()
    )
    torch.testing.assert_close(known[0].mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(known[0].square().mean(), torch.tensor(1.0))


# --- learning


@pytest.mark.parametrize("variant", ("gali-4", "gali-8"))
def test_each_side_wins_against_one_that_stands_still(variant, digit_images, tmp_path):
    settings = {
        "variant": variant,
        "width": 8,
        "batch_size": 32,
        "steps": 40,
        "d_regularizer": "none",
        "instance_noise": 0.0,
        "log_every": 10,
    }
    train(config(**settings, lr=0.0, lr_d=2e-3), digit_images, out=tmp_path / "d")
    own = metrics_of(tmp_path / "d")[-1]
    n = get_variant(variant).n
    assert own["loss_d"] < 0.8 * chance(n).d and np.diag(own["probs"]).mean() > 1.5 / n
    train(config(**settings, lr=2e-3, lr_d=0.0), digit_images, out=tmp_path / "g")
    losses = [row["loss_g"] for row in metrics_of(tmp_path / "g")]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_training_learns_to_rebuild_digits(digit_images, tmp_path):
    """After 100 updates G(mu(x)) is nearer to x than the mean image is: about half its squared error."""
    settings = {"variant": "alice", "width": 8, "latent_dim": 8, "batch_size": 32, "steps": 100, "log_every": 100}
    train(
        config(**settings, d_regularizer="r1r2", r1_gamma=1.0, lr=2e-3, beta2=0.99, ema_half_life=1000.0),
        digit_images,
        out=tmp_path / "run",
    )
    encoder, generator, _ = load_autoencoder(tmp_path / "run")
    x = digit_images.tensor().float() / 127.5 - 1
    error = float((generator(encoder(x)[0]) - x).square().mean())
    assert error < 0.75 * float((x - x.mean(0)).square().mean())
