"""What a session asks of the step: the lazy gradient penalty, instance noise and augmentation as set."""

import pytest
import torch

from galirep.data.batches import Batches
from galirep.game.variants import ALI
from galirep.networks.parts import Shapes
from galirep.training import session as module
from galirep.training.config import TrainConfig
from galirep.training.plan import RunPlan
from galirep.training.session import Session


@pytest.mark.parametrize("regularizer", ("r1r2", "sn-scale+r1r2", "none"))
def test_the_lazy_penalty_is_seldom_and_that_much_stronger_and_has_no_instance_noise(monkeypatch, regularizer):
    asked, real = [], module.compute_gradients

    def update(game, x, generator, rules, **options):
        asked.append((rules.r1_gamma, options["noise"], rules.augment))
        assert rules.r1_on == "pairs" and not rules.r1_features
        return real(game, x, generator, rules, **options)

    monkeypatch.setattr(module, "compute_gradients", update)
    settings = {
        "d_regularizer": regularizer,
        "r1_gamma": 0.5,
        "r1_every": 3,
        "r1_on": "pairs",
        "instance_noise": 0.4,
        "d_augment": "color, cutout",
    }
    config = TrainConfig(
        data="d", networks="compact", latent_dim=4, width=4, steps=4, batch_size=4, d_steps=2, **settings
    )
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    plan = RunPlan(config, ALI, Shapes(8, 1, 4, 4), steps=4)
    session = Session(plan, Batches(images, 4, 0, torch.device("cpu")))
    for _ in range(4):
        session.advance()
    gammas, noises, augmented = zip(*asked, strict=True)
    penalized = regularizer != "none"
    assert gammas == tuple(1.5 if penalized and k % 3 == 0 else 0.0 for k in range(8))  # counted in updates of D
    assert noises == pytest.approx([0.0 if penalized else 0.4 * (1 - k // 2 / 4) for k in range(8)])
    assert set(augmented) == {("color", "cutout")}
