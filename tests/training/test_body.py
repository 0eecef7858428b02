"""E on a body: where gradients go, what is exported and read back, resuming, and bodies that do not fit."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from tiny_bodies import images, make_classifier
from tiny_runs import assert_same_checkpoint, config, contents, info_of, labelled, metrics_of, stop_at, tiny

from galirep.data.memory import Images
from galirep.errors import CheckpointError, ConfigError, PluginError
from galirep.evaluation.pictures.reconstruct import reconstruct
from galirep.features.gali import load_run
from galirep.features.network import NetworkExtractor
from galirep.features.registry import load_extractor
from galirep.networks.body import BodyEncoder
from galirep.networks.export_file import load_export
from galirep.networks.saved import export_run, load_autoencoder, load_network
from galirep.training.held_out import split_rows
from galirep.training.loop import train
from galirep.training.plan import estimate_update
from galirep.training.preparation import describe_memory, prepare


@pytest.fixture
def classifier(tmp_path):
    return make_classifier(tmp_path / "m")


def session_of(settings, data=None):
    return prepare(settings, data or tiny(), None, download=False).session


def weights_of(function):
    return {name: value.clone() for name, value in function.state_dict().items()}


def test_a_frozen_body_gets_no_gradient_and_no_change_but_lets_gradients_pass_to_g(classifier):
    session = session_of(config(body=classifier, grad_clip=1.0))
    encoder = session.game.encoder
    assert isinstance(encoder, BodyEncoder) and encoder.body_parameters() == []
    function = encoder.body.function
    assert not any(name.startswith("body") for name in encoder.state_dict())
    assert session.average.nets["E"].body is encoder.body  # one for both
    before = weights_of(function)
    for _ in range(2):
        session.advance()
    session.calibrate()
    assert all(p.grad is None and not p.requires_grad for p in function.parameters())
    assert all(torch.equal(value, before[name]) for name, value in function.state_dict().items())
    assert all(p.grad is not None and bool(p.grad.any()) for p in encoder.head.parameters())
    # through the body alone: mu of a generated image
    session.game.generator.zero_grad()
    encoder(session.game.generator(session.shown_z[:4]))[0].square().sum().backward()
    gradients = [p.grad for p in session.game.generator.parameters()]
    assert any(g is not None and bool(g.any()) for g in gradients)


def test_a_trained_body_moves_at_its_share_of_the_rate_and_its_batchnorm_stays(classifier):
    session = session_of(config(body=classifier, body_lr=0.25, lr_e=4e-3, beta1=0.0, beta2=0.0))
    encoder = session.game.encoder
    before = weights_of(encoder)
    session.advance()
    after = weights_of(encoder)
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    # Adam's first step has the size of the rate, whatever the gradient
    assert moved["head.weight"] == pytest.approx(4e-3, rel=1e-3)
    assert moved["body.network.0.weight"] == pytest.approx(1e-3, rel=1e-3)
    statistics = [name for name in before if name.startswith("body") and ("running" in name or "num_batches" in name)]
    assert statistics and not any(moved[name] for name in statistics)
    session.calibrate()
    average = session.average.nets["E"]
    assert all(torch.equal(average.state_dict()[name], before[name]) for name in statistics)
    assert moved["blocks.fc1.2.running_var"] > 0
    assert not torch.equal(average.state_dict()["blocks.fc1.2.running_var"], after["blocks.fc1.2.running_var"])
    assert not encoder.body.training and encoder.train().blocks["fc1"].training and not encoder.body.network.training


def test_g_and_d_start_as_without_a_body_and_the_head_sees_standardised_layers(classifier):
    plain, on_body = session_of(config()), session_of(config(body=classifier))
    for name in "GD":
        states = [s.game.players()[name].state_dict() for s in (plain, on_body)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    encoder = on_body.game.encoder
    with torch.no_grad():
        x = on_body.batches.images(torch.arange(20))
        inputs = (load_extractor(classifier)(x) - encoder.mean) * encoder.scale
    torch.testing.assert_close(inputs.mean(0), torch.zeros(256), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.square().mean(), torch.tensor(1.0))


def test_each_layer_of_a_body_is_standardised_by_itself(tmp_path):
    train(config(), tiny(), out=tmp_path / "run")
    encoder = session_of(config(body=f"run:{tmp_path / 'run'}", body_layers="conv1,mu")).game.encoder
    own = load_extractor(f"run:{tmp_path / 'run'}", layers=["conv1", "mu"])
    assert encoder.body_layers == own.layers
    features = own(torch.from_numpy(tiny().pixels) / 127.5 - 1)
    inputs = (features - features.mean(0)).split(list(own.layers.values()), 1)
    expected = torch.cat([1 / part.square().mean().sqrt().expand(part.shape[1]) for part in inputs])
    torch.testing.assert_close(encoder.scale, expected)


@pytest.mark.parametrize("rate", (0.0, 0.1))
def test_an_export_gives_the_features_that_the_run_gave_without_the_net_it_was_copied_from(
    rate, classifier, tmp_path, cli
):
    run, x = tmp_path / "run", images()
    before = load_extractor(classifier)(x)
    train(config(body=classifier, body_lr=rate), tiny(), out=run)
    session = session_of(config(body=classifier, body_lr=rate))
    for _ in range(3):
        session.advance()
    session.calibrate()
    shutil.rmtree(tmp_path / "m")
    encoder = load_extractor(f"run:{run}", layers=["body.features", "fc1", "mu"])
    assert list(encoder.layers.items()) == [("body.features", 256), ("fc1", 32), ("mu", 4)]
    with torch.no_grad():
        there = torch.cat(list(session.average.nets["E"].layers(x).values()), 1)
    torch.testing.assert_close(encoder(x), there, atol=1e-6, rtol=1e-5)
    same = torch.allclose(encoder(x)[:, :256], before, atol=1e-6)
    assert same is (rate == 0)
    record = load_export(run, "encoder")[1]["body"]
    assert record == info_of(run)["body"] and record["copy"] == "classifier" and record["rate"] == rate
    assert record["spec"] == classifier and record["layers"] == {"features": 256} and record["name"] in card(run)
    written = export_run(run, tmp_path / "copy")
    assert tmp_path / "copy" / "body" / "classifier.safetensors" in written
    assert torch.equal(load_extractor(str(tmp_path / "copy"))(x), load_extractor(f"run:{run}")(x))
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8, 1), np.uint8))
    assert reconstruct(run, f"npz:{tmp_path / 'x.npz'}", tmp_path / "x.png", device="cpu").images == 4


def card(run):
    return (run / "export" / "README.md").read_text()


def test_a_body_that_has_a_body(classifier, tmp_path):
    train(config(body=classifier), tiny(), out=tmp_path / "one")
    train(config(body=f"run:{tmp_path / 'one'}", body_layers="body.features"), tiny(), out=tmp_path / "two")
    expected = load_extractor(classifier)(images())
    for folder in ("m", "one"):
        shutil.rmtree(tmp_path / folder)
    encoder = load_extractor(f"run:{tmp_path / 'two'}", layers=["body.body.features"])
    torch.testing.assert_close(encoder(images()), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rate", (0.0, 0.1))
def test_a_resumed_run_on_a_body_ends_as_one_never_interrupted_and_needs_no_source(
    rate, classifier, tmp_path, monkeypatch
):
    settings = config(body=classifier, body_lr=rate, steps=6, checkpoint_every=2, holdout=4, evaluate_every=3)
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(settings, labelled(20), out=whole)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(settings, labelled(20), out=run)
    shutil.rmtree(tmp_path / "m")
    train(settings, labelled(20), out=run, resume=True)
    assert_same_checkpoint(run, whole)
    assert metrics_of(run) == metrics_of(whole) and "knn_error" in metrics_of(run)[-1]["evaluation"]
    for folder in ("export", "best"):
        assert load_extractor(f"run:{run / folder}").sha256 == load_extractor(f"run:{whole / folder}").sha256


def test_a_changed_or_missing_body_is_one_line(tmp_path):
    run = tmp_path / "run"
    spec = f"random:{tmp_path / 'base'}"
    train(config(), tiny(), out=tmp_path / "base")
    train(config(body=spec), tiny(), out=run)
    before = contents(run)
    train(config(width=8), tiny(), out=tmp_path / "base", overwrite=True)
    with pytest.raises(CheckpointError, match=r"another one by now: name .*width=8.*, not .*width=4") as caught:
        load_extractor(f"run:{run}")
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="body: "):
        train(config(body=spec), tiny(), out=run, resume=True)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"which cannot be loaded: .*base") as caught:
        load_extractor(f"run:{run}")
    assert "\n" not in str(caught.value) and contents(run) == before


def test_code_that_a_file_names_is_not_run_unless_it_is_given_by_hand(tmp_path):
    run = tmp_path / "run"
    rgb = Images(np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), np.uint8), list(map(str, range(20))), None,
                 (), "0" * 64, "tiny", None)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        train(config(body="galirep_toy:build", channels=3), rgb, out=run)
    with pytest.raises(CheckpointError, match=r"code that a file names is not run unasked: --trust-encoder .*load_run"):
        load_extractor(f"run:{run}")
    for given in ("galirep_toy:build", load_extractor("galirep_toy:build")):
        assert list(load_run(run, body=given).known_layers)[:4] == ["body.hidden", "body.mu", "fc1", "mu"]
    with pytest.raises(CheckpointError, match="which is another one by now: name 'pixels-8', not 'toy'"):
        load_run(run, body="pixels:8")


def test_a_body_may_be_an_object_in_python(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Tanh(), torch.nn.Flatten())
    body = NetworkExtractor(net, name="mine", image_size=8, channels=1)
    train(config(body_layers="1"), tiny(), out=tmp_path / "run", body=body)
    assert info_of(tmp_path / "run")["body"]["spec"] is None
    with pytest.raises(CheckpointError, match="it was an object in Python"):
        load_run(tmp_path / "run")
    again = load_run(tmp_path / "run", body=body)
    assert next(iter(again.known_layers.items())) == ("body.1", 3)
    torch.testing.assert_close(again(images())[:, :3], body.with_layers(["1"])(images()))


@pytest.mark.parametrize("size", (8, 16))
def test_images_are_resized_and_channels_changed_as_the_extractor_does_it(size, classifier):
    rgb = np.random.default_rng(0).integers(0, 256, (20, 3, size, size), dtype=np.uint8)
    data = Images(rgb, [str(i) for i in range(20)], None, (), "0" * 64, "tiny", None)
    session = session_of(config(body=classifier), data)
    x = session.batches.images(torch.arange(4))
    session.advance()
    with torch.no_grad():
        torch.testing.assert_close(session.game.encoder.layers(x)["body.features"], load_extractor(classifier)(x))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"body": "run:{run}"}, ConfigError, "takes images of 8 pixels, not 16: pass --image-size 8"),
        ({"body": "random:compact,size=16,width=4"}, ConfigError, "takes images of 3 channels, not 1"),
        ({"body": "timm:nothing"}, PluginError, "timm has no model 'nothing'"),
        ({"body": "pixels:8", "body_layers": "conv1"}, PluginError, "has one layer of features: name no layers"),
        ({"body": "run:{run8}", "body_layers": "conv9"}, PluginError, "conv9"),
        ({"body": "pixels:8", "body_lr": 0.1}, ConfigError, "has no weights to train: leave it at 0"),
        ({"body": "test_bodies:blind"}, PluginError, "lets no gradient pass to its input.*a body of E"),
        ({"body": "test_bodies:picky"}, PluginError, "fails on two 16x16 images: ValueError: only 32"),
    ],
)
def test_bodies_that_do_not_fit_are_one_line_and_leave_nothing(settings, error, says, tmp_path, monkeypatch):
    train(config(), tiny(), out=tmp_path / "run")
    (tmp_path / "test_bodies.py").write_text(BODIES)
    monkeypatch.syspath_prepend(tmp_path)
    size = 8 if "run8" in settings["body"] else 16
    spec = settings["body"].format(run=tmp_path / "run", run8=tmp_path / "run")
    with pytest.raises(error, match=says) as caught:
        train(config(**{**settings, "body": spec}), tiny(size=size), out=tmp_path / "new")
    assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()


BODIES = """
import torch
class Blind:
    name, dim = "blind", 4
    def __call__(self, images):
        with torch.no_grad():
            return images.mean((1, 2, 3)).unsqueeze(1).expand(-1, 4).contiguous()
