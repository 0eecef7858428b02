"""Inpainting: the three rows pixel by pixel, boxes, errors, BatchNorm statistics, and what training saw."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pictures import RUN, Same, cells, digits, export, grey, header_of, to_bytes

import galirep
import galirep.evaluation.pictures.inpaint as module
from galirep.data.tensors import to_float
from galirep.game.masks import random_boxes
from galirep.game.variants import get_variant
from galirep.networks.saved import load_autoencoder

DATA, SPLIT = "sklearn:digits", "test"


def _boxes(count, size, seed):
    random = torch.Generator().manual_seed(seed)
    return np.stack([random_boxes(1, size, random)[0, 0].numpy() for _ in range(count)])


class _CountErased(torch.nn.Module):
    """An E whose mu is the number of erased pixels, written as the grey value of every pixel."""

    def forward(self, images):
        erased = (images == -2).flatten(1).sum(1, keepdim=True)
        return (erased / 127.5 - 1).expand(-1, images[0].numel()), None


def _stub(monkeypatch, encoder, **header):
    side = header.pop("side", 4)
    loaded = []

    def load(run, device, statistics=None, *, body):
        loaded.append(statistics)
        return encoder, Same(), header_of(side, **header)

    monkeypatch.setattr(module, "load_autoencoder", load)
    return loaded


def test_the_rows_are_exact_integers(tmp_path, monkeypatch):
    """Erased pixels are grey (128), filled ones have the number of pixels that E saw erased, others stay."""
    _stub(monkeypatch, _CountErased())
    images = np.arange(48).reshape(3, 4, 4) + 100
    data, out = grey(tmp_path / "a.npz", *images), tmp_path / "a.png"
    result = galirep.inpaint("run", data, out, ids=[0, 1, 2], columns=3, zoom=1, seed=1, device="cpu")
    boxes = _boxes(3, 4, seed=1)
    filled = np.where(boxes, boxes.sum((1, 2), keepdims=True), images)
    (block,) = cells(Image.open(out), side=4, rows=[3], columns=3)
    assert np.array_equal(block, [images, np.where(boxes, 128, images), filled])
    squares = ((filled - images) / 255) ** 2
    assert result.pixel_mse == pytest.approx(squares.mean(), rel=1e-5)
    by_image = [square[box].mean() for square, box in zip(squares, boxes, strict=True)]
    assert result.masked_pixel_mse == pytest.approx(np.mean(by_image), rel=1e-5)
    assert result.masks_sha256 == hashlib.sha256(np.packbits(boxes).tobytes()).hexdigest()


def test_a_trained_run_against_ten_lines_of_numpy(tmp_path):
    result = galirep.inpaint(RUN, DATA, tmp_path / "a.png", split=SPLIT, count=5, columns=5, zoom=1, device="cpu")
    encoder, generator, _ = load_autoencoder(RUN)
    x, boxes = digits(result.ids), _boxes(5, 8, seed=0)
    erased = np.where(boxes, np.float32(-2), to_float(torch.from_numpy(x)).numpy())
    with torch.inference_mode():
        made = to_bytes(generator(encoder(torch.from_numpy(erased[:, None]))[0]))
    (block,) = cells(Image.open(tmp_path / "a.png"), side=8, rows=[3], columns=5)
    assert np.array_equal(block, [x, np.where(boxes, 128, x), np.where(boxes, made, x)])
    errors = ((made - x) / 255) ** 2 * boxes
    assert result.masked_pixel_mse == pytest.approx((errors.sum((1, 2)) / boxes.sum((1, 2))).mean(), abs=1e-3)
    assert result.pixel_mse == pytest.approx(errors.mean(), abs=1e-3)


def test_the_seed_decides_the_boxes_and_their_number_does_not(tmp_path):
    options = {"split": SPLIT, "device": "cpu", "zoom": 1}
    first, again, other, fewer = (
        galirep.inpaint(RUN, DATA, tmp_path / f"{i}.png", seed=seed, count=count, **options)
        for i, (seed, count) in enumerate([(0, 6), (0, 6), (1, 6), (0, 2)])
    )
    assert first.masks_sha256 == again.masks_sha256 != other.masks_sha256 and fewer.masks_sha256 != first.masks_sha256
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    six, two = (np.asarray(Image.open(tmp_path / f"{i}.png")) for i in (0, 3))
    assert fewer.ids == first.ids[:2] and np.array_equal(six[:, : two.shape[1]], two)


@pytest.mark.parametrize(
    ("known", "chosen", "loads"),
    [(None, "whole", 1), (["whole"], "whole", 1), (["masked"], "masked", 1), (["whole", "masked"], "masked", 2)],
)
def test_statistics_of_masked_images_are_taken_where_there_are_any(tmp_path, monkeypatch, known, chosen, loads):
    header = {} if known is None else {"statistics": known}
    loaded = _stub(monkeypatch, _CountErased(), **header)
    data = grey(tmp_path / "a.npz", np.zeros((4, 4)))
    result = galirep.inpaint("run", data, tmp_path / "a.png", count=1, device="cpu")
    assert result.statistics == chosen and loaded == [None, "masked"][:loads]


@pytest.mark.parametrize(
    ("variant", "masked"), [("gali-4", False), ("gali-mix", True), ("masked-ali", True), (None, None)]
)
def test_a_run_trained_without_masks_is_told(cli, tmp_path, variant, masked):
    header = {"variant": get_variant(variant).to_dict()} if variant else {}
    run = export(tmp_path / "run", **header)
    done = cli("inpaint", run, "--data", DATA, "--count", 2, "--device", "cpu", "--out", tmp_path / "a.png", "--json")
    assert json.loads(done.stdout)["trained_with_masks"] is masked
    told = f"galirep: {run} was trained without masks (variant gali-4): its E has seen whole images only\n"
    assert (told in done.stderr) == (masked is False)


def test_the_command_gives_what_the_function_gives(cli, tmp_path):
    arguments = ["--split", SPLIT, "--count", 3, "--columns", 2, "--zoom", 2, "--seed", 5, "--captions"]
    done = cli("inpaint", RUN, "--data", DATA, *arguments, "--device", "cpu", "--out", tmp_path / "a.png", "--json")
    printed = json.loads(done.stdout)
    options = {"split": SPLIT, "count": 3, "columns": 2, "zoom": 2, "seed": 5, "captions": True, "device": "cpu"}
    result = galirep.inpaint(RUN, DATA, tmp_path / "b.png", **options)
    assert {**result.to_dict(), "out": printed["out"]} == printed and printed["run"] == str(RUN)
    assert (printed["data"], printed["split"], printed["seed"], printed["images"]) == (DATA, SPLIT, 5, 3)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert f"of the erased pixels alone {printed['masked_pixel_mse']:.4f}" in done.stderr


def test_networks_run_in_blocks_of_the_same_result(tmp_path, monkeypatch):
    options = {"split": SPLIT, "count": 9, "device": "cpu"}
    whole = galirep.inpaint(RUN, DATA, tmp_path / "a.png", **options)
    monkeypatch.setattr(module, "BLOCK", 4)
    assert galirep.inpaint(RUN, DATA, tmp_path / "b.png", **options).pixel_mse == pytest.approx(
        whole.pixel_mse, rel=1e-5
    )
