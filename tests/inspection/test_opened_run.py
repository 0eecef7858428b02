"""A run in Python: `load_run`, `load_generator`, and which of a run's networks a spec means."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_bodies import make_classifier
from tiny_runs import config, labelled, metrics_of

import galirep
from galirep.errors import CheckpointError, ConfigError, DataError
from galirep.networks.saved import load_network
from galirep.visuals.grid import save_grid


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run whose best networks are those of an earlier step than its last."""
    path = tmp_path_factory.mktemp("opened") / "run"
    settings = config(steps=6, holdout=10, evaluate_every=2, checkpoint_every=2, sample_every=3)
    galirep.train(settings, labelled(), out=path, progress=False)
    info = json.loads((path / "run.json").read_text())
    # chance decides which is best: make sure that it is another
    if info["best"]["step"] == 6:
        pytest.fail("choose another seed: the last step is the best")
    return path


def test_settings_metrics_and_pictures_of_a_run(run):
    opened = galirep.load_run(run)
    assert (opened.path, opened.kind, opened.step) == (run, "train", 6)
    assert opened.config["steps"] == 6 and opened.info["status"] == "complete"
    assert opened.best is not None and opened.best["step"] in (2, 4)
    assert [row["step"] for row in opened.metrics] == [row["step"] for row in metrics_of(run)]
    table = opened.table()
    assert table["step"] == [1, 2, 3, 4, 5, 6] and {len(column) for column in table.values()} == {6}
    evaluated = [value for value in table["evaluation.pixel_mse"] if value is not None]
    assert len(evaluated) == 3 and table["evaluation.pixel_mse"][0] is None
    assert {"loss_d", "loss_g", "gradient_norms.G"} <= table.keys() and "probs" not in table
    pictures = opened.pictures()
    assert {kind: list(files) for kind, files in pictures.items()} == {"prior": [3, 6], "reconstruction": [3, 6]}
    assert all(file.is_file() for files in pictures.values() for file in files.values())


def test_last_and_best_are_chosen_by_name_everywhere(cli, run, tmp_path):
    images = labelled().pixels.transpose(0, 2, 3, 1)
    last, best = (galirep.load_encoder(f"{run}@{which}", device="cpu").transform(images) for which in ("last", "best"))
    assert not np.array_equal(last, best)
    opened = galirep.load_run(run)
    for features, encoder in (
        (last, galirep.load_encoder(run, device="cpu")),
        (last, galirep.load_encoder(f"run:{run}@last", device="cpu")),
        (best, galirep.load_encoder(run / "best", device="cpu")),
        (best, galirep.load_encoder(f"run:{run}@best", device="cpu")),
        (last, opened.encoder(device="cpu")),
        (best, opened.encoder("best", device="cpu")),
    ):
        np.testing.assert_array_equal(encoder.transform(images), features)
    galirep.evaluate(f"{run}@best", "sklearn:digits", split="test", metrics=["pixel-mse"], device="cpu")
    for which, step in (("last", 6), ("best", opened.best["step"])):
        out = tmp_path / which
        assert cli("export", f"{run}@{which}", "--out", out).exit_code == 0
        assert json.loads((out / "encoder.json").read_text())["step"] == step


def test_embed_says_that_the_best_networks_are_others(cli, run, tmp_path):
    step = galirep.load_run(run).best["step"]
    told = f"{run} stands for its last networks, of step 6; the best on held-out images are those of step {step}: "
    arguments = ("--data", "sklearn:digits", "--device", "cpu", "--num-workers", 0)
    result = cli("embed", "--encoder", run, *arguments, "--out", tmp_path / "a.h5", "--json")
    assert result.exit_code == 0 and told + f"{run}@best" in result.stderr
    assert json.loads(result.stdout)["notes"] == [told + f"{run}@best"]
    for chosen in (f"{run}@last", f"{run}@best", run / "best", "pixels:8"):
        result = cli("embed", "--encoder", chosen, *arguments, "--out", tmp_path / "b.h5", "--json", "--overwrite")
        assert json.loads(result.stdout)["notes"] == []


def test_networks_are_no_run_and_others_are_unknown(run):
    for function in (galirep.load_run, galirep.info, lambda path: galirep.report(path, run / "page.html")):
        with pytest.raises((CheckpointError, DataError), match=r"@best names networks, .* here the run is wanted"):
            function(f"{run}@best")
    with pytest.raises(CheckpointError, match="unknown networks of a run 'worst': known: best, last"):
        galirep.load_encoder(f"{run}@worst")


