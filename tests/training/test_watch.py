"""Warnings in words, from scripted lines of metrics."""

import math

import pytest

from galirep.training.watch import EARLIEST, PATIENCE, Watch

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
    out = {"step": step, "loss_d": loss_d, "loss_g": loss_g, "probs": probs, "gradient_norms": {"G": gradient}}
    return out | ({"evaluation": SOUND | evaluation} if evaluation else {})


def watch(steps=100_000, rows=()):
    return Watch(LEVEL, 8, steps, rows)


def test_a_sound_run_is_told_nothing():
    watching = watch()
    assert [watching.see(row(step, images=100)) for step in (100, 5000, 10_000)] == [
        [],
        [],
        [],
    ] and watching.standing == {}


def test_d_at_chance_is_said_once_until_it_clears():
    watching = watch()
    at_chance = [watching.see(row(step, loss_d=1.005 * LEVEL)) for step in range(500, 4001, 500)]
    assert [len(new) for new in at_chance] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert at_chance[3][0].startswith("D at chance for 2,000 updates") and "4,000" in watching.standing["chance"]
    assert watching.see(row(4500, loss_d=1.02 * LEVEL)) == [] and watching.standing == {}
    again = [watching.see(row(step, loss_d=LEVEL)) for step in range(5000, 7001, 500)]
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
    (told,) = watching.see(row(3000, **signs))
    assert says in told and watching.standing == {name: told}
    assert (
        watching.see(row(3100, **signs)) == [] and watching.see(row(3200, images=100)) == [] and watching.standing == {}
    )


@pytest.mark.parametrize(
    "signs", ({"own": 0.995}, {"gradient": 1e-5}, {"loss_g": 9 * LEVEL}, {"mu_rank": 2.1}, {"sigma_at_bounds": 0.4})
)
def test_half_a_sign_is_none(signs):
    assert watch().see(row(3000, **signs)) == []


def test_a_reconstruction_that_is_lost():
    watching = watch()
    assert watching.see(row(100, pixel_mse=0.02)) == watching.see(row(200, pixel_mse=0.039)) == []
    assert watching.see(row(300, pixel_mse=0.041)) == ["reconstruction got worse: held-out mse 0.0410, after 0.0200"]
    assert watching.see(row(350)) == [] and "worse" in watching.standing  # until the next evaluation


def test_a_young_run_is_given_time_and_a_short_one_less():
    assert watch().see(row(PATIENCE - 1, mu_rank=1.0)) == [] != watch().see(row(PATIENCE, mu_rank=1.0))
    assert watch(400).see(row(99, mu_rank=1.0)) == [] != watch(400).see(row(100, mu_rank=1.0))
    assert watch(4).see(row(EARLIEST - 1, mu_rank=1.0)) == [] != watch(4).see(row(EARLIEST, mu_rank=1.0))


def test_few_dimensions_or_images_are_no_collapse():
    assert Watch(LEVEL, 2, 100_000).see(row(3000, mu_rank=1.0)) == []
    assert watch().see(row(3000, images=4, mu_rank=1.0, feature_rank=1.0)) == []


def test_a_watch_that_resumes_knows_what_one_that_never_stopped_knows():
    rows = [row(step, loss_d=LEVEL, pixel_mse=0.02 + step / 50_000) for step in range(500, 4001, 500)]
    whole = watch()
    for line in rows:
        whole.see(line)
    assert watch(rows=rows).standing == whole.standing and set(whole.standing) == {"chance", "worse", "mean"}
    resumed = watch(rows=rows[:5])
    for line in rows[5:]:
        resumed.see(line)
    assert resumed.standing == whole.standing
