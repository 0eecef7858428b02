"""Warnings in words, from scripted lines of metrics."""

import math

import pytest

from galirep.game.objectives import Chance, chance
from galirep.runs.metrics import Evaluation, MetricsRow
from galirep.training.watch import EARLIEST, PATIENCE, Watch, status_line

LEVEL = 2 * math.log(4)
SOUND = {
    "images": 100,
    "pixel_mse": 0.03,
    "mean_image_mse": 0.07,
    "mu_variance": 0.8,
    "sigma": 0.4,
    "mu_rank": 6.0,
    "kl": 12.0,
    "aggregate_mean": 0.1,
    "aggregate_variance": 1.0,
    "sigma_at_bounds": 0.0,
    "feature_rank": 9.0,
}


def row(step, *, loss_d=2.0, loss_g=3.0, own=0.5, gradient=1.0, **evaluation):
    probs = [[own if i == j else (1 - own) / 3 for j in range(4)] for i in range(4)]
    unwatched = dict.fromkeys(("epoch", "mu_std", "sigma", "lr", "images_per_second", "peak_memory_mib"), 0.0)
    return MetricsRow(
        step=step,
        loss_d=loss_d,
        loss_g=loss_g,
        probs=probs,
        gradient_norms={"E": 1.0, "G": gradient, "D": 1.0},
        weight_norms=dict.fromkeys("EGD", 1.0),
        seconds={},
        evaluation=Evaluation(**(SOUND | evaluation)) if evaluation else None,
        **unwatched,
    )


def watch(steps=100_000, rows=()):
    return Watch(Chance(LEVEL, LEVEL), 8, steps, rows)


def test_a_sound_run_is_told_nothing():
    watching = watch()
    assert [watching.update(row(step, images=100)) for step in (100, 5000, 10_000)] == [
        [],
        [],
        [],
    ] and watching.active == {}


@pytest.mark.parametrize(("objective", "level"), [("misclassification", 0.575), ("minimax", -2.773)])
def test_the_loss_of_g_is_measured_from_its_own_level(objective, level):
    """A D that is sure of all costs `misclassification` 2 ln(1 / 1e-4) = 18: no divergence, though 32 times .575."""
    for far, told in ((8.5, False), (9.5, True)):
        watching = Watch(chance(4, objective), 8, 100_000)
        watching.update(row(100, loss_g=level + far * LEVEL))
        assert (set(watching.active) == {"losses"}) == told
    assert f"chance 2.77; G and E {level + 9.5 * LEVEL:.3g}, chance {level:.3g})" in watching.active["losses"]


def test_d_at_chance_is_said_once_until_it_clears():
    watching = watch()
    at_chance = [watching.update(row(step, loss_d=1.005 * LEVEL)) for step in range(500, 4001, 500)]
    assert [len(new) for new in at_chance] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert at_chance[3][0].startswith("D at chance for 2,000 updates") and "4,000" in watching.active["chance"]
    assert watching.update(row(4500, loss_d=1.02 * LEVEL)) == [] and watching.active == {}
    again = [watching.update(row(step, loss_d=LEVEL)) for step in range(5000, 7001, 500)]
    assert [len(new) for new in again] == [0, 0, 0, 1, 0]  # 2,000 after the line of 4,500


@pytest.mark.parametrize(
    ("signs", "name", "says"),
    [
        (
            {"own": 0.995, "gradient": 1e-5},
            "wins",
            "D wins: it gives the true class 0.995 and G a gradient of norm 1.0e-05",
        ),
        ({"loss_g": 11 * LEVEL}, "losses", "losses far above chance"),
        ({"loss_d": 11 * LEVEL}, "losses", "losses far above chance"),
        ({"mu_rank": 1.5}, "ignores", "posterior ignores x: mu has effective rank 1.5"),
        ({"mu_variance": 0.001}, "ignores", "posterior ignores x"),
        ({"aggregate_variance": 5.0}, "prior", "variance 5 (prior 1)"),
        ({"aggregate_variance": 0.2}, "prior", "posterior far from the prior"),
        ({"aggregate_mean": 1.5}, "prior", "mean 1.5 (prior 0)"),
        ({"kl": 88.0}, "prior", "KL 11 nats a dimension"),
        ({"feature_rank": 1.2}, "features", "features collapsed: the last hidden layer has effective rank 1.2"),
        ({"pixel_mse": 0.07}, "mean", "reconstruction no better than the mean image after 3,000 updates"),
        ({"sigma_at_bounds": 0.6}, "bounds", "log sigma at its bounds for 60%"),
    ],
)
def test_each_sign_has_its_words(signs, name, says):
    watching = watch()
    (told,) = watching.update(row(3000, **signs))
    assert says in told and watching.active == {name: told}
    assert (
        watching.update(row(3100, **signs)) == []
        and watching.update(row(3200, images=100)) == []
        and watching.active == {}
    )


@pytest.mark.parametrize(
    "signs", ({"own": 0.995}, {"gradient": 1e-5}, {"loss_g": 9 * LEVEL}, {"mu_rank": 2.1}, {"sigma_at_bounds": 0.4})
)
def test_half_a_sign_is_none(signs):
    assert watch().update(row(3000, **signs)) == []


def test_a_reconstruction_that_is_lost():
    watching = watch()
    assert watching.update(row(100, pixel_mse=0.02)) == watching.update(row(200, pixel_mse=0.039)) == []
    assert watching.update(row(300, pixel_mse=0.041)) == ["reconstruction got worse: held-out mse 0.0410, after 0.0200"]
    assert watching.update(row(350)) == [] and "worse" in watching.active  # until the next evaluation


def test_a_young_run_is_given_time_and_a_short_one_less():
    assert watch().update(row(PATIENCE - 1, mu_rank=1.0)) == [] != watch().update(row(PATIENCE, mu_rank=1.0))
    assert watch(400).update(row(99, mu_rank=1.0)) == [] != watch(400).update(row(100, mu_rank=1.0))
    assert watch(4).update(row(EARLIEST - 1, mu_rank=1.0)) == [] != watch(4).update(row(EARLIEST, mu_rank=1.0))


def test_few_dimensions_or_images_are_no_collapse():
    assert Watch(Chance(LEVEL, LEVEL), 2, 100_000).update(row(3000, mu_rank=1.0)) == []
    assert watch().update(row(3000, images=4, mu_rank=1.0, feature_rank=1.0)) == []


def test_a_watch_that_resumes_knows_what_one_that_never_stopped_knows():
    rows = [row(step, loss_d=LEVEL, pixel_mse=0.02 + step / 50_000) for step in range(500, 4001, 500)]
    whole = watch()
    for line in rows:
        whole.update(line)
    assert watch(rows=rows).active == whole.active and set(whole.active) == {"chance", "worse", "mean"}
    resumed = watch(rows=rows[:5])
    for line in rows[5:]:
        resumed.update(line)
    assert resumed.active == whole.active


def test_the_status_line_prints_each_losss_own_level():
    line = status_line(
        MetricsRow.from_dict(row(3).to_dict() | {"seconds": {"interval": 1.0, "data_wait": 0.0}}),
        chance(4, "misclassification"),
    )
    assert "D 2.000 (chance 2.773) GE 3.000 (chance 0.575) p(true) 0.50" in line
