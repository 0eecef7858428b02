"""Learning rates, clipping, loss scale, averages and re-estimated statistics."""

import copy
import math

import pytest
import torch
from torch import nn

from galirep.game.discriminator import Discriminator
from galirep.game.step import Game
from galirep.game.variants import ALI
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.training.averaging import Average
from galirep.training.config import TrainConfig
from galirep.training.optimizers import Optimizers, norms, rate_factor

CPU = torch.device("cpu")


def config(**settings):
    return TrainConfig(data="d", **settings)


@pytest.fixture
def game():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = NETWORKS["compact"].build(Shapes(8, 1, 4, width=4))
        return Game(ALI, parts.encoder, parts.generator, Discriminator(ALI, parts, "none"))


def give_gradients(game, value=1.0):
    for net in game.players().values():
        for p in net.parameters():
            p.grad = torch.full_like(p, value)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"schedule": "constant"}, {0: 1, 5: 1, 9: 1}),
        ({"schedule": "constant", "warmup": 4}, {0: 0.25, 1: 0.5, 3: 1, 4: 1, 9: 1}),
        ({"schedule": "cosine"}, {0: 1, 5: 0.5, 9: 0.5 * (1 + math.cos(0.9 * math.pi)), 10: 0}),
        ({"schedule": "cosine", "warmup": 2}, {0: 0.5, 1: 1, 2: 1, 6: 0.5, 10: 0}),
        ({"schedule": "cosine", "warmup": 20}, {0: 0.05, 9: 0.5}),
    ],
)
def test_rate_factor(settings, factors):
    assert {step: rate_factor(config(**settings), step, 10) for step in factors} == pytest.approx(factors)


@pytest.mark.parametrize(
    ("rates", "steps"),
    [({"lr_e": 3e-3, "lr_d": 5e-3}, {"E": 3e-3, "G": 1e-3, "D": 5e-3}), ({}, {"E": 1e-3, "G": 1e-3, "D": 2e-3})],
    ids=["given", "derived from lr"],
)
def test_each_player_has_its_rate(game, rates, steps):
    before = {n: weights(net).clone() for n, net in game.players().items()}
    optimizers = Optimizers(game, config(lr=1e-3, **rates), CPU)
    give_gradients(game)
    optimizers.step(0.5, d_only=False)  # the first step of Adam moves every weight by its rate
    moved = {n: float((before[n] - weights(net)).mean()) for n, net in game.players().items()}
    assert moved == pytest.approx({n: rate / 2 for n, rate in steps.items()}, rel=1e-3)


def test_a_projector_moves_with_e(game):
    game.projector = nn.Linear(3, 2)
    before = weights(game.projector).clone()
    optimizers = Optimizers(game, config(lr=1e-3, lr_e=3e-3), CPU)
    give_gradients(game)
    for p in game.projector.parameters():
        p.grad = torch.full_like(p, 1.0)
    optimizers.step(1.0, d_only=True)
    assert torch.equal(weights(game.projector), before)
    optimizers.step(1.0, d_only=False)
    torch.testing.assert_close(before - weights(game.projector), torch.full_like(before, 3e-3), rtol=1e-3, atol=0)
    assert [group["lr"] for group in optimizers.state_dict()["EG"]["param_groups"]] == [3e-3, 1e-3, 3e-3]


def test_an_update_of_d_alone_moves_d_alone(game):
    before = {n: weights(net).clone() for n, net in game.players().items()}
    optimizers = Optimizers(game, config(), CPU)
    give_gradients(game)
    optimizers.step(1.0, d_only=True)
    assert {n: bool((before[n] != weights(net)).any()) for n, net in game.players().items()} == {
        "E": False,
        "G": False,
        "D": True,
    }


def test_adam_is_the_one_asked_for(game):
    optimizers, plain = Optimizers(game, config(lr=1e-3, beta1=0.3, beta2=0.7), CPU), copy.deepcopy(game.encoder)
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3, betas=(0.3, 0.7))
    for value in (1.0, -2.0, 0.1):
        give_gradients(game, value)
        for p in plain.parameters():
            p.grad = torch.full_like(p, value)
        optimizers.step(1.0, d_only=False)
        adam.step()
    torch.testing.assert_close(weights(game.encoder), weights(plain))


def test_gradients_are_clipped_player_by_player(game):
    optimizers = Optimizers(game, config(grad_clip=0.1), CPU)
    give_gradients(game, 100.0)
    optimizers.step(1.0, d_only=False)
    assert norms(game, gradients=True) == pytest.approx({"E": 0.1, "G": 0.1, "D": 0.1}, rel=1e-4)
    give_gradients(game, 1e-6)
    small = norms(game, gradients=True)
    optimizers.step(1.0, d_only=False)
    assert norms(game, gradients=True) == pytest.approx(small)


def test_norms_are_those_of_all_gradients_of_a_player(game):
    give_gradients(game, 2.0)
    assert norms(game, gradients=True) == pytest.approx(
        {n: 2 * math.sqrt(len(weights(net))) for n, net in game.players().items()}
    )
    game.encoder.zero_grad()
    assert norms(game, gradients=True)["E"] == 0