def test_a_run_without_best_networks_says_why(tmp_path):
    galirep.train(config(), labelled(), out=tmp_path / "run", progress=False)
    for load in (galirep.load_encoder, galirep.load_generator):
        with pytest.raises(CheckpointError, match=r"has no best networks: it was not evaluated on held-out images"):
            load(f"{tmp_path / 'run'}@best", device="cpu")
    with pytest.raises(CheckpointError, match="unknown networks 'first'"):
        galirep.load_run(tmp_path / "run").encoder("first")
    with pytest.raises(CheckpointError, match="is not a run"):
        galirep.load_run(tmp_path)


def test_a_classifier_opens_too(tmp_path):
    make_classifier(run := tmp_path / "m")
    opened = galirep.load_run(run)
    assert opened.kind == "train-classifier" and opened.table()["step"] and opened.best is None
    images = np.zeros((2, 8, 8, 1), np.uint8)
    expected = galirep.load_encoder(f"classifier:{run}", device="cpu").transform(images)
    np.testing.assert_array_equal(opened.encoder("best", device="cpu").transform(images), expected)


def test_a_generator_samples_what_the_command_shows(run, tmp_path):
    generator = galirep.load_generator(run, device="cpu")
    network, header = load_network(run, "generator")
    assert (generator.latent, generator.image_size, generator.channels) == (4, 8, 1)
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = network(z)
    assert torch.equal(generator.noise(5, seed=3), z) and torch.equal(generator.sample(5, seed=3), expected)
    assert torch.equal(generator.decode(z.numpy()), expected) and generator.header == header
    save_grid(tmp_path / "mine.png", generator.sample(6, seed=1), 3)
    galirep.sample(run, tmp_path / "command.png", count=6, columns=3, seed=1, device="cpu")
    mine, command = (np.asarray(Image.open(tmp_path / name)) for name in ("mine.png", "command.png"))
    assert np.array_equal(mine, command)
    best = galirep.load_generator(f"{run}@best", device="cpu")
    assert not torch.equal(best.sample(5, seed=3), expected)


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_a_path_begins_and_ends_at_its_ends(run, path):
    generator = galirep.load_generator(run, device="cpu")
    a, b = generator.noise(3, seed=0), generator.noise(3, seed=1)
    images = generator.interpolate(a, b, steps=5, path=path)
    assert images.shape == (3, 5, 1, 8, 8)
    torch.testing.assert_close(images[:, 0], generator.decode(a))
    torch.testing.assert_close(images[:, -1], generator.decode(b))
    middle = (a + b) / 2
    assert torch.allclose(images[:, 2], generator.decode(middle), atol=1e-5) == (path == "linear")


def test_what_a_generator_cannot_take_is_told(run):
    generator = galirep.load_generator(run, device="cpu")
    z = generator.noise(2)
    for error, message, call in (
        (DataError, r"latents of shape \(2, 5\): .* takes \(N, 4\)", lambda: generator.decode(np.ones((2, 5)))),
        (DataError, "NaN or infinite", lambda: generator.decode(np.full((2, 4), np.nan))),
        (DataError, r"ends of shapes \(2, 4\) and \(1, 4\)", lambda: generator.interpolate(z, z[:1])),
        (ConfigError, "unknown path 'liner': did you mean 'linear'", lambda: generator.interpolate(z, z, path="liner")),
        (ConfigError, "steps 1 must be 2 or more", lambda: generator.interpolate(z, z, steps=1)),
        (ConfigError, "count 0 must be 1 or more", lambda: generator.sample(0)),
        (ConfigError, r"count 1\.5 must be a whole number", lambda: generator.sample(1.5)),
        (ConfigError, r"count 1\.5 must be a whole number", lambda: generator.noise(1.5)),
        (ConfigError, r"seed 0\.5 must be a whole number", lambda: generator.noise(1, seed=0.5)),
        (ConfigError, "seed 9.*.* of 64 bits", lambda: generator.noise(1, seed=10**20 - 1)),
        (ConfigError, "run directory None: it must be a path", lambda: galirep.load_run(None)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()
    assert generator.decode(np.empty((0, 4))).shape == (0, 1, 8, 8)
