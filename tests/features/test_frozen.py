"""`FrozenExtractor` and `NetworkExtractor`: preprocessing of images, eval mode, gradients, layers by name."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from galirep.errors import PluginError
from galirep.features.frozen import FrozenExtractor
from galirep.features.network import NetworkExtractor


class Mean(FrozenExtractor):
    dim = 3

    def features(self, images):
        return images.mean((2, 3))


def _network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def test_normalisation_is_that_of_images_from_zero_to_one():
    images = torch.rand(2, 3, 8, 8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    got = Mean(name="m", image_size=8, mean=mean, std=std).preprocess(images * 2 - 1)
    expected = (images - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("mode", "pillow"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_reduction_is_antialiased_as_pillow_does_it(mode, pillow):
    levels = np.random.default_rng(0).integers(60, 200, (64, 64), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(levels).resize((16, 16), pillow), np.float32) / 127.5 - 1
    images = torch.from_numpy(levels).float().reshape(1, 1, 64, 64) / 127.5 - 1
    got = Mean(name="m", image_size=16, channels=1, interpolation=mode).preprocess(images)[0, 0].numpy()
    assert np.abs(got - expected).max() < 1.1 / 127.5


def test_grey_becomes_three_channels_and_is_said_once(caplog):
    extractor = Mean(name="three", image_size=4)
    grey = torch.rand(2, 1, 4, 4) * 2 - 1
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(extractor(grey), extractor(grey.expand(-1, 3, -1, -1)))
        extractor(grey)
    assert [r.getMessage() for r in caplog.records] == ["three takes 3 channels: grey images are replicated to 3"]


def test_colour_becomes_luma():
    red = torch.full((1, 3, 4, 4), -1.0)
    red[:, 0] = 1
    assert Mean(name="m", image_size=4, channels=1).preprocess(red).mean().item() == pytest.approx(2 * 0.299 - 1)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 2, 8, 8), (2, 3, 0, 8)])
def test_what_is_no_image_batch_is_refused(shape):
    with pytest.raises(PluginError, match=r"m takes images \(B, 1 or 3, H, W\), not "):
        Mean(name="m", image_size=8)(torch.zeros(shape))


def test_eval_mode_stays_inside_a_training_module():
    network = _network()
    extractor = NetworkExtractor(network, name="n", image_size=8)
    parent = nn.ModuleList([extractor, nn.Dropout()]).train()
    assert parent.training and not any(m.training for m in extractor.modules())
    before = network[1].running_mean.clone()
    extractor(torch.rand(4, 3, 8, 8))
    assert torch.equal(network[1].running_mean, before)


def test_gradients_reach_the_input_and_no_parameter():
    extractor = NetworkExtractor(_network(), name="n", image_size=8)
    images = torch.rand(2, 1, 5, 7, requires_grad=True)
    extractor(images).square().sum().backward()
    assert images.grad is not None and images.grad.abs().min() > 0
    assert all(p.grad is None and not p.requires_grad for p in extractor.parameters())


def test_layers_by_name_are_pooled_values_of_the_modules():
    network = _network()
    extractor = NetworkExtractor(network, name="n", image_size=8)
    assert (extractor.layers, extractor.dim) == ({"features": 4}, 4)
    chosen = extractor.with_layers(["1", "features"])
    assert (chosen.layers, chosen.dim) == ({"1": 4, "features": 4}, 8)
    assert extractor.layers == {"features": 4}
    images = torch.rand(3, 3, 8, 8) * 2 - 1
    norm = network[1](network[0](images))  # the ReLU behind it works in place, and must not show here
    assert norm.min() < 0
    torch.testing.assert_close(chosen(images), torch.cat([norm.mean((2, 3)), norm.relu().mean((2, 3))], 1))
    assert not any(m._forward_hooks for m in network.modules())


def test_tokens_and_channels_last_are_averaged_over_space():
    class Last(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    class Tokens(nn.Module):
        def forward(self, x):
            return x.flatten(2).transpose(1, 2)

    images = torch.rand(2, 3, 4, 6)[..., :4]
    for network, last in ((Last(), True), (Tokens(), False)):
        got = NetworkExtractor(network, name="n", image_size=4, channels_last=last)(images)
        torch.testing.assert_close(got, images.mean((2, 3)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["conv"], "unknown layer 'conv'"),
        ([], r"n: layers \(none\): name each layer once, of features, "),
        (["1", "1"], "n: layers 1, 1: name each layer once, of features, "),
        (["spare"], "layer 'spare' of n takes no part in the forward pass"),
    ],
)
def test_layers_that_cannot_be_had(layers, message):
    class Net(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x)).flatten(1)

    network = Net(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    network.add_module("spare", nn.ReLU())
    with pytest.raises(PluginError, match=message):
        NetworkExtractor(network, name="n", image_size=8).with_layers(layers)


def test_a_network_that_cannot_take_the_size_or_gives_no_tensor():
    with pytest.raises(PluginError, match="n cannot take 8x8 images: RuntimeError"):
        NetworkExtractor(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), name="n", image_size=8)

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(PluginError, match="layer 'features' of n gives tuple, not a tensor"):
        NetworkExtractor(Pair(), name="n", image_size=8)
