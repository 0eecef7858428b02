"""Losses between views: the values of lightly 1.6, closed forms, a slow loop, gradients."""

import math

import pytest
import torch
from slow_view_losses import slow_info_nce, slow_vicreg

from galirep.game.view_losses import MIN_BATCH, VIEW_LOSSES, info_nce, vicreg


def projections(n, d):
    i = torch.arange(n * d, dtype=torch.float64).reshape(n, d)
    return torch.sin(1.7 * i), torch.sin(1.7 * i) + 0.3 * torch.cos(2.9 * i)


# lightly 1.6.0, float64: VICRegLoss()(a, b), NTXentLoss(temperature=0.5)(a, b), VICRegLoss()(0.1 * a, 3 * b)
LIGHTLY = {
    (2, 3): (13.21482200147528, 0.3698935497845967, 128.30109550018506),
    (8, 5): (8.320300780372254, 1.5232285201807256, 157.93283889475052),
    (6, 16): (11.858381800330436, 1.2506775289718484, 349.73212843650015),
}


@pytest.mark.parametrize("shape", LIGHTLY)
def test_values_are_those_of_lightly(shape):
    a, b = projections(*shape)
    expected = LIGHTLY[shape]
    assert [float(vicreg(a, b)), float(info_nce(a, b)), float(vicreg(0.1 * a, 3 * b))] == pytest.approx(expected, 1e-9)


@pytest.mark.parametrize("shape", LIGHTLY)
def test_values_are_those_of_the_spelled_out_sums(shape):
    a, b = projections(*shape)
    assert float(vicreg(a, b)) == pytest.approx(slow_vicreg(a.tolist(), b.tolist()), rel=1e-9)
    assert float(info_nce(a, b)) == pytest.approx(slow_info_nce(a.tolist(), b.tolist(), 0.5), rel=1e-9)


def test_vicreg_of_a_collapse_is_its_variance_term_and_of_a_white_code_0():
    constant = torch.full((7, 4), 0.3, dtype=torch.float64)
    assert float(vicreg(constant, constant)) == pytest.approx(25 * (1 - 0.01))
    white = 2 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert float(vicreg(white, white)) == 0


def test_info_nce_of_a_collapse_is_that_of_guessing_and_falls_when_views_agree():
    constant = torch.ones(6, 4, dtype=torch.float64)
    assert float(info_nce(constant, constant)) == pytest.approx(math.log(11))
    a = torch.eye(6, dtype=torch.float64)
    assert float(info_nce(a, a)) == pytest.approx(math.log(math.exp(2) + 10) - 2)
    assert info_nce(a, a.roll(1, 0)) > info_nce(a, a)


@pytest.mark.parametrize("loss", VIEW_LOSSES.values(), ids=VIEW_LOSSES)
def test_it_is_symmetric_and_its_gradient_that_of_finite_differences(loss):
    a, b = (x.requires_grad_() for x in projections(5, 3))
    torch.testing.assert_close(loss(a, b), loss(b, a))
    assert torch.autograd.gradcheck(loss, (a, b))
    assert torch.isfinite(loss(a[:MIN_BATCH], b[:MIN_BATCH]))
