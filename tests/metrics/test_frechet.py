"""The Fréchet distance against scipy's matrix square root, a closed form, and bad input."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from galirep.errors import DataError
from galirep.metrics.frechet import frechet_distance


def _features(n, d, seed, scale=1.0, shift=0.0):
    random = np.random.default_rng(seed)
    return (random.normal(size=(n, d)) @ random.normal(size=(d, d)) * scale + shift).astype(np.float32)


def test_it_is_equation_6_of_heusel():
    a, b = _features(200, 6, 0), _features(150, 6, 1, scale=2, shift=3)
    m_a, m_b = a.astype(float).mean(0), b.astype(float).mean(0)
    c_a = sum(np.outer(x - m_a, x - m_a) for x in a.astype(float)) / (len(a) - 1)
    c_b = sum(np.outer(x - m_b, x - m_b) for x in b.astype(float)) / (len(b) - 1)
    expected = sum((m_a - m_b) ** 2) + np.trace(c_a + c_b - 2 * sqrtm(c_a @ c_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_one_dimension_is_the_closed_form():
    a, b = np.array([[0.0], [2.0]]), np.array([[5.0], [5.0], [11.0]])
    # means 1 and 7, variances 2 and 12: (1 - 7)^2 + (sqrt 2 - sqrt 12)^2
    assert frechet_distance(a, b) == pytest.approx(36 + (np.sqrt(2) - np.sqrt(12)) ** 2)


def test_equal_sets_have_no_distance_and_it_is_symmetric():
    a, b = _features(60, 8, 2), _features(40, 8, 3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_fewer_rows_than_columns_are_fine():
    a, b = _features(5, 20, 0), _features(7, 20, 1)
    assert np.isfinite(frechet_distance(a, b)) and frechet_distance(a, b) > 0


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (np.zeros((4, 3)), np.zeros((4, 2)), r"features \(N, D\) and \(M, D\), not \(4, 3\) and \(4, 2\)"),
        (np.zeros(4), np.zeros(4), r"features \(N, D\)"),
        (np.zeros((1, 3)), np.zeros((4, 3)), "two or more rows of features on each side, not 1, 4"),
        (np.zeros((4, 3)), np.zeros((0, 3)), "two or more rows of features on each side, not 4, 0"),
        (np.full((4, 3), np.nan), np.zeros((4, 3)), "NaN or infinite"),
        (np.zeros((4, 3)), np.full((4, 3), np.inf), "NaN or infinite"),
    ],
)
def test_bad_features(a, b, text):
    with pytest.raises(DataError, match=text):
        frechet_distance(a, b)
