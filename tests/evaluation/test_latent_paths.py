"""Paths between latents against their formulas."""

import numpy as np
import pytest
import torch

from galirep.evaluation.pictures.latent_paths import PATHS, walk


def _pair(n=3, d=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator), torch.randn(n, d, generator=generator)


@pytest.mark.parametrize("path", PATHS)
def test_the_ends_are_exact(path):
    a, b = _pair()
    points = walk(path, a, b, 7)
    assert points.shape == (3, 7, 5) and points.dtype == a.dtype
    assert torch.equal(points[:, 0], a) and torch.equal(points[:, -1], b)
    assert torch.equal(walk(path, a, b, 2), torch.stack((a, b), 1))


def test_linear_steps_are_equal():
    a, b = _pair()
    want = np.stack([(1 - t) * a.numpy() + t * b.numpy() for t in (0, 0.25, 0.5, 0.75, 1)], 1)
    assert np.allclose(walk("linear", a, b, 5).numpy(), want, atol=1e-6)


def test_a_quarter_circle_is_walked_at_equal_angles():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    angles = np.deg2rad([0, 30, 60, 90])
    assert np.allclose(walk("spherical", a, b, 4)[0].numpy(), 2 * np.stack([np.cos(angles), np.sin(angles)], 1))


def test_spherical_is_the_formula_and_keeps_a_common_norm():
    a, b = (x.double() for x in _pair())
    b *= a.norm(dim=1, keepdim=True) / b.norm(dim=1, keepdim=True)
    got = walk("spherical", a, b, 6)
    for i in range(3):
        w = np.arccos(float(a[i] @ b[i] / (a[i].norm() * b[i].norm())))
        for j, t in enumerate(np.linspace(0, 1, 6)):
            want = (np.sin((1 - t) * w) * a[i] + np.sin(t * w) * b[i]) / np.sin(w)
            assert torch.allclose(got[i, j], want, atol=1e-12)
    assert torch.allclose(got.norm(dim=-1), a.norm(dim=-1, keepdim=True).expand(3, 6), atol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, 0.0])
def test_parallel_opposite_and_zero_latents_have_the_linear_path(factor):
    a = torch.tensor([[0.3, -0.7, 0.1]])
    for left, right in ((a, factor * a), (factor * a, a)):
        assert torch.equal(walk("spherical", left, right, 5), walk("linear", left, right, 5))
