"""Random boxes, by their distribution, and the two ways they are applied."""

import pytest
import torch

from galirep.game.masks import ERASED, erase, mix, random_boxes

SIZE, DRAWS = 16, 40_000


@pytest.fixture(scope="module")
def boxes():
    return random_boxes(DRAWS, SIZE, torch.Generator().manual_seed(0))


def sides(boxes):
    """Return height, width, top and left of each box, and whether it is one full rectangle."""
    rows, columns = boxes[:, 0].any(2), boxes[:, 0].any(1)  # (B, S)
    height, width = rows.sum(1), columns.sum(1)
    full = boxes[:, 0] == (rows[:, :, None] & columns[:, None, :])
    return height, width, rows.int().argmax(1), columns.int().argmax(1), full.all(-1).all(-1)


def chi_square(values, support):
    counts = torch.bincount(values, minlength=max(support) + 1)[list(support)].double()
    assert counts.sum() == len(values), "a value outside the support"
    expected = len(values) / len(support)
    return float(((counts - expected) ** 2 / expected).sum())


def test_boxes_are_full_rectangles_of_at_least_one_pixel(boxes):
    assert boxes.shape == (DRAWS, 1, SIZE, SIZE) and boxes.dtype == torch.bool
    height, width, _, _, full = sides(boxes)
    assert height.min() == 1 and width.min() == 1 and full.all()
    assert torch.equal(boxes.sum((1, 2, 3)), height * width)


def test_sides_are_uniform_and_independent(boxes):
    height, width, *_ = sides(boxes)
    for side in (height, width):
        assert chi_square(side, range(1, SIZE + 1)) < 37.7  # the 99.9 % quantile at 15 degrees of freedom
    assert abs(torch.corrcoef(torch.stack([height, width]).double())[0, 1]) < 0.02


@pytest.mark.parametrize("axis", (0, 1))
def test_corners_are_uniform_over_the_places_where_the_box_fits(boxes, axis):
    """Check that no box is clipped: one of side 11 of 16 begins at 0 to 5, each equally often."""
    height, width, top, left, _ = sides(boxes)
    side = (height, width)[axis]
    corner = (top, left)[axis][side == 11]
    assert chi_square(corner, range(SIZE - 11 + 1)) < 20.5  # 99.9 % at 5


@pytest.mark.parametrize("size", (SIZE, 32))
def test_mean_area(size):
    area = random_boxes(20_000, size, torch.Generator().manual_seed(1)).double().mean()
    # 0.266 at 32, 0.258 at 64, 0.25 in the limit
    assert float(area) == pytest.approx(((size + 1) / (2 * size)) ** 2, abs=0.006)


def test_every_image_has_its_own_box_and_the_generator_decides():
    one, other = (random_boxes(64, SIZE, torch.Generator().manual_seed(s)) for s in (5, 5))
    assert torch.equal(one, other) and len({tuple(b.flatten().tolist()) for b in one}) > 50


def test_a_box_on_the_smallest_image_is_that_image():
    assert random_boxes(3, 1, torch.Generator().manual_seed(0)).all()


def test_erase_sets_the_inside_to_a_value_that_no_image_has():
    images, mask = torch.rand(2, 3, 4, 4) * 2 - 1, torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, :, 1:3, 2:] = True
    out = erase(images, mask)
    assert ERASED == -2.0 and (out[0, :, 1:3, 2:] == -2).all()
    assert torch.equal(out[1], images[1]) and torch.equal(out[~mask.expand_as(out)], images[~mask.expand_as(out)])


def test_mix_takes_the_second_image_inside_and_passes_gradients_accordingly():
    outside, inside = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    mask = random_boxes(2, 4, torch.Generator().manual_seed(3))
    out = mix(outside, inside, mask)
    everywhere = mask.expand_as(out)
    assert torch.equal(out[everywhere], inside[everywhere]) and torch.equal(out[~everywhere], outside[~everywhere])
    out.sum().backward()
    assert torch.equal(inside.grad, everywhere.float()) and torch.equal(outside.grad, (~everywhere).float())
