"""BatchNorm statistics of the averaged networks: of whole images, of masked ones or of both, as E is fed."""

import copy

import pytest
import torch
from tiny_games import LATENT, SIZE, make
from tiny_runs import assert_same_checkpoint, config, info_of, stop_at, tiny
from torch import nn

from galirep.errors import CheckpointError
from galirep.features.registry import load_extractor
from galirep.game.masks import ERASED, random_boxes
from galirep.game.variant import Variant
from galirep.networks.saved import load_autoencoder, load_network
from galirep.training.averaging import Average
from galirep.training.loop import train

BOTH = Variant("both", (("x", "E(x)"), ("G(z)", "z"), ("G(E(M1(x)))", "E(M1(x))")))
TOML = 'classes = [["x", "E(x)"], ["G(z)", "z"], ["G(E(M1(x)))", "E(M1(x))"]]\n'


def batches(count=3, size=12):
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(size, 1, SIZE, SIZE, generator=generator) * 2 - 1 for _ in range(count)]


def erased(images, generator):
    """Set the pixels in the boxes, one image at a time."""
    boxes, images = random_boxes(len(images), SIZE, generator), images.clone()
    for image, box in zip(images, boxes, strict=True):
        image[box.expand_as(image)] = ERASED
    return images


def by_hand(net, inputs):
    """Return running mean and variance of each BatchNorm: means over the batches of what comes into it in training."""
    net, sums = copy.deepcopy(net).train(), {}

    def hook(name):
        def note(_, args):
            values = args[0].transpose(0, 1).flatten(1).double()  # (channels, B x positions)
            mean, var = sums.get(name, (0.0, 0.0))
            sums[name] = mean + values.mean(1) / len(inputs), var + values.var(1) / len(inputs)

        return note

    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_forward_pre_hook(hook(name))
    with torch.no_grad():
        for batch in inputs:
            net(batch)
    return sums


def assert_statistics(found, expected):
    assert len(expected) >= 2
    for name, (mean, var) in expected.items():
        torch.testing.assert_close(found[f"{name}.running_mean"].double(), mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[f"{name}.running_var"].double(), var, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("variant", ["gali-4", "masked-gali-4", "gali-mix", BOTH], ids=str)
def test_they_are_those_of_what_e_is_fed(variant):
    game = make(variant)
    average, seed = Average(game, 0.0), 5
    average.calibrate(batches(), seed)
    e, g = game.encoder, game.generator
    generator, latents, kinds = torch.Generator().manual_seed(seed), [], game.variant.statistics
    assert kinds == {"gali-4": ("whole",), "both": ("whole", "masked")}.get(game.variant.name, ("masked",))
    for kind in reversed(kinds):
        inputs = batches() if kind == "whole" else [erased(b, generator) for b in batches()]
        expected = by_hand(e, inputs)
        assert_statistics(average.statistics[kind], expected)
        # E of the averages in eval mode, normalised by these statistics
        calibrated = copy.deepcopy(e).eval()
        calibrated.load_state_dict(average.statistics[kind], strict=False)
        with torch.no_grad():
            for batch in inputs:
                mu, log_sigma = calibrated(batch)
                noise, prior = torch.randn(2, len(batch), LATENT, generator=generator)
                latents += [mu + log_sigma.exp() * noise, prior]
    default = average.nets["E"].state_dict()
    assert all(torch.equal(default[name], value) for name, value in average.statistics[kinds[0]].items())
    assert_statistics(average.nets["G"].state_dict(), by_hand(g, latents))
    again = Average(game, 0.0)
    again.calibrate(batches(), seed)
    assert all(torch.equal(v, again.nets["G"].state_dict()[k]) for k, v in average.nets["G"].state_dict().items())


@pytest.fixture
def both(tmp_path):
    (tmp_path / "both.toml").write_text(TOML)
    return str(tmp_path / "both.toml")


def test_both_are_exported_and_either_is_loaded(tmp_path, both):
    run, x = tmp_path / "run", batches()[0]
    train(config(variant=both), tiny(), out=run)
    assert info_of(run)["statistics"] == ["whole", "masked"]
    outputs = {}
    for kind in (None, "whole", "masked"):
        encoder, generator, header = load_autoencoder(run, statistics=kind)
        assert header["statistics"] == ["whole", "masked"] and generator(torch.zeros(1, 4)).isfinite().all()
        assert not any(name.startswith("masked.") for name in encoder.state_dict())
        outputs[kind] = encoder(x)[0]
    assert torch.equal(outputs[None], outputs["whole"]) and not torch.allclose(outputs["whole"], outputs["masked"])
    assert torch.equal(load_extractor(f"run:{run}", layers=["mu"])(x), outputs["whole"])
    with pytest.raises(CheckpointError, match="has no BatchNorm statistics 'half': it has whole and masked"):
        load_network(run, "encoder", statistics="half")


@pytest.mark.parametrize(("variant", "kind", "other"), [("gali-4", "whole", "masked"), ("gali-mix", "masked", "whole")])
def test_one_kind_is_exported_as_it_was(tmp_path, variant, kind, other):
    run = tmp_path / "run"
    train(config(variant=variant), tiny(), out=run)
    encoder, header = load_network(run, "encoder", statistics=kind)
    assert header["statistics"] == [kind] == info_of(run)["statistics"]
    assert all(torch.equal(v, load_network(run, "encoder")[0].state_dict()[k]) for k, v in encoder.state_dict().items())
    with pytest.raises(CheckpointError, match=f"has no BatchNorm statistics '{other}': it has {kind}"):
        load_autoencoder(run, statistics=other)


def test_a_resumed_run_exports_the_same_statistics_to_the_bit(tmp_path, monkeypatch, both):
    settings = config(variant=both, steps=5, checkpoint_every=2)
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(settings, tiny(), out=whole)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tiny(), out=run)
    train(settings, tiny(), out=run, resume=True)
    assert_same_checkpoint(run, whole)
    for name in ("encoder", "generator"):
        files = [r / "export" / f"{name}.safetensors" for r in (run, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_without_batchnorm_both_kinds_are_the_same_network(tmp_path, both):
    run, x = tmp_path / "run", batches()[0]
    train(config(variant=both, norm="group"), tiny(), out=run)
    whole, masked = (load_network(run, "encoder", statistics=kind)[0](x)[0] for kind in ("whole", "masked"))
    assert torch.equal(whole, masked)