class Picky(Blind):
    name = "picky"
    def __call__(self, images):
        if images.shape[-1] != 32:
            raise ValueError("only 32")
        return images.mean((1, 2, 3)).unsqueeze(1).expand(-1, 4).contiguous()
blind, picky = Blind, Picky
"""


def test_settings_of_a_body_without_one_are_refused():
    for settings in ({"body_layers": "mu"}, {"body_lr": 0.1}):
        with pytest.raises(ConfigError, match="are of a body: name one"):
            session_of(config(**settings))
    with pytest.raises(ConfigError, match="body_lr -1"):
        config(body="pixels:8", body_lr=-1.0)


def test_memory_is_estimated_with_the_body(classifier, tmp_path):
    settings = config(data="sklearn:digits", body=classifier, image_size=8, channels=1)
    plan = prepare(settings, tiny(), None, download=False).plan
    plain = estimate_update(settings, plan.variant, plan.shapes).memory
    frozen, trained = (
        float(describe_memory(dataclasses.replace(settings, body_lr=rate)).split("about ")[1].split(" MiB")[0])
        for rate in (0.0, 1.0)
    )
    assert plain / 2**20 < frozen < trained
    missing = dataclasses.replace(settings, body=f"run:{tmp_path / 'none'}")
    assert "not known, since the run directory" in describe_memory(missing)


def test_bf16_and_groups(classifier):
    for settings in ({"precision": "bf16"}, {"norm": "group"}, {"variant": "gali-mix"}, {"networks": "resnet"}):
        session = session_of(config(body=classifier, **settings))
        session.advance()
        assert session.report().is_finite()


def test_held_out_images_are_those_of_a_run_without_a_body(classifier, tmp_path):
    train(config(body=classifier, holdout=4, evaluate_every=3), labelled(20), out=tmp_path / "run")
    assert metrics_of(tmp_path / "run")[-1]["evaluation"]["images"] == len(split_rows(20, 4)[1])


def test_a_run_on_a_body_has_no_untrained_counterpart(classifier, tmp_path):
    train(config(body=classifier, steps=1), tiny(), out=tmp_path / "run")
    with pytest.raises(
        PluginError, match=r"stands on the trained body 'classifier-.*: take random:compact,size=N,chan"
    ):
        load_extractor(f"random:{tmp_path / 'run'}")
    plain = tmp_path / "plain"
    train(config(steps=1), tiny(), out=plain)
    # as its docs write it
    assert load_autoencoder(str(plain))[2]["step"] == load_network(str(plain), "encoder")[1]["step"] == 1
