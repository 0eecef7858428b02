"""Views: each operation against a slow loop, range and shape, one draw for all, grey images, gradients."""

import pytest
import torch

from galirep.game import views

BATCH, SIZE = 60, 12
CPU = torch.device("cpu")


def source(seed=1):
    return torch.Generator().manual_seed(seed)


def images(channels=3, seed=2, size=SIZE, batch=BATCH):
    return torch.rand(batch, channels, size, size, generator=source(seed), dtype=torch.float64) * 2 - 1


def draw(*names, seed=1, batch=BATCH, size=SIZE, channels=3):
    return views.draw(names, batch, size, source(seed), CPU, channels)


def bilinear(image, y, x):
    """Return the value between pixel centres; the border's pixels go on."""
    size = len(image)
    y, x = (min(max(v, 0), size - 1) for v in (y, x))
    top, left = int(y), int(x)
    bottom, right = min(top + 1, size - 1), min(left + 1, size - 1)
    v, u = y - top, x - left
    upper = (1 - u) * image[top][left] + u * image[top][right]
    return (1 - v) * upper + v * ((1 - u) * image[bottom][left] + u * image[bottom][right])


def test_crop_stretches_a_rectangle_inside_the_image():
    x = images()
    got = draw("crop")(x)
    areas, aspects, lefts, tops = torch.rand(4, BATCH, generator=source()).double().tolist()
    for i in range(BATCH):
        area, aspect = 0.2 + 0.8 * areas[i], (3 / 4) ** (1 - 2 * aspects[i])
        width, height = min(1, (area * aspect) ** 0.5), min(1, (area / aspect) ** 0.5)
        left, top = (1 - width) * lefts[i], (1 - height) * tops[i]
        for row in range(SIZE):
            for column in range(SIZE):
                y = (top + height * (row + 0.5) / SIZE) * SIZE - 0.5
                expected = bilinear(x[i, 0].tolist(), y, (left + width * (column + 0.5) / SIZE) * SIZE - 0.5)
                assert float(got[i, 0, row, column]) == pytest.approx(expected, abs=1e-5)


def test_shift_moves_and_repeats_the_border():
    x = images()
    got = draw("shift")(x)
    right, down = (SIZE / 8 * (2 * torch.rand(2, BATCH, generator=source()).double() - 1)).tolist()
    for i in range(BATCH):
        for row in range(SIZE):
            for column in range(SIZE):
                expected = bilinear(x[i, 1].tolist(), row + down[i], column + right[i])
                assert float(got[i, 1, row, column]) == pytest.approx(expected, abs=1e-5)


def test_flip_mirrors_half_of_the_images():
    x = images()
    got = draw("flip")(x)
    flipped = (torch.rand(BATCH, 1, 1, 1, generator=source()) < 0.5).flatten()
    assert torch.equal(got[flipped], x[flipped].flip(3)) and torch.equal(got[~flipped], x[~flipped])
    assert 15 < int(flipped.sum()) < 45


def test_color_is_brightness_contrast_saturation_each_cut_to_the_range():
    x = images()
    got = draw("color")(x)
    generator = source()
    factors = (0.6 + 0.8 * torch.rand(3, BATCH, generator=generator)).double()
    colored = torch.rand(BATCH, generator=generator) < 0.8
    for i in range(BATCH):
        y = (((x[i] + 1) / 2) * factors[0, i]).clamp(0, 1)
        mean = (0.299 * y[0] + 0.587 * y[1] + 0.114 * y[2]).mean()
        y = (mean + factors[1, i] * (y - mean)).clamp(0, 1)
        grey = 0.299 * y[0] + 0.587 * y[1] + 0.114 * y[2]
        y = (grey + factors[2, i] * (y - grey)).clamp(0, 1)
        torch.testing.assert_close(got[i], 2 * y - 1 if colored[i] else x[i], rtol=0, atol=1e-6)
    assert 36 < int(colored.sum()) < 60


def test_grey_takes_the_colour_of_a_fifth_of_the_images():
    x = images()
    got = draw("grey")(x)
    same = (got == x).flatten(1).all(1)
    torch.testing.assert_close(
        got[~same], (0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:])[~same].expand(-1, 3, -1, -1)
    )
    assert 3 < int((~same).sum()) < 25


def test_grey_images_keep_their_one_channel_and_lose_nothing_to_colour_views():
    x = images(channels=1)
    torch.testing.assert_close(draw("grey", channels=1)(x), x)
    # brightness and contrast as in a colour image of three equal channels, which has no saturation
    grey, coloured = draw("color", channels=1)(x), draw("color")(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(coloured, grey.expand(-1, 3, -1, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", (1, 2, 3))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_shape_type_and_range_stay(channels, dtype):
    x = images(channels).to(dtype)
    got = draw(*views.VIEWS, channels=channels)(x)
    assert got.shape == x.shape and got.dtype == dtype
    assert float(got.min()) >= -1 - 1e-6 and float(got.max()) <= 1 + 1e-6


def test_one_draw_serves_every_variable_and_another_draw_differs():
    one = draw(*views.VIEWS)
    assert torch.equal(one(images()), one(images()))
    assert not torch.equal(one(images()), draw(*views.VIEWS, seed=2)(images()))
    # image i is treated alike whatever the others are
    x, y = images(), images(seed=5)
    y[7] = x[7]
    torch.testing.assert_close(one(x)[7], one(y)[7])
    assert torch.equal(draw()(x), x)


@pytest.mark.parametrize("name", views.VIEWS)
def test_gradients_agree_with_finite_differences(name):
    apply = draw(name, batch=4, size=6)
    # away from 0 and 1, where colours are cut
    x = (0.3 * images(size=6, batch=4)).requires_grad_()
    assert torch.autograd.gradcheck(apply, x)
