"""Figures pixel by pixel: where images, gaps and captions are, and rounding."""

import numpy as np
import pytest
import torch
from PIL import Image

from galirep.data.tensors import to_float
from galirep.errors import ConfigError
from galirep.visuals.figure import Figure, Row, default_zoom, fold_rows, save_figure, to_pixels


def _flat(*values, side=2, channels=1):
    """Return images of one value each."""
    return to_float(torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, channels, side, side))


def _saved(path, figure, **options):
    save_figure(path, figure, **options)
    return np.asarray(Image.open(path))


def test_every_uint8_value_comes_back():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    pixels = to_pixels(to_float(values))
    assert pixels.shape == (1, 16, 16, 3) and (pixels == values.numpy()[0, 0, None, :, :, None]).all()
    assert to_pixels(torch.tensor([-2.0, 0.0, 1.1]).view(3, 1, 1, 1))[:, 0, 0, 0].tolist() == [0, 128, 255]


def test_two_rows_of_three_images_in_two_columns(tmp_path):
    """Gaps of 2 pixels within a block and of 10 between blocks; the second block has no second column."""
    figure = fold_rows([Row("a", _flat(10, 20, 30)), Row("b", _flat(40, 50, 60))], 2)
    want = np.full((26, 10, 3), 255)
    for value, top, left in [(10, 2, 2), (20, 2, 6), (40, 6, 2), (50, 6, 6), (30, 18, 2), (60, 22, 2)]:
        want[top : top + 2, left : left + 2] = value
    assert np.array_equal(_saved(tmp_path / "a.png", figure, zoom=1), want)


def test_groups_of_columns_are_set_apart(tmp_path):
    figure = Figure([[Row("", _flat(0, 1, 2, 3, side=1))]], (1, 2, 1))
    (row,) = _saved(tmp_path / "a.png", figure, zoom=1)[2:3]
    assert [int(np.flatnonzero(row[:, 0] == value)[0]) for value in range(4)] == [2, 13, 16, 27] and len(row) == 30


def test_zoom_repeats_pixels_and_colours_stay(tmp_path):
    image = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]], dtype=torch.uint8)
    got = _saved(tmp_path / "a.png", Figure([[Row("", to_float(image[None]))]], [1]), zoom=3)
    want = np.kron(image.permute(1, 2, 0).numpy(), np.ones((3, 3, 1), np.uint8))
    assert np.array_equal(got[2:-2, 2:-2], want)
    assert [default_zoom(size) for size in (8, 16, 24, 32, 64, 128)] == [6, 3, 2, 2, 1, 1]
    assert _saved(tmp_path / "a.png", Figure([[Row("", _flat(7, side=16))]], [1])).shape == (52, 52, 3)


def test_captions_move_the_images_and_change_none(tmp_path):
    rows = [Row("one", _flat(10, 20, side=16)), Row("two\nlines", _flat(40, 50, side=16))]
    figure = Figure([rows], [2], ["left", "right"])
    plain = _saved(tmp_path / "a.png", figure, zoom=2)
    written = _saved(tmp_path / "b.png", figure, zoom=2, captions=True)
    top, left = (large - small for large, small in zip(written.shape[:2], plain.shape[:2], strict=True))
    assert top == 12 and left > 10 and np.array_equal(written[top + 2 :, left + 2 :], plain[2:, 2:])
    for rows in (slice(14, 46), slice(48, 80)):
        assert (written[rows, :left] < 128).any(), "each row has its caption"
    for columns in (slice(left + 2, left + 34), slice(left + 36, left + 68)):
        assert (written[:14, columns] < 128).any(), "each column has its head"


def test_captions_that_are_higher_than_an_image_do_not_overlap(tmp_path):
    figure = Figure([[Row("one\ntwo", _flat(10, side=8)), Row("one\ntwo", _flat(20, side=8))]], [1])
    written = _saved(tmp_path / "a.png", figure, zoom=1, captions=True)
    dark = (written[:, :12] < 128).any((1, 2))
    assert written.shape[0] == 2 + 24 + 2 + 24 + 2 and np.array_equal(dark[2:26], dark[28:52])


def test_long_captions_keep_their_ends(tmp_path):
    widths = [
        _saved(tmp_path / "a.png", Figure([[Row(text, _flat(0))]], [1]), captions=True).shape[1]
        for text in ("x" * 24, "x" * 500, "..." + "x" * 21, "日本 " * 3)
    ]
    assert widths[1] == widths[2] <= widths[0]


def test_a_picture_of_too_many_pixels_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the picture would be 20004 x 20004 pixels: show fewer images or a smaller"):
        save_figure(tmp_path / "a.png", Figure([[Row("", _flat(0))]], [1]), zoom=10000)
    assert not list(tmp_path.iterdir())