@pytest.mark.parametrize("clip", (0.0, 1e9))
def test_fp16_scales_the_loss_and_skips_a_step_that_overflows(game, clip):
    optimizers = Optimizers(game, config(precision="fp16", grad_clip=clip, d_regularizer="sn"), CPU)
    plain = copy.deepcopy(game)
    unscaled = Optimizers(plain, config(), CPU)
    scale = float(optimizers.scaler.scale(torch.ones(())))
    assert scale > 1
    for d_only in (True, True, False):  # d_steps 3
        give_gradients(game, 0.5 * scale)
        optimizers.step(1.0, d_only=d_only)
        give_gradients(plain, 0.5)
        unscaled.step(1.0, d_only=d_only)
    for one, other in zip(game.players().values(), plain.players().values(), strict=True):
        torch.testing.assert_close(weights(one), weights(other))
    before = weights(game.discriminator).clone()
    give_gradients(game, float("inf"))
    optimizers.step(1.0, d_only=True)
    assert (
        torch.equal(weights(game.discriminator), before) and float(optimizers.scaler.scale(torch.ones(()))) == scale / 2
    )


def test_state_goes_on_where_it_was(game):
    optimizers, other = Optimizers(game, config(), CPU), copy.deepcopy(game)
    give_gradients(game)
    optimizers.step(1.0, d_only=False)
    for net, theirs in zip(game.players().values(), other.players().values(), strict=True):
        theirs.load_state_dict(net.state_dict())
    again = Optimizers(other, config(), CPU)
    again.load_state_dict(copy.deepcopy(optimizers.state_dict()))
    for players, o in ((game, optimizers), (other, again)):
        give_gradients(players, -0.3)
        o.step(1.0, d_only=False)
    for net, theirs in zip(game.players().values(), other.players().values(), strict=True):
        assert torch.equal(weights(net), weights(theirs))


def test_the_average_halves_its_distance_every_half_life(game):
    average = Average(game, half_life=100.0)
    start = weights(game.encoder).clone()
    with torch.no_grad():
        for p in game.encoder.parameters():
            p += 1
    for seen in (100_000 + 50, 100_000 + 100):
        average.update(50, seen)
    torch.testing.assert_close(weights(average.nets["E"]), start + 0.5, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights(average.nets["G"]), weights(game.generator))


def test_the_half_life_is_a_twentieth_of_the_images_seen_at_first(game):
    average, start = Average(game, half_life=1e9), weights(game.generator).clone()
    with torch.no_grad():
        for p in game.generator.parameters():
            p += 1
    average.update(50, 1000)  # 50 images at a half-life of 1000 / 20
    torch.testing.assert_close(weights(average.nets["G"]), start + 0.5, rtol=1e-5, atol=1e-6)


def test_a_half_life_of_0_is_no_averaging(game):
    average = Average(game, half_life=0.0)
    with torch.no_grad():
        for p in game.generator.parameters():
            p += 1
    average.update(50, 1000)
    assert torch.equal(weights(average.nets["G"]), weights(game.generator))
    assert not any(p.requires_grad for net in average.nets.values() for p in net.parameters())


def test_calibration_gives_the_statistics_of_each_networks_stream_and_eval_mode(game):
    average = Average(game, 100.0)
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(64, 1, 8, 8, generator=generator) * 3 + 1 for _ in range(4)]
    average.calibrate(images, seed=5)
    e = average.nets["E"]
    assert not any(m.training for net in average.nets.values() for m in net.modules())
    first = e.blocks["conv1"][0](torch.cat(images))  # what the first BatchNorm sees
    norm = e.blocks["conv1"][1]
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, first.var((0, 2, 3)), rtol=0.02, atol=1e-4)


def test_without_batchnorm_calibration_leaves_everything_and_asks_for_no_image():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = NETWORKS["compact"].build(Shapes(8, 1, 4, width=4, norm="group"))
        average = Average(Game(ALI, parts.encoder, parts.generator, Discriminator(ALI, parts, "none")), 100.0)
    asked = []
    average.calibrate((asked.append(i) for i in range(1)), seed=5)
    assert not asked and not any(m.training for net in average.nets.values() for m in net.modules())


def test_calibration_depends_on_weights_images_and_seed_alone(game):
    images = [torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    one, other = Average(game, 100.0), Average(game, 100.0)
    for norm in (
        m for net in other.nets.values() for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)
    ):
        norm.running_mean.fill_(7.0), norm.running_var.fill_(9.0), norm.num_batches_tracked.fill_(3)
    for average in (one, other):
        average.calibrate(images, seed=5)
    other.calibrate(images, seed=5)
    for n in "EG":
        for (name, mine), theirs in zip(
            one.nets[n].state_dict().items(), other.nets[n].state_dict().values(), strict=True
        ):
            assert torch.equal(mine, theirs), name
