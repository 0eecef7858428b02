"""Interpolation: rows pixel by pixel, pairs by id and seed, the prior, and options that do not fit together."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pictures import RUN, Pixels, Same, cells, digits, grey, header_of, reconstruct_by_hand, to_bytes

import galirep
import galirep.evaluation.pictures.interpolate as module
from galirep.errors import ConfigError, DataError
from galirep.evaluation.pictures.latent_paths import walk
from galirep.networks.saved import load_autoencoder

DATA, SPLIT = "sklearn:digits", "test"


class Unit(torch.nn.Module):
    """An E whose mu are the pixels in [0, 1]."""

    def forward(self, images):
        return (images.flatten(1) + 1) / 2, None


def _row(picture, side, steps, top=2):
    """Cut a row between two images that stand apart: (steps + 2, side, side)."""
    pixels = np.asarray(picture)[top:, :, 0]
    lefts = [2, *(2 + side + 10 + i * (side + 2) for i in range(steps))]
    lefts.append(lefts[-1] + side + 10)
    assert pixels.shape[1] == lefts[-1] + side + 2
    return np.stack([pixels[:side, left : left + side] for left in lefts])


def test_a_linear_path_between_pixels_is_exact_integers(tmp_path, monkeypatch):
    """E is the pixels and G the image of them: 0, 10, 20, ... of 40, and the images at both ends."""
    monkeypatch.setattr(module, "load_autoencoder", lambda run, device, body: (Pixels(), Same(), header_of(2)))
    a, b = np.array([[0, 40], [200, 255]]), np.array([[40, 0], [100, 255]])
    data, out = grey(tmp_path / "a.npz", a, b), tmp_path / "a.png"
    result = galirep.interpolate("run", data, out, pairs=[(0, 1), ("1", "0")], steps=5, zoom=1, device="cpu")
    way = [[[10 * i, 40 - 10 * i], [200 - 25 * i, 255]] for i in range(5)]
    picture = Image.open(out)
    assert np.array_equal(_row(picture, 2, 5), [a, *way, b])
    assert np.array_equal(_row(picture, 2, 5, top=6), [b, *way[::-1], a])
    assert result.pairs == [("0", "1"), ("1", "0")] and result.pixel_mse == pytest.approx(0, abs=1e-12)


def test_a_spherical_path_between_pixels_is_exact_integers(tmp_path, monkeypatch):
    """From (1, 0, 0, 0) to (0, 1, 0, 0) in three steps of 30 degrees: 255 is 1, 127.5 is 0."""
    monkeypatch.setattr(module, "load_autoencoder", lambda run, device, body: (Unit(), Same(), header_of(2)))
    data = grey(tmp_path / "a.npz", [[255, 0], [0, 0]], [[0, 255], [0, 0]])
    options = {"pairs": [(0, 1)], "steps": 4, "path": "spherical", "zoom": 1, "device": "cpu"}
    galirep.interpolate("run", data, tmp_path / "a.png", **options)
    made = _row(Image.open(tmp_path / "a.png"), 2, 4)[1:-1]
    # 127.5 (1 + cos 30) = 237.9, 127.5 (1 + sin 30) = 191.25
    assert made[:, 0, 0].tolist() == [255, 238, 191, 128] and made[:, 0, 1].tolist() == [128, 191, 238, 255]
    assert (made[:, 1] == 128).all()


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_a_trained_run_against_its_networks(tmp_path, path):
    options = {"split": SPLIT, "count": 2, "steps": 4, "path": path, "zoom": 1, "device": "cpu"}
    result = galirep.interpolate(RUN, DATA, tmp_path / "a.png", **options)
    encoder, generator, _ = load_autoencoder(RUN)
    picture = Image.open(tmp_path / "a.png")
    errors = []
    for i, pair in enumerate(result.pairs):
        x, rebuilt = reconstruct_by_hand(RUN, pair)
        with torch.inference_mode():
            mu = encoder(torch.from_numpy(digits(pair)[:, None]) / 127.5 - 1)[0]
            way = to_bytes(generator(walk(path, mu[:1], mu[1:], 4)[0]))
        row = _row(picture, 8, 4, top=2 + 10 * i)
        assert np.array_equal(row, [x[0], *way, x[1]]) and np.array_equal(row[[1, -2]], rebuilt)
        errors.append(((x - rebuilt) / 255) ** 2)
    assert result.pixel_mse == pytest.approx(np.mean(errors), abs=1e-3)


def test_the_prior_begins_and_ends_with_samples(tmp_path):
    options = {"seed": 3, "device": "cpu"}
    result = galirep.interpolate(RUN, None, tmp_path / "a.png", prior=True, count=3, steps=5, zoom=6, **options)
    galirep.sample(RUN, tmp_path / "b.png", count=6, columns=2, **options)
    between, samples = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    assert between.shape == (3 * 50 + 2, 5 * 50 + 2, 3)
    assert np.array_equal(between[:, :50], samples[:, :50]) and np.array_equal(between[:, -50:], samples[:, -50:])
    assert result.pairs is result.data is result.split is result.pixel_mse is None and result.prior
    assert result.count == 3


def test_pairs_are_drawn_by_the_seed_and_no_image_twice(tmp_path):
    first, again, other = (
        galirep.interpolate(RUN, DATA, tmp_path / f"{i}.png", split=SPLIT, seed=seed, device="cpu").pairs
        for i, seed in enumerate((0, 0, 1))
    )
    assert first == again != other and len({name for pair in first for name in pair}) == 8
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


def test_a_small_set_gives_the_pairs_it_has(tmp_path):
    data = grey(tmp_path / "a.npz", *np.zeros((5, 8, 8)))
    result = galirep.interpolate(RUN, data, tmp_path / "a.png", device="cpu")
    assert result.count == len(result.pairs) == 2
    with pytest.raises(DataError, match="has 5 images, fewer than the 6 asked for"):
        galirep.interpolate(RUN, data, tmp_path / "b.png", count=3, device="cpu")
    with pytest.raises(DataError, match=r"of the 1 images of .*, 1 can be read, fewer than the 2 asked for"):
        galirep.interpolate(RUN, grey(tmp_path / "b.npz", np.zeros((8, 8))), tmp_path / "b.png", device="cpu")
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("prior", [False, True])
def test_the_command_gives_what_the_function_gives(cli, tmp_path, prior):
    data = [] if prior else ["--data", DATA, "--split", SPLIT]
    arguments = ["--count", 2, "--steps", 3, "--path", "spherical", "--zoom", 2, "--seed", 5, "--captions"]
    arguments += ["--prior"] if prior else []
    done = cli("interpolate", RUN, *data, *arguments, "--device", "cpu", "--out", tmp_path / "a.png", "--json")
    printed = json.loads(done.stdout)
    options = {"count": 2, "steps": 3, "path": "spherical", "zoom": 2, "seed": 5, "captions": True, "device": "cpu"}
    split = None if prior else SPLIT
    result = galirep.interpolate(RUN, None if prior else DATA, tmp_path / "b.png", split=split, prior=prior, **options)
    assert json.loads(json.dumps({**result.to_dict(), "out": printed["out"]})) == printed
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "2 spherical paths of 3 steps between two " in done.stderr


def test_captions_have_a_line_for_each_end_and_t_above(tmp_path):
    options = {"prior": True, "count": 2, "steps": 3, "device": "cpu"}
    galirep.interpolate(RUN, None, tmp_path / "a.png", **options)
    galirep.interpolate(RUN, None, tmp_path / "b.png", captions=True, **options)
    plain, written = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    top, left = (large - small for large, small in zip(written.shape[:2], plain.shape[:2], strict=True))
    assert top == 12 and np.array_equal(written[top + 2 :, left + 2 :], plain[2:, 2:])
    (block,) = cells(plain, side=48, rows=[2], columns=3)
    assert len(block) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": DATA, "path": "sperical"}, "unknown path 'sperical': did you mean 'spherical'?"),
        ({"data": DATA, "steps": 1}, "steps 1 must be 2 or more"),
        ({"data": DATA, "count": 0}, "count 0 must be 1 or more"),
        ({"data": DATA, "zoom": 0}, "zoom 0 must be 1 or more"),
        ({"data": DATA, "seed": -1}, "seed -1 must be 0 or more"),
        ({"data": DATA, "prior": True}, "data 'sklearn:digits' and the prior: the ends are of one of them"),
        ({}, "give data for two images, or the prior for two z"),
        ({"prior": True, "pairs": [(0, 1)]}, "pairs name images, and the prior has none"),
        ({"prior": True, "split": "test"}, "split 'test' is of data, and the prior has none"),
        ({"data": DATA, "pairs": [(0, 1)], "count": 2}, "count 2 and 1 pairs: give one of them"),
        ({"data": DATA, "pairs": [[0, 1, 2]]}, "is not two images: write"),
        ({"data": DATA, "pairs": ["01"]}, "the pair '01' is not two images: write"),
        ({"data": DATA, "out": "a.jpg"}, "the name of this output must end in .png"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    data, out = options.pop("data", None), tmp_path / options.pop("out", "a.png")
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        galirep.interpolate(RUN, data, out, device="cpu", **options)
    assert not list(tmp_path.iterdir())


def test_the_command_tells_a_misspelt_path(cli, tmp_path):
    done = cli("interpolate", RUN, "--prior", "--path", "sperical", "--out", tmp_path / "a.png")
    assert done.exit_code == 2 and "did you mean 'spherical'" in done.stderr
