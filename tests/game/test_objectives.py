"""The closed forms of the objectives, against slow sums, formulas and identities of the theory."""

import math

import pytest
import slow_losses
import torch
import torch.nn.functional as F

from galirep.game import objectives

SIZES = (2, 3, 4, 8)


def logits_of(n, batch=5, spread=3.0):
    return spread * torch.randn(n, batch, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("closed", "slow"),
    [
        (objectives.discriminator_loss, slow_losses.discriminator),
        (objectives.product_loss, slow_losses.product),
        (objectives.minimax_loss, lambda logits: -slow_losses.discriminator(logits)),
        (objectives.misclassification_loss, slow_losses.misclassification),
        (objectives.relativistic_discriminator_loss, lambda logits: slow_losses.relativistic(logits, -1)),
        (objectives.relativistic_generator_loss, lambda logits: slow_losses.relativistic(logits, 1)),
    ],
    ids=["discriminator", "product", "minimax", "misclassification", "relativistic-d", "relativistic-g"],
)
def test_closed_forms_equal_the_spelled_out_sums_in_value_and_gradient(closed, slow, n):
    one, other = logits_of(n).requires_grad_(), logits_of(n).requires_grad_()
    got, expected = closed(one), slow(other)
    got.backward(), expected.backward()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("n", SIZES)
def test_gradients_have_the_closed_form(n):
    logits = logits_of(n).requires_grad_()
    p, batch = logits.detach().softmax(-1), logits.shape[1]
    one_hot = torch.eye(n, dtype=p.dtype).unsqueeze(1)
    (to_d,) = torch.autograd.grad(objectives.discriminator_loss(logits), logits)
    (to_g,) = torch.autograd.grad(objectives.product_loss(logits), logits)
    torch.testing.assert_close(to_d, 2 / n * (p - one_hot) / batch)
    torch.testing.assert_close(to_g, 2 / (n * (n - 1)) * ((n - 1) * p - 1 + one_hot) / batch)


@pytest.mark.parametrize("n", SIZES)
def test_losses_at_uniform_logits_are_2_ln_n(n):
    logits = torch.full((n, 3, n), 0.7, dtype=torch.float64)
    assert objectives.chance(n).d == pytest.approx({2: 1.386, 3: 2.197, 4: 2.773, 8: 4.159}[n], abs=5e-4)
    for loss in (objectives.discriminator_loss, objectives.product_loss):
        assert float(loss(logits)) == pytest.approx(2 * math.log(n))
    for loss in objectives.OBJECTIVES["relativistic"]:
        assert float(loss(logits)) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("n", SIZES)
def test_each_objective_has_its_own_level_at_uniform_logits(n):
    levels = {
        "product": (2 * math.log(n), 2 * math.log(n)),
        "minimax": (2 * math.log(n), -2 * math.log(n)),
        "misclassification": (2 * math.log(n), 2 * math.log(n / (n - 1))),
        "relativistic": (2 * math.log(2), 2 * math.log(2)),
    }
    assert set(levels) == set(objectives.OBJECTIVES)
    for objective, level in levels.items():
        assert objectives.chance(n, objective) == pytest.approx(level)
        uniform = torch.full((n, 3, n), 0.7, dtype=torch.float64)
        assert [float(loss(uniform)) for loss in objectives.OBJECTIVES[objective]] == pytest.approx(level)
    assert objectives.chance(4, "misclassification").g == pytest.approx(0.575, abs=5e-4)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("objective", objectives.OBJECTIVES)
def test_permuting_the_classes_changes_nothing(objective, n):
    logits = logits_of(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(9))
    permuted = logits[order][:, :, order]
    for loss in objectives.OBJECTIVES[objective]:
        if objective == "relativistic":
            # which of a pair is rolled depends on the order, the expectation does not: one image has no roll
            torch.testing.assert_close(loss(permuted[:, :1]), loss(logits[:, :1]))
        else:
            torch.testing.assert_close(loss(permuted), loss(logits))


def discrete_games(n, points=6, total=60):
    """n distributions over a few points as whole counts of equal sum, every point in each: (n, points)."""
    generator = torch.Generator().manual_seed(n)
    cuts = [torch.randperm(total - 1, generator=generator)[: points - 1].sort().values + 1 for _ in range(n)]
    return torch.stack([torch.diff(c, prepend=torch.tensor([0]), append=torch.tensor([total])) for c in cuts])


def entropy(p):
    return -(p * p.log()).sum()


@pytest.mark.parametrize("n", (2, 4, 8))
def test_against_the_optimal_discriminator_the_product_of_terms_is_jsd_and_kl(n):
    """sum_i E_{p_i} log prod_{j != i} D_j = -n(n-1) ln n - n JSD(p_1..p_n) - n sum_j KL(pbar || p_j)."""
    counts = discrete_games(n)
    p = counts.double() / counts.sum(1, keepdim=True)
    pbar = p.mean(0)
    best = p.log().T  # (points, n): logits of D_j(t) = p_j(t) / sum_i p_i(t)
    logits = torch.stack([best.repeat_interleave(c, 0) for c in counts])  # each point as often as its class draws it
    jsd = entropy(pbar) - torch.stack([entropy(q) for q in p]).mean()
    kl = torch.stack([(pbar * (pbar / q).log()).sum() for q in p]).sum()
    expected = -objectives.product_loss(logits) * n * (n - 1) / 2
    torch.testing.assert_close(expected, -n * (n - 1) * math.log(n) - n * jsd - n * kl)
    torch.testing.assert_close(objectives.discriminator_loss(logits), 2 * math.log(n) - 2 * jsd)
    other = best + 0.1 * torch.randn(best.shape, dtype=best.dtype, generator=torch.Generator().manual_seed(n))
    worse = torch.stack([other.repeat_interleave(c, 0) for c in counts])
    assert objectives.discriminator_loss(worse) > objectives.discriminator_loss(logits)


def test_relativistic_with_two_classes_is_twice_rpgan():
    """R3GAN's critic f = l_0 - l_1: D minimises softplus(-(f(real) - f(fake))), G softplus(f(real) - f(fake))."""
    logits = logits_of(2, batch=7)
    critic = logits[..., 0] - logits[..., 1]  # (2, B)
    difference = critic[0] - critic[1].roll(1)
    torch.testing.assert_close(objectives.relativistic_discriminator_loss(logits), 2 * F.softplus(-difference).mean())
    torch.testing.assert_close(objectives.relativistic_generator_loss(logits), 2 * F.softplus(difference).mean())


def test_minimax_saturates_where_the_discriminator_is_sure_and_the_product_of_terms_does_not():
    sure = (30 * torch.eye(4)).unsqueeze(1).requires_grad_()
    (minimax,) = torch.autograd.grad(objectives.minimax_loss(sure), sure)
    (product,) = torch.autograd.grad(objectives.product_loss(sure), sure)
    assert minimax.abs().max() < 1e-6 < 0.1 < product.abs().max()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("objective", objectives.OBJECTIVES)
@pytest.mark.parametrize("sign", (1, -1))
def test_extreme_logits_give_finite_losses_and_gradients(objective, n, sign):
    logits = (sign * 1e4 * torch.eye(n)).unsqueeze(1).expand(n, 3, n).clone().requires_grad_()
    for loss in objectives.OBJECTIVES[objective]:
        value = loss(logits)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite() and gradient.isfinite().all()
