"""train-classifier without labels: the loss of its updates, resuming, statistics, the encoder it leaves, bad input."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from galirep.data.batches import derive_seed
from galirep.data.catalog import open_data
from galirep.data.memory import load_images
from galirep.data.tensors import to_float
from galirep.errors import DataError, PluginError
from galirep.features.protocol import describe, origin_of, require_gradient
from galirep.features.registry import load_extractor
from galirep.game import views
from galirep.game.view_losses import VIEW_LOSSES
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.supervised import config as settings
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.extractor import load_classifier
from galirep.supervised.loop import train_classifier
from galirep.supervised.targets import Targets
from galirep.supervised.task import ClassifierTask
from galirep.system.devices import autocast_of
from galirep.training.config import TrainConfig
from galirep.training.loop import train

CPU = torch.device("cpu")
SMALL = {"objective": "vicreg", "width": 4, "projector": 8, "batch_size": 16, "device": "cpu", "num_workers": 0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of 60 coloured 16 x 16 pictures without classes, some of them empty."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k in range(60):
        colour, side = rng.integers(60, 255, 3), rng.integers(4, 12)
        picture = rng.integers(0, 40, (16, 16, 3))
        top, left = rng.integers(0, 16 - side, 2)
        picture[top : top + side, left : left + side] = colour
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{k:02d}.png")
    return folder


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """Return the run of 7 updates, two passes and a third, never interrupted."""
    run = tmp_path_factory.mktemp("selfsup") / "run"
    train_classifier(ClassifierConfig(str(photos), steps=7, **SMALL), out=run)
    return run


def made_task(n=40, channels=3, targets=None, **values):
    pixels = torch.randint(0, 256, (n, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    config = ClassifierConfig(
        **{
            "data": "made",
            "net": "compact",
            "image_size": 8,
            "channels": channels,
            "views": "crop,flip",
            **SMALL,
            **values,
        }
    )
    return ClassifierTask(config, pixels, targets, CPU, autocast_of(CPU, "fp32"))


def test_the_settings_list_every_view_and_loss():
    assert tuple(views.VIEWS) == settings.VIEWS and tuple(VIEW_LOSSES) == settings.VIEW_LOSSES


@pytest.mark.parametrize("objective", VIEW_LOSSES)
def test_an_update_is_of_two_views_of_the_same_images(objective):
    task, other = made_task(objective=objective, lr=1.0), made_task(objective=objective)
    task.advance()
    order = np.random.default_rng((0, 1, 0)).permutation(len(other.train_on))
    images = to_float(other.pixels[other.train_on[torch.from_numpy(order)][:16]])
    generator = torch.Generator().manual_seed(derive_seed(0, 2, 0))
    first, second = (views.draw(["crop", "flip"], 16, 8, generator, CPU, 3)(images) for _ in range(2))
    assert not torch.equal(first, second)
    other.net.train()
    expected = VIEW_LOSSES[objective](*other.net(torch.cat([first, second])).chunk(2))
    assert task.loss_sum / 16 == pytest.approx(float(expected.detach()), rel=1e-5)


def test_only_full_batches_are_taken_and_the_last_pass_may_be_cut_short(trained):
    # 60 images, 6 held out: 3 full batches of 16 a pass
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 6), (3, 7)]
    assert all(row["val_feature_rank"] > 1 and "val_accuracy" not in row for row in rows)
    info = json.loads((trained / "run.json").read_text())
    assert info["status"] == "complete" and info["objective"] == "vicreg" and info["labels_used"] is False
    measured = {"loss": rows[-1]["val_loss"], "feature_rank": rows[-1]["val_feature_rank"]}
    assert info["report"] == {"n": 6, "images": 6, **measured}


def test_the_mean_loss_of_a_short_last_pass_counts_its_images():
    task = made_task(steps=3, val_fraction=0.2)
    losses = []
    while not task.done:
        before = task.loss_sum
        task.advance()
        losses.append((task.loss_sum - before) / 16)
        if task.at_epoch_end:
            task.close_epoch()
    assert [row["step"] for row in task.history] == [2, 3]
    assert [row["loss"] for row in task.history] == pytest.approx([(losses[0] + losses[1]) / 2, losses[2]])


def test_warm_up_rises_to_the_rate_and_a_cosine_ends_it():
    task = made_task(steps=44, warmup=4, lr=0.01)
    rates = []
    for _ in range(44):
        task.advance()
        rates.append(task.optimizer.param_groups[0]["lr"])
    assert rates[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01]) and rates[24] == pytest.approx(0.005)
    assert sorted(rates[4:], reverse=True) == rates[4:]


def test_interrupted_and_resumed_it_ends_as_if_never_interrupted(trained, photos, tmp_path):
    config, run = ClassifierConfig(str(photos), steps=7, **SMALL), tmp_path / "run"

    def interrupt(row):
        if row["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train_classifier(config, out=run, on_epoch=interrupt)
    train_classifier(config, out=run, resume=True)
    for file in ("export/classifier.safetensors", "metrics.jsonl"):
        assert (run / file).read_bytes() == (trained / file).read_bytes()


def test_a_state_within_a_pass_goes_on_to_the_bit():
    straight, broken, resumed = made_task(), made_task(), made_task()
    straight.advance()
    broken.advance()
    resumed.load_state_dict(broken.state_dict())
    for task in (straight, resumed):
        task.advance()
    assert straight.close_epoch() == resumed.close_epoch()


def test_the_exported_statistics_are_of_whole_images(photos, trained):
    net, _ = load_classifier(trained)
    pixels = load_images(open_data(str(photos)), 16, None, num_workers=0).tensor()
    order = np.random.default_rng((0, 0)).permutation(60)
    # the first 6 are held out
    plain = to_float(pixels[np.sort(order[6:])])
    convolution, norm = net.trunk.blocks["conv1"][:2]
    outputs = convolution(plain)
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, outputs.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_its_hidden_layers_are_those_of_the_familys_encoder(trained):
    extractor, (net, header) = load_extractor(f"classifier:{trained}"), load_classifier(trained)
    about = describe(extractor)
    assert (about.name, about.tag) == ("classifier-compact", "vicreg, no labels, 7 updates")
    assert dict(about.layers) == {"fc1": 32} and about.image_size == 16
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(extractor(images), net.trunk(images))
    require_gradient(extractor, images)
    # what another E begins with, or stands on
    encoder = NETWORKS[header["networks"]].build(Shapes(**header["shapes"])).encoder.eval()
    encoder.blocks.load_state_dict(net.trunk.blocks.state_dict())
    layers = encoder.layers(images)
    chosen = load_extractor(f"classifier:{trained}#conv1,conv3,fc1")
    torch.testing.assert_close(chosen(images), torch.cat([layers[n] for n in ("conv1", "conv3", "fc1")], 1))
    assert load_extractor(f"classifier:{trained}").sha256 == about.sha256 == chosen.sha256
    with pytest.raises(PluginError, match="mu was not trained: name hidden layers, of conv1, conv2, conv3, fc1"):
        load_extractor(f"classifier:{trained}#mu")


def test_where_m_comes_from_is_recorded_with_the_run_that_uses_it(trained, photos, tmp_path):
    spec = f"classifier:{trained}"
    origin = origin_of(load_extractor(spec).with_layers(["conv3"]))
    assert origin["data"]["spec"] == str(photos) and origin["data"]["images"] == 60 and origin["license"] is None
    game = {"data": str(photos), "variant": "gali-pt", "adapter": spec, "width": 4, "batch_size": 8, "steps": 2}
    train(TrainConfig(**game, device="cpu", num_workers=0), out=tmp_path / "pt")
    adapter = json.loads((tmp_path / "pt" / "run.json").read_text())["adapter"]
    assert adapter["origin"] == origin | {"objective": "vicreg", "labels": False}
    assert adapter["sha256"] == load_extractor(spec).sha256
    assert "which saw no labels" in (tmp_path / "pt" / "export" / "README.md").read_text()


@pytest.mark.parametrize("net", ["compact", "resnet"])
def test_families_learn_labels_too(net, tmp_path):
    config = ClassifierConfig(
        "sklearn:digits", net=net, width=4, epochs=1, batch_size=64, lr=1e-2, device="cpu", num_workers=0
    )
    result = train_classifier(config, out=tmp_path / "run", test_split="test")
    assert result.report["accuracy"] > 0.4 and result.test["accuracy"] > 0.4
    assert describe(load_extractor(f"classifier:{tmp_path / 'run'}")).tag.startswith("10 classes, accuracy")


def test_a_small_net_learns_without_labels_too_and_a_test_split_is_reported_on(tmp_path):
    config = ClassifierConfig("sklearn:digits", net="digits", steps=3, **{**SMALL, "objective": "info-nce"})
    result = train_classifier(config, out=tmp_path / "run", test_split="test")
    assert result.test["n"] == 432 and result.test.keys() == {"n", "images", "loss", "feature_rank"}
    assert result.test["images"] == 445
    assert describe(load_extractor(f"classifier:{tmp_path / 'run'}")).dim == 256


def test_a_last_image_alone_is_left_out_of_a_pass():
    targets = Targets(torch.arange(41) % 3, ("a", "b", "c"))
    # 41 images, 8 held out: two batches of 16 and one image, which has no batch statistics
    task = made_task(41, targets=targets, objective="supervised", views=None, val_fraction=0.19, epochs=1)
    while not task.done:
        task.advance()
    assert task.step == 2 and task.close_epoch()["loss"] > 0


def test_by_the_command_labels_are_ignored_with_a_note_and_python_gives_the_same(cli, trained, photos, tmp_path):
    options = ["--objective", "vicreg", "--width", 4, "--projector", 8, "--batch-size", 16, "--steps", 7]
    data = ["--data", photos, "--device", "cpu", "--num-workers", 0, "--labels", tmp_path / "none.csv"]
    done = cli("train-classifier", *data, *options, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 0, done.stderr
    note = f"labels {str(tmp_path / 'none.csv')!r} was not read: the objective vicreg takes no labels"
    assert note in done.stderr and note in json.loads(done.stdout)["data_report"]["notes"]
    assert note in json.loads((tmp_path / "run" / "run.json").read_text())["data"]["report"]["notes"]
    assert "3 epochs without labels; loss" in done.stderr and "feature rank" in done.stderr
    assert load_classifier(tmp_path / "run")[1]["sha256"] == load_classifier(trained)[1]["sha256"]
    assert "without labels" in (tmp_path / "run" / "export" / "README.md").read_text()
    again = cli("train-classifier", "--out", tmp_path / "run", "--resume")
    assert again.exit_code == 0, again.stderr


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--batch-size", 1], 1, "batch_size 1: must be 2 or more"),
        (["--batch-size", 64], 1, "batch_size 64: vicreg needs full batches, and there are 54 images to train on"),
        (["--views", "crop,flop"], 1, "unknown view 'flop': did you mean 'flip'"),
        (["--views", "crop,crop"], 1, "views 'crop,crop': name each view once"),
        (["--steps", 3, "--epochs", 2], 1, "steps 3 and epochs 2: give one of them"),
        (["--net", "resnet", "--image-size", 24], 1, "the networks 'resnet' take images of 8, 16, 32, 64, 128 pixels"),
        (["--objective", "byol"], 2, "'byol'"),
        (["--objective", "supervised", "--views", "crop"], 1, "views 'crop': supervised training has no views"),
        (["--objective", "supervised"], 1, "has no labels"),
    ],
)
def test_bad_options(cli, photos, tmp_path, options, code, says):
    command = ("train-classifier", "--data", photos, "--out", tmp_path / "run", "--num-workers", 0)
    done = cli(*command, "--objective", "vicreg", *options)
    assert done.exit_code == code and says in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_settings_that_change_nothing_and_images_that_fill_no_batch_are_told(cli, tmp_path):
    command = ("train-classifier", "--data", "sklearn:digits", "--out", tmp_path / "run", "--test-split", "test")
    small = ("--objective", "info-nce", "--steps", 1, "--width", 4, "--batch-size", 16, "--num-workers", 0)
    done = cli(*command, *small, "--patience", 5, "--views", "crop,grey")
    assert done.exit_code == 0, done.stderr
    assert "patience 5 is not used" in done.stderr and "the view grey changes nothing" in done.stderr
    assert "432 images of the split 'test' (13 that fill no batch are left out)" in done.stdout


def test_an_unknown_layer_is_told_with_hidden_layers_alone(trained):
    with pytest.raises(PluginError, match=r"unknown layer 'conv9': did you mean 'conv.'\? known: conv1, .*fc1$"):
        load_extractor(f"classifier:{trained}#conv9")
    with pytest.raises(PluginError, match="mu was not trained"):
        load_extractor(f"classifier:{trained}#mu")


def test_too_few_images_held_out():
    task = made_task(20, val_fraction=0.01)
    while not task.at_epoch_end or not task.step:
        task.advance()
    with pytest.raises(DataError, match="1 held-out image is too few for vicreg: hold out 2 or more"):
        task.close_epoch()
