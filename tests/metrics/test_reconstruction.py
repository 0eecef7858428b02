"""Errors of reconstructions against loops that spell them out, and bad input."""

import numpy as np
import pytest
import torch

from galirep.errors import DataError
from galirep.metrics.reconstruction import FeatureErrors, batch_std, feature_mse, pixel_mse, squared_errors


def test_pixel_mse_is_of_images_in_0_to_1():
    x = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rebuilt = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    unit, unit_rebuilt = ((t.flatten().double().numpy() + 1) / 2 for t in (x, rebuilt))
    expected = sum((a - b) ** 2 for a, b in zip(unit, unit_rebuilt, strict=True)) / len(unit)
    assert pixel_mse([(x, rebuilt)]) == pytest.approx(expected, rel=1e-6)
    blocks = zip(x.split(2), rebuilt.split(2), strict=True)
    assert pixel_mse(blocks) == pytest.approx(expected, rel=1e-6)


def test_black_against_white_is_1():
    assert pixel_mse([(-torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3, 3))]) == 1.0


def test_no_images_have_no_error():
    with pytest.raises(ZeroDivisionError):
        pixel_mse([])


def test_feature_mse_is_in_units_of_the_variance():
    random = np.random.default_rng(0)
    features, rebuilt = random.normal(size=(30, 4)) * [1, 2, 3, 4], random.normal(size=(30, 4))
    total = variance = 0.0
    for d in range(4):
        mean = sum(features[:, d]) / 30
        variance += sum((v - mean) ** 2 for v in features[:, d]) / 30
        total += sum((a - b) ** 2 for a, b in zip(features[:, d], rebuilt[:, d], strict=True)) / 30
    assert feature_mse(features, rebuilt) == pytest.approx(total / variance)
    assert feature_mse(features, features) == 0
    assert feature_mse(features, np.broadcast_to(features.mean(0), features.shape)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("features", "rebuilt", "text"),
    [
        (np.ones((3, 2)), np.ones((3, 1)), r"one shape, not \(3, 2\) and \(3, 1\)"),
        (np.ones(3), np.ones(3), r"two arrays \(N, D\)"),
        (np.eye(3), np.full((3, 3), np.nan), "NaN or infinite"),
        (np.full((3, 3), np.inf), np.eye(3), "NaN or infinite"),
        (np.ones((3, 2)), np.eye(3)[:, :2], "equal in all rows"),
        (np.ones((0, 2)), np.ones((0, 2)), "equal in all rows"),
    ],
)
def test_bad_features(features, rebuilt, text):
    with pytest.raises(DataError, match=text):
        feature_mse(features, rebuilt)


def test_each_image_has_its_error_in_a_mask_divided_by_its_area():
    random = torch.Generator().manual_seed(0)
    x, y = (torch.rand(4, 3, 5, 5, generator=random) * 2 - 1 for _ in range(2))
    mask = torch.rand(4, 1, 5, 5, generator=random) > 0.6
    whole, inside = squared_errors(x, y), squared_errors(x, y, mask)
    for i in range(4):
        a, b = ((t[i].double().numpy() + 1) / 2 for t in (x, y))
        squares = (a - b) ** 2
        assert whole[i] == pytest.approx(squares.mean())
        assert inside[i] == pytest.approx(squares[:, mask[i, 0].numpy()].mean())
    assert float(whole.mean()) == pytest.approx(pixel_mse([(x, y)]), rel=1e-6)


def test_the_std_is_that_of_batches_in_a_random_order():
    values = np.repeat([0.0, 1.0], 500)  # sorted by class
    order = np.random.default_rng(0).permutation(1000)
    means = [values[order[i : i + 100]].mean() for i in range(0, 1000, 100)]
    assert batch_std(values) == pytest.approx(np.std(means, ddof=1)) and batch_std(values) < 0.1
    assert batch_std(values[:199]) is None
    assert batch_std(values, 400) == pytest.approx(
        np.std([values[order[:400]].mean(), values[order[400:800]].mean()], ddof=1)
    )


def test_feature_errors_in_blocks_are_those_of_the_whole():
    random = np.random.default_rng(0)
    features, rebuilt = (random.normal(size=(30, 4)).astype(np.float32) + 1000 for _ in range(2))
    errors = FeatureErrors()
    for start in (0, 7, 20):
        stop = {0: 7, 7: 20, 20: 30}[start]
        errors.add(torch.from_numpy(features[start:stop]), torch.from_numpy(rebuilt[start:stop]))
    assert errors.variance() == pytest.approx(features.astype(np.float64).var(0).mean())
    assert errors.rows == pytest.approx(((features - rebuilt) ** 2).mean(1))
    whole = feature_mse(features.astype(np.float64), rebuilt.astype(np.float64))
    assert errors.rows.mean() / errors.variance() == pytest.approx(whole)


def test_feature_errors_refuse_what_feature_mse_refuses():
    errors = FeatureErrors("run in network")
    errors.add(torch.eye(3), torch.full((3, 3), torch.nan))
    errors.add(torch.tensor([[1.0, torch.inf, 2.0], [1.0, 2.0, 3.0]]), torch.zeros(2, 3))
    with pytest.raises(DataError, match=r"feature-MSE of run in network .* those of 4 of 5 images, .* NaN or infinite"):
        errors.variance()
    errors = FeatureErrors()
    errors.add(torch.ones(3, 2), torch.zeros(3, 2))
    with pytest.raises(DataError, match="equal in all rows"):
        errors.variance()
