"""Augmentation of D's images: each operation against a slow loop, one draw for all, and gradients."""

import pytest
import torch

from galirep.game import augmentation
from galirep.training import config

BATCH, SIZE = 40, 9
CPU = torch.device("cpu")


def source(seed=1):
    return torch.Generator().manual_seed(seed)


def images(channels=3, seed=2, size=SIZE):
    return torch.rand(BATCH, channels, size, size, generator=source(seed), dtype=torch.float64) * 2 - 1


def test_the_setting_lists_every_augmentation():
    assert tuple(augmentation.AUGMENTATIONS) == config.AUGMENTATIONS


def test_color_is_brightness_saturation_contrast():
    x = images()
    got = augmentation.draw(["color"], BATCH, SIZE, source(), CPU)(x)
    brightness, saturation, contrast = torch.rand(3, BATCH, generator=source()).double()
    for i in range(BATCH):
        y = x[i] + brightness[i] - 0.5
        grey = (y[0] + y[1] + y[2]) / 3
        y = torch.stack([grey + 2 * saturation[i] * (c - grey) for c in y])
        torch.testing.assert_close(got[i], y.mean() + (0.5 + contrast[i]) * (y - y.mean()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "max_shift"), [(8, 1), (9, 1), (12, 2), (32, 4)])
def test_translation_moves_by_whole_pixels_and_fills_with_0(size, max_shift):
    x = images(size=size)
    got = augmentation.draw(["translation"], BATCH, size, source(), CPU)(x)
    shifts = torch.randint(-max_shift, max_shift + 1, (2, BATCH, 1), generator=source())[..., 0].T.tolist()
    assert {v for pair in shifts for v in pair} == set(range(-max_shift, max_shift + 1))
    for i, (dy, dx) in enumerate(shifts):
        for row in range(size):
            for column in range(size):
                inside = 0 <= row + dy < size and 0 <= column + dx < size
                expected = x[i, :, row + dy, column + dx] if inside else torch.zeros(3, dtype=x.dtype)
                assert torch.equal(got[i, :, row, column], expected)


@pytest.mark.parametrize("size", (8, 9, 10))
def test_cutout_is_a_square_of_half_the_side_about_a_uniform_centre(size):
    x = images(size=size)
    got = augmentation.draw(["cutout"], BATCH, size, source(), CPU)(x)
    side = int(size / 2 + 0.5)
    centres = torch.randint(0, size + 1 - side % 2, (2, BATCH, 1), generator=source())[..., 0].T.tolist()
    for i, (cy, cx) in enumerate(centres):
        expected = x[i].clone()
        expected[:, max(0, cy - side // 2) : cy - side // 2 + side, max(0, cx - side // 2) : cx - side // 2 + side] = 0
        assert torch.equal(got[i], expected)


def test_one_draw_serves_every_variable_and_another_draw_differs():
    names = ["color", "translation", "cutout"]
    one = augmentation.draw(names, BATCH, SIZE, source(), CPU)
    assert torch.equal(one(images()), one(images())) and not torch.equal(
        one(images()), augmentation.draw(names, BATCH, SIZE, source(2), CPU)(images())
    )
    x = images()
    for name in names:
        x = one_of(name, names)(x)
    torch.testing.assert_close(one(images()), x)


def one_of(name, names):
    """Draw the operation of `name` after those before it in `names`."""
    generator = source()
    for earlier in names[: names.index(name)]:
        augmentation.draw([earlier], BATCH, SIZE, generator, CPU)
    return augmentation.draw([name], BATCH, SIZE, generator, CPU)


@pytest.mark.parametrize("names", [["color"], ["translation"], ["cutout"], ["color", "translation", "cutout"]])
def test_gradients_agree_with_finite_differences(names):
    apply = augmentation.draw(names, 3, 6, source(), CPU)
    x = torch.rand(3, 2, 6, 6, generator=source(3), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(apply, x)
