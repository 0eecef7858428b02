"""Errors of reconstructions against loops that spell them out, and bad input."""

import numpy as np
import pytest
import torch

from galirep.errors import DataError
from galirep.metrics.reconstruction import feature_mse, pixel_mse


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
