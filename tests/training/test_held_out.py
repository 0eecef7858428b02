"""What is held out, and the measures on it against spelled-out sums."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import config, labelled, metrics_of, tiny
from torch import nn

from galirep.data.batches import Batches
from galirep.data.memory import Images
from galirep.errors import CheckpointError, PluginError
from galirep.features.gali import GaliEncoder
from galirep.features.registry import load_extractor
from galirep.metrics.posterior import effective_rank, kl_to_prior
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.training.held_out import HeldOut, default_count, split_rows
from galirep.training.loop import train as train_run

CPU = torch.device("cpu")


def images(n=60, labels=None):
    pixels = np.random.default_rng(1).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    return Images(pixels, [str(i) for i in range(n)], labels, (), "f", "tiny", None)


@pytest.fixture
def nets():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = NETWORKS["compact"].build(Shapes(8, 1, 4, width=4))
    return parts.encoder.requires_grad_(False).eval(), parts.generator.requires_grad_(False).eval()


def held_out(of, count, **options):
    train, held = split_rows(len(of), count)
    return HeldOut(of, held, train, Batches(of.tensor(), 8, 0, CPU, train), **options), train, held


@pytest.mark.parametrize(
    ("n", "batch", "count"),
    [(60_000, 100, 1000), (10_000, 100, 1000), (1000, 64, 100), (104, 100, 4), (100, 100, 0), (5, 2, 0)],
)
def test_how_many_are_held_out(n, batch, count):
    assert default_count(n, batch) == count


def test_training_and_held_out_images_share_none_and_are_the_same_in_every_run():
    train, held = split_rows(1000, 100)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(1000)) and len(held) == 100
    assert train.tolist() == sorted(train.tolist()) and held.tolist() == sorted(held.tolist())
    assert all(torch.equal(a, b) for a, b in zip(split_rows(1000, 100), (train, held), strict=True))
    assert 20 < sum(held < 500) < 80  # spread over the set
    assert split_rows(10, 0)[1].numel() == 0


def test_batches_hand_out_their_rows_alone():
    pixels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 8, 8).contiguous()
    rows = torch.tensor([0, 2, 3, 7, 9])
    batches = Batches(pixels, 5, 0, CPU, rows)
    seen = ((batches.images(batches.indices(0)) + 1) * 127.5).round()[:, 0, 0, 0].int()
    assert sorted(seen.tolist()) == rows.tolist() and batches.n == 5


def test_kl_is_that_of_the_distributions():
    mu, log_sigma = (
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([-1.0, 0.0, 0.7]).expand(5, 3),
    )
    prior, posterior = torch.distributions.Normal(0, 1), torch.distributions.Normal(mu, log_sigma.exp())
    torch.testing.assert_close(kl_to_prior(mu, log_sigma), torch.distributions.kl_divergence(posterior, prior).sum(1))


def test_effective_rank_is_exp_of_the_entropy_of_the_spectrum():
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 2, 1, 1, 0.1, 0])
    values = np.linalg.eigvalsh(np.cov(features.numpy().T))
    p = [v / values.sum() for v in values if v > 1e-9]
    assert effective_rank(features) == pytest.approx(math.exp(-sum(v * math.log(v) for v in p)), rel=1e-4)
    assert effective_rank(features.T) == pytest.approx(
        effective_rank(torch.cat([features.T, torch.zeros(6, 1)], 1)), rel=1e-6
    )
    square = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert effective_rank(square) == pytest.approx(2) and effective_rank(square[:2]) == pytest.approx(1)
    assert effective_rank(torch.ones(5, 3)) == 0 and math.isnan(effective_rank(torch.tensor([[1.0], [float("nan")]])))


def test_measures_are_those_of_the_held_out_images_with_z_at_mu(nets):
    of = images()
    held_out_images, train, held = held_out(of, 20)
    found = held_out_images.evaluate(*nets)
    unit = of.tensor().float() / 255
    x = 2 * unit[held] - 1
    mu, log_sigma = nets[0](x)
    assert found.images == 20 and found.knn_error is None and not held_out_images.labelled
    assert found.pixel_mse == pytest.approx(float(((nets[1](mu) + 1) / 2 - unit[held]).square().mean()), rel=1e-4)
    assert found.mean_image_mse == pytest.approx(float((unit[train].mean(0) - unit[held]).square().mean()), rel=1e-4)
    assert found.mu_variance == pytest.approx(float(mu.var(0, correction=0).mean()), rel=1e-4)
    assert found.sigma == pytest.approx(float(log_sigma.exp().mean()), rel=1e-4)
    second = float((mu.square() + log_sigma.exp().square()).mean(0).sub(mu.mean(0).square()).mean())  # E z^2 - (E z)^2
    assert found.aggregate_variance == pytest.approx(second, rel=1e-4)
    assert found.kl == pytest.approx(float(kl_to_prior(mu, log_sigma).mean()), rel=1e-4) and found.sigma_at_bounds == 0
    hidden = list(nets[0].layers(x).values())[-2]
    assert found.feature_rank == pytest.approx(effective_rank(hidden), rel=1e-3)
    z = torch.randn(1024, 4, generator=torch.Generator().manual_seed(0))
    assert found.latent_mse == pytest.approx(float((nets[0](nets[1](z))[0] - z).square().mean()), rel=1e-4)
    with torch.no_grad():
        nets[0].head.bias[4:6] = -50.0
    assert held_out_images.evaluate(*nets).sigma_at_bounds == 0.5


def test_an_evaluation_draws_no_random_number(nets):
    evaluation, state = held_out(images(labels=np.arange(60) % 3), 20)[0], torch.get_rng_state()
    assert evaluation.evaluate(*nets) == evaluation.evaluate(*nets) and torch.equal(torch.get_rng_state(), state)


def test_the_cycle_error_of_latents_is_0_for_an_inverse_and_1_for_the_priors_mean(nets):
    class Rows(nn.Module):
        def forward(self, z):
            return F.pad(z / 10, (0, 60)).view(-1, 1, 8, 8)

    evaluation, inverse = held_out(images(), 20)[0], copy.deepcopy(nets[0])
    inverse.blocks = nn.ModuleDict({"flat": nn.Flatten()})
    inverse.head = nn.Linear(64, 8)
    with torch.no_grad():
        inverse.head.weight.copy_(10 * torch.eye(8, 64))
        inverse.head.bias.zero_()
    assert evaluation.evaluate(inverse, Rows()).latent_mse < 1e-10
    with torch.no_grad():
        inverse.head.weight.zero_()
    assert evaluation.evaluate(inverse, Rows()).latent_mse == pytest.approx(1, abs=0.05)


def vote(features, labels, train, held):
    """Return the share of held-out images that their 20 nearest training images vote into another class."""
    features = (features / features.norm(dim=1, keepdim=True)).numpy()
    known, asked = ([i for i in rows.tolist() if labels[i] >= 0] for rows in (train, held))
    wrong = 0
    for i in asked:
        similarity = features[known] @ features[i]
        nearest = np.argsort(-similarity)[:20]
        votes = [sum(math.exp(similarity[j] / 0.07) for j in nearest if labels[known[j]] == c) for c in range(3)]
        wrong += int(np.argmax(votes) != labels[i])
    return pytest.approx(wrong / len(asked), abs=1.01 / len(asked))


@pytest.mark.parametrize("layers", (None, ["d1:2x2", "mu"], ["d3"]))
def test_neighbours_vote_on_the_layers_that_an_embedding_has(nets, layers):
    labels = np.arange(60) % 3
    labels[:10] = -1  # images without a label take no part
    of = images(labels=labels)
    evaluation, train, held = held_out(of, 20, **({} if layers is None else {"layers": layers}))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        trunk = NETWORKS["compact"].build(Shapes(8, 1, 4, width=4)).trunks["image"]
    extract = GaliEncoder(nets[0], Shapes(8, 1, 4, width=4), name="e", layers=layers, trunk=lambda: trunk)
    expected = vote(extract(of.tensor().float() / 127.5 - 1), labels, train, held)
    found = evaluation.evaluate(*nets, lambda: trunk)
    assert evaluation.labelled and found.knn_error == expected
    # what is measured of E does not depend on them
    assert found.feature_rank == held_out(of, 20)[0].evaluate(*nets).feature_rank


def test_layers_that_the_networks_lack_are_told_before_anything_is_written(tmp_path):
    for layers, says in (("d9", "unknown layer 'd9'"), ("conv1:9x9", "its maps are 4x4"), ("fc1:gap", "leave out")):
        with pytest.raises(PluginError, match=f"evaluate_layers: .*{says}"):
            train_run(config(holdout=4, evaluate_every=1, evaluate_layers=layers), tiny(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_evaluates_on_layers_of_d_and_trains_the_same(tmp_path):
    for name, layers in (("a", "paper"), ("b", "d2:gap,d1")):
        options = {"holdout": 10, "evaluate_every": 1, "evaluate_layers": layers, "d_regularizer": "sn"}
        train_run(config(**options), labelled(), out=tmp_path / name)
    a, b = (metrics_of(tmp_path / name) for name in "ab")
    assert [row["loss_g"] for row in a] == [row["loss_g"] for row in b]
    assert all("knn_error" in row["evaluation"] for row in b) and load_extractor(tmp_path / "b", layers=["d2:gap"])
    with pytest.raises(CheckpointError, match="evaluate_layers: 'paper', not 'd2:gap,d1'"):
        train_run(config(**{**options, "evaluate_layers": "paper"}), labelled(), out=tmp_path / "b", resume=True)
