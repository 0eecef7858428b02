"""The training loop: every variant end to end, what a run leaves, how it goes on, and what it does when things break."""

import errno
import hashlib
import json
import math
import signal
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from galirep.checkpoint import load_checkpoint
from galirep.config import TrainConfig, read_config
from galirep.data import Images, load_images, open_data
from galirep.encoder import export_run, load_autoencoder
from galirep.errors import CheckpointError, ConfigError, DataError, GalirepError, PluginError
from galirep.features import load_extractor
from galirep.held_out import HeldOut
from galirep.losses import chance
from galirep.session import Session
from galirep.training import train
from galirep.variant import Variant
from galirep.variants import VARIANTS, get_variant

TINY = {
    "data": "tiny",
    "networks": "compact",
    "width": 4,
    "latent_dim": 4,
    "batch_size": 8,
    "log_every": 1,
    "sample_every": 0,
    "holdout": 0,
    "device": "cpu",
}
TIMING = ("seconds", "images_per_second", "peak_memory_mib")


def tiny(seed=0, n=20, size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    return Images(pixels, [str(i) for i in range(n)], None, (), f"{seed:064x}", "tiny", None)


def config(**settings):
    return TrainConfig(**{**TINY, "steps": 3, **settings})


def metrics_of(run):
    """The lines of metrics.jsonl without what a clock or a machine decides."""
    rows = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def info_of(run):
    return json.loads((run / "run.json").read_text())


def flat(value, prefix=""):
    """Every leaf of a checkpoint by its path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, inner in enumerate(value) for k, v in flat(inner, f"{prefix}/{i}").items()}
    return {prefix: value}


def assert_same_checkpoint(one, other):
    """Equal to the bit, tensors and plain values."""
    one, other = (flat(load_checkpoint(run / "checkpoints" / "last.pt")) for run in (one, other))
    assert one.keys() == other.keys() and len(one) > 100
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


def contents(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


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


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """The process gets a real signal within that update."""
    advance = Session.advance

    def advance_and_signal(self):
        advance(self)
        if self.step == step:
            signal.raise_signal(number)

    monkeypatch.setattr(Session, "advance", advance_and_signal)


# --- every variant


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_checkpoints_and_reloads(name, tmp_path):
    variant, run = get_variant(name), tmp_path / "run"
    adapter = Plain() if variant.needs_features else None
    result = train(config(variant=name, d_regularizer="none", instance_noise=0.0), tiny(), out=run, adapter=adapter)
    assert (result.run, result.steps, result.metrics["step"]) == (run, 3, 3)
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["loss_d"] == pytest.approx(chance(variant.n), rel=0.02) == rows[0]["loss_g"]
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
        {"objective": "relativistic", "d_regularizer": "none", "grad_clip": 1.0, "schedule": "cosine", "warmup": 2},
        {"objective": "misclassification", "d_regularizer": "none", "d_steps": 5, "batch_size": 3},
        {"objective": "minimax", "d_regularizer": "none", "precision": "bf16", "ema_half_life": 0.0},
    ],
    ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()),
)
def test_settings_train(settings, tmp_path):
    train(config(**settings), tiny(), out=tmp_path / "run")
    rows = metrics_of(tmp_path / "run")
    assert len(rows) == 3 and all(math.isfinite(row[k]) for row in rows for k in ("loss_d", "loss_g", "mu_std", "sigma"))
    assert [("r1" in row) for row in rows] == [settings.get("d_regularizer") == "r1r2" and row["step"] in (1, 3) for row in rows]


def test_d_steps_are_updates_of_d_on_images_of_their_own(tmp_path, monkeypatch):
    calls = []
    from galirep import session

    plain = session.update
    monkeypatch.setattr(
        session, "update", lambda game, x, *a, **k: calls.append((k["d_only"], x.flatten(1).sum(1))) or plain(game, x, *a, **k)
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
    assert {f"export/{name}" for name in ("encoder.safetensors", "generator.safetensors", "encoder.json", "README.md")} <= names
    pictures = {f"samples/{kind}-{step:08d}.png" for kind in ("prior", "reconstruction") for step in (2, 4, 5)}
    assert {n for n in names if n.startswith("samples/")} == pictures
    assert not [n for n in names if n.endswith(".tmp")] and len([n for n in names if n.endswith(".pt")]) == 2
    assert [row["step"] for row in metrics_of(run)] == [2, 3, 4, 5]  # before each checkpoint too, so that a resumed run writes the same
    stored = TrainConfig.from_dict(read_config(run / "config.yaml"))
    assert (stored.steps, stored.image_size, stored.channels, stored.latent_dim, stored.networks) == (5, 8, 1, 4, "compact")


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


# --- interruption and resumption (a killed process: test_cli_train.py)


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


def test_a_users_variant_resumes_after_its_file_is_gone(tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text(
        'classes = [["x", "E(x)"], ["G(z)", "z"], ["y", "E(x)"]]\npenalties = [["l1", "E(x)", "E(y)", 0.1]]\n[where]\ny = "G(E(x))"\n'
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


def test_a_resume_that_differs_is_refused_with_each_difference_and_changes_nothing(tmp_path):
    run = tmp_path / "run"
    train(config(), tiny(), out=run)
    before = contents(run)
    with pytest.raises(CheckpointError) as caught:
        train(config(lr=1e-3, steps=2, d_regularizer="none", num_workers=3), tiny(seed=1), out=run, resume=True)
    message = str(caught.value)
    assert message.startswith(f"{run} is a run of another configuration: ")
    for part in ("steps: 2, not 3", "lr: 0.001, not 0.0005", "d_regularizer: 'none', not 'r1r2'", "the images are not those of the run"):
        assert part in message
    assert "num_workers" not in message and contents(run) == before


@pytest.mark.parametrize("settings", ({}, {"d_regularizer": "sn", "instance_noise": 0.0, "warmup": 4}))
def test_a_run_at_a_constant_rate_can_be_made_longer_and_ends_as_one_that_was_so_from_the_start(tmp_path, settings):
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(config(steps=7, **settings), tiny(), out=whole)
    train(config(steps=3, **settings), tiny(), out=run)
    assert train(config(steps=7, **settings), tiny(), out=run, resume=True).steps == 7
    assert_same_checkpoint(run, whole)
    assert [row["loss_d"] for row in metrics_of(run)] == [row["loss_d"] for row in metrics_of(whole)]
    assert info_of(run)["status"] == "complete" and read_config(run / "config.yaml") == read_config(whole / "config.yaml")
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
    says = {"truncated": "truncated or damaged", "foreign": "no checkpoint of galirep", "no run.json": "is no JSON object"}.get(
        damage, "width: 4, not 8; lr"
    )
    with pytest.raises(CheckpointError, match=says):
        train(config(), tiny(), out=run, resume=True)
    assert contents(run) == before


def test_where_a_run_may_begin(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    with pytest.raises(CheckpointError, match="holds no run to resume: leave --resume out to begin one"):
        train(config(), tiny(), out=run, resume=True)
    assert not run.exists()
    train(config(), tiny(), out=run)
    before = contents(run)
    with pytest.raises(ConfigError, match="holds a run already: pass --resume to go on with it or --overwrite to replace it"):
        train(config(), tiny(), out=run)
    assert contents(run) == before
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for overwrite in (False, True):  # --overwrite replaces a run, and nothing else
        with pytest.raises(ConfigError, match="exists and is no run of galirep"):
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
        ({"adapter": "pixels"}, ConfigError, "has no M(.), so it takes no adapter"),
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
        (lambda x: x, "must give (2, d) finite numbers for two images, not (2, 1, 8, 8)"),
        (lambda x: x.flatten(1) / 0, "must give (2, d) finite numbers"),
        (lambda x: [1.0], "not list"),
    ],
    ids=["detaches", "no_grad", "weights-only", "images", "infinite", "list"],
)
def test_an_adapter_that_g_cannot_learn_from_is_refused(adapter, says, tmp_path):
    with pytest.raises(PluginError) as caught:
        train(config(variant="gali-pt"), tiny(), out=tmp_path / "run", adapter=adapter)
    assert says in str(caught.value) and not (tmp_path / "run").exists()


def test_m_is_frozen_and_standardised(tmp_path, monkeypatch):
    from galirep import session

    adapter, known = Plain().train(), []
    state = {k: v.clone() for k, v in adapter.state_dict().items()}
    plain = session.update
    monkeypatch.setattr(session, "update", lambda *a, **k: known.extend(k["known"].values()) or plain(*a, **k))
    train(config(variant="gali-pt", batch_size=20, steps=1), tiny(), out=tmp_path / "run", adapter=adapter)
    assert all(torch.equal(v, state[k]) for k, v in adapter.state_dict().items()) and all(p.grad is None for p in adapter.parameters())
    torch.testing.assert_close(known[0].mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(known[0].square().mean(), torch.tensor(1.0))


# --- what breaks on the way


def break_weights(monkeypatch, times, at=5):
    """G's weights become NaN at a step, the first `times` times that it is reached."""
    advance, left = Session.advance, [times]

    def advance_and_break(self):
        advance(self)
        if self.step == at and left[0]:
            left[0] -= 1
            with torch.no_grad():
                self.game.generator.bias.fill_(float("nan"))

    monkeypatch.setattr(Session, "advance", advance_and_break)


def test_nan_is_told_and_rolled_back_at_half_the_learning_rate(tmp_path, monkeypatch, capfd):
    run = tmp_path / "run"
    break_weights(monkeypatch, times=2)
    train(config(steps=8, checkpoint_every=2, lr=2e-4, schedule="constant"), tiny(), out=run)
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == list(range(1, 9)) and all(math.isfinite(row["loss_g"]) for row in rows)
    assert [row["lr"] for row in rows] == pytest.approx([2e-4] * 4 + [0.5e-4] * 4)
    content = load_checkpoint(run / "checkpoints" / "last.pt")
    assert (content["rollbacks"], content["lr_scale"], content["step"]) == (2, 0.25, 8)
    assert all(v.isfinite().all() for v in flat(content).values() if isinstance(v, torch.Tensor))
    told = "losses, gradients or weights became infinite or NaN by step 5: back to step 4 with 0.5 times the learning rate"
    assert told in capfd.readouterr().err and told in (run / "train.log").read_text() and info_of(run)["status"] == "complete"


def test_nan_that_comes_back_ends_the_run_after_three_returns(tmp_path, monkeypatch):
    run = tmp_path / "run"
    break_weights(monkeypatch, times=100)
    with pytest.raises(GalirepError, match=r"became infinite or NaN by step 5, after 3 returns to .* begin anew with a lower --lr"):
        train(config(steps=8, checkpoint_every=2), tiny(), out=run)
    assert info_of(run)["status"] == "failed" and load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 4
    assert (run / "train.log").read_text().count("back to step 4") == 3
    assert all(math.isfinite(row["loss_g"]) for row in metrics_of(run))
    assert load_extractor(f"run:{run}")(torch.zeros(1, 1, 8, 8)).isfinite().all()


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
        with pytest.raises(DataError, match=r"no space left on the device while writing .*last\.pt; what was there before is untouched"):
            train(settings, tiny(), out=run)
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 2 and not list(run.rglob("*.tmp"))
    train(settings, tiny(), out=run, resume=True)
    assert_same_checkpoint(run, whole)
    assert metrics_of(run) == metrics_of(whole)


# --- evaluation, the best and the watch


def labelled(n=40, classes=4):
    images = tiny(n=n)
    images.labels = np.arange(n) % classes
    return images


def script(monkeypatch, values):
    """The evaluations give these numbers."""
    evaluate, left = HeldOut.evaluate, iter(values)
    monkeypatch.setattr(HeldOut, "evaluate", lambda self, *nets: evaluate(self, *nets) | {"pixel_mse": next(left)})


def test_the_best_evaluation_keeps_its_checkpoint_and_its_export(tmp_path, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "out"
    script(monkeypatch, [0.5, 0.3, 0.3, 0.4, 0.6])
    train(config(steps=5, holdout=4, evaluate_every=1, checkpoint_every=5, log_every=5), tiny(), out=run)
    best = {"by": "pixel_mse", "step": 2, "value": 0.3}
    content = load_checkpoint(run / "checkpoints" / "best.pt")
    assert content["step"] == 2 and content["best"] == best == info_of(run)["best"]
    encoder, _, about = load_autoencoder(run / "best")
    assert about["step"] == 2 and (about["data"]["images"], about["data"]["held_out"]) == (16, 4)
    assert all(torch.equal(v, content["average"]["E"][k]) for k, v in encoder.state_dict().items())
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 5 and load_autoencoder(run)[2]["step"] == 5
    assert load_extractor(str(run / "best")).tag == "step 2" and len(export_run(run / "best", out)) == 4
    text = (run / "summary.md").read_text()
    assert "those of step 2, with the least pixel_mse on held-out images, 0.3" in text and "| 4 | 0.4000 | - |" in text
    assert [row["evaluation"]["pixel_mse"] for row in metrics_of(run)] == [0.5, 0.3, 0.3, 0.4, 0.6]
    assert "held-out mse 0.3000" in (run / "train.log").read_text()


def test_best_by_knn_error(tmp_path):
    run = tmp_path / "run"
    train(config(steps=4, holdout=10, evaluate_every=1, best_by="knn_error"), labelled(), out=run)
    errors = [row["evaluation"]["knn_error"] for row in metrics_of(run)]
    assert info_of(run)["best"] == {"by": "knn_error", "step": 1 + int(np.argmin(errors)), "value": min(errors)}


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
    evaluations = [[row.get("evaluation") for row in metrics_of(folder)] for folder in (run, whole)]
    assert evaluations[0] == evaluations[1] and info_of(run)["best"] == info_of(whole)["best"]
    assert load_checkpoint(run / "checkpoints" / "best.pt")["step"] == info_of(run)["best"]["step"]


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
        ({"holdout": 2, "best_by": "knn_error"}, "best_by knn_error needs labels of held-out images, of which tiny has none"),
        ({"best_by": "knn_error"}, "best_by knn_error needs labels of held-out images, and none are evaluated on"),
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
        stored = TrainConfig.from_dict(read_config(tmp_path / name / "config.yaml"))
        assert (stored.holdout, stored.evaluate_every) == (held, 1000 if held else 0)
        assert info_of(tmp_path / name)["data"]["images"] == n - held


def test_a_learning_rate_100_times_too_high_is_told_in_words_and_survived(digits, tmp_path, capfd):
    run = tmp_path / "run"
    settings = {"width": 8, "latent_dim": 8, "batch_size": 32, "steps": 120, "log_every": 20, "d_regularizer": "none"}
    train(config(**settings, lr=0.05, holdout=None, evaluate_every=20), digits, out=run)
    told = capfd.readouterr().err
    assert "Traceback" not in told and "reconstruction no better than the mean image" in told
    info = info_of(run)
    assert info["status"] == "complete" and info["warnings"] and info["warnings"] == metrics_of(run)[-1]["warnings"]
    assert all(f"- {text}" in (run / "summary.md").read_text() for text in info["warnings"])
    assert load_extractor(str(run / "best"))(torch.zeros(1, 1, 8, 8)).isfinite().all()


def test_a_roll_back_keeps_the_best_and_the_end_names_it(tmp_path, monkeypatch):
    run = tmp_path / "run"
    break_weights(monkeypatch, times=100)
    script(monkeypatch, [0.3] + [0.5] * 9)
    with pytest.raises(GalirepError, match=r"after 1 returns to .*; .*best has the networks of step 2, the best before"):
        train(config(steps=8, holdout=4, evaluate_every=2, checkpoint_every=8, max_rollbacks=1), tiny(), out=run)
    info = info_of(run)
    assert (info["status"], info["best"]["step"]) == ("failed", 2)
    assert load_extractor(str(run / "best"))(torch.zeros(1, 1, 8, 8)).isfinite().all()


def test_a_run_without_roll_backs_ends_at_the_first_nan(tmp_path, monkeypatch):
    break_weights(monkeypatch, times=1, at=1)
    with pytest.raises(GalirepError, match="by step 1, after 0 returns"):
        train(config(max_rollbacks=0), tiny(), out=tmp_path / "run")
    break_weights(monkeypatch, times=1, at=1)
    train(config(max_rollbacks=1), tiny(), out=tmp_path / "other")  # to the checkpoint of step 0
    assert metrics_of(tmp_path / "other")[0]["lr"] == pytest.approx(2.5e-4)


# --- learning


@pytest.fixture(scope="module")
def digits():
    return load_images(open_data("sklearn:digits"), 8, num_workers=0)


@pytest.mark.parametrize("variant", ("gali-4", "gali-8"))
def test_each_side_wins_against_one_that_stands_still(variant, digits, tmp_path):
    settings = {
        "variant": variant,
        "width": 8,
        "batch_size": 32,
        "steps": 40,
        "d_regularizer": "none",
        "instance_noise": 0.0,
        "log_every": 10,
    }
    train(config(**settings, lr=0.0, lr_d=2e-3), digits, out=tmp_path / "d")
    own = metrics_of(tmp_path / "d")[-1]
    n = get_variant(variant).n
    assert own["loss_d"] < 0.8 * chance(n) and np.diag(own["probs"]).mean() > 1.5 / n
    train(config(**settings, lr=2e-3, lr_d=0.0), digits, out=tmp_path / "g")
    losses = [row["loss_g"] for row in metrics_of(tmp_path / "g")]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_training_learns_to_rebuild_digits(digits, tmp_path):
    """After 100 updates G(mu(x)) is nearer to x than the mean image is: about half its squared error."""
    settings = {"variant": "alice", "width": 8, "latent_dim": 8, "batch_size": 32, "steps": 100, "log_every": 100}
    train(config(**settings, d_regularizer="r1r2", r1_gamma=1.0, lr=2e-3, beta2=0.99, ema_half_life=1000.0), digits, out=tmp_path / "run")
    encoder, generator, _ = load_autoencoder(tmp_path / "run")
    x = digits.tensor().float() / 127.5 - 1
    error = float((generator(encoder(x)[0]) - x).square().mean())
    assert error < 0.75 * float((x - x.mean(0)).square().mean())
