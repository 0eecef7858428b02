"""Layers of E and of D's image trunk by name: pooling against loops, what is computed, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from galirep.errors import ConfigError, PluginError
from galirep.networks.families import NETWORKS
from galirep.networks.layers import LayerReader, defaults_of
from galirep.networks.map_pooling import pool_map
from galirep.networks.parts import Shapes

SHAPES = Shapes(16, 1, 6, width=4)


@pytest.fixture(scope="module")
def parts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = NETWORKS["compact"].build(SHAPES)
    return parts.encoder.eval(), parts.trunks["image"].eval()


def images(n=3):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def reader(parts, layers, trunk=True):
    encoder, d = parts
    return LayerReader(encoder, SHAPES, layers, what="net", trunk=(lambda: d) if trunk else None)


def largest_of_cells(maps, rows, columns):
    """Max-pool by loops: cell i of n covers floor(i H / n) to ceil((i + 1) H / n)."""
    b, c, h, w = maps.shape
    out = np.empty((b, c, rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            top, bottom = i * h // rows, -(-(i + 1) * h // rows)
            left, right = j * w // columns, -(-(j + 1) * w // columns)
            out[:, :, i, j] = maps[:, :, top:bottom, left:right].max((2, 3))
    return out.reshape(b, -1)


@pytest.mark.parametrize("side", (2, 4, 5, 7, 8))
def test_maps_are_pooled_as_the_loops_say(side):
    maps = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    array = maps.numpy()
    usual = min(4, side)
    expected = {
        "": largest_of_cells(array, usual, usual),
        "2x1": largest_of_cells(array, 2, 1),
        f"{side}x2": largest_of_cells(array, side, 2),
        "gap": array.mean((2, 3)),
        "max": array.max((2, 3)),
        "flat": array.reshape(2, -1),
    }
    for pooling, values in expected.items():
        np.testing.assert_allclose(pool_map(maps, pooling).numpy(), values, rtol=1e-6)


def test_the_layers_are_what_the_blocks_give(parts):
    encoder, trunk = parts
    x = images()
    read = reader(parts, ["conv1:8x8", "e.conv2:gap", "fc1", "mu", "d1:flat", "d2", "d4", "conv1"])
    widths = {"conv1:8x8": 256, "conv2:gap": 8, "fc1": 32, "mu": 6, "d1:flat": 256, "d2": 128, "d4": 32, "conv1": 64}
    assert list(read.widths.items()) == list(widths.items())
    conv1 = encoder.blocks["conv1"](x)
    conv2 = encoder.blocks["conv2"](conv1)
    fc1 = encoder.blocks["fc1"](encoder.blocks["conv3"](conv2))
    d1, d4 = trunk[0](x), trunk(x)
    expected = {
        "conv1:8x8": conv1.flatten(1),
        "conv2:gap": conv2.mean((2, 3)),
        "fc1": fc1,
        "mu": encoder(x)[0],
        "d1:flat": d1.flatten(1),
        "d2": trunk[1](d1).flatten(1),
        "d4": d4,
        "conv1": nn.functional.max_pool2d(conv1, 2).flatten(1),
    }
    values = read(x)
    assert list(values) == list(widths)
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value, rtol=0, atol=1e-6)


def test_without_a_choice_they_are_those_that_the_encoder_gives(parts):
    everything = parts[0].layers(images())
    values = reader(parts, list(everything))(images())
    assert list(values) == list(everything) and all(torch.equal(values[n], everything[n]) for n in everything)
    assert list(reader(parts, ["paper"]).widths) == ["conv2", "conv3", "fc1", "mu"]
    assert list(reader(parts, ["paper", "d2"]).widths) == ["conv2", "conv3", "fc1", "mu", "d2"]


def test_only_the_blocks_that_are_needed_run(parts):
    encoder, trunk = parts
    ran = []
    blocks = {**encoder.blocks, "head": encoder.head, **{f"d{i}": block for i, block in enumerate(trunk, 1)}}
    handles = [block.register_forward_hook(lambda *_, n=name: ran.append(n)) for name, block in blocks.items()]
    try:
        for layers, blocks_run in (
            (["conv2"], ["conv1", "conv2"]),
            (["d2"], ["d1", "d2"]),
            (["d1", "conv1"], ["conv1", "d1"]),
            (["mu"], ["conv1", "conv2", "conv3", "fc1", "head"]),
        ):
            read = reader(parts, layers)
            ran.clear()
            read(images())
            assert ran == blocks_run
    finally:
        for handle in handles:
            handle.remove()


def test_d_is_loaded_for_its_layers_alone(parts):
    loads = []

    def load():
        loads.append(1)
        return parts[1]

    def read(*layers):
        return LayerReader(parts[0], SHAPES, layers, what="net", trunk=load)

    assert list(read("mu").networks()) == ["e"] and not loads
    assert list(read("d2", "d1").networks()) == ["d"] and len(loads) == 1
    assert list(read("d2", "mu").networks()) == ["e", "d"]
    known = read("mu").known_widths()
    assert known == {
        "conv1": 64,
        "conv2": 128,
        "conv3": 64,
        "fc1": 32,
        "mu": 6,
        "d1": 64,
        "d2": 128,
        "d3": 64,
        "d4": 32,
    }


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (
            ["fc2"],
            "net: unknown layer 'fc2': did you mean 'fc1'? known: conv1, conv2, conv3, fc1, mu, d1, d2, ... of D;",
        ),
        (
            ["d5"],
            "net: unknown layer 'd5': known: conv1, conv2, conv3, fc1, mu, d1 to d4 of D; paper stands for conv2, ",
        ),
        (["e.d2"], "unknown layer 'e.d2'"),
        (["d0"], "unknown layer 'd0'"),
        (["conv1:9x9"], "net: pooling '9x9' of layer 'conv1': its maps are 8x8, so the grid can be at most that"),
        (["d3:4x1"], "net: pooling '4x1' of layer 'd3': its maps are 2x2"),
        (["conv1:avg"], "net: unknown pooling 'avg' of layer 'conv1': write a grid up to 8x8, or gap, max, flat"),
        (["conv1:0x2"], "unknown pooling '0x2' of layer 'conv1'"),
        (["conv1:"], "layer 'conv1:' names no pooling after its colon: write conv1"),
        (["fc1:gap"], "net: layer 'fc1' gives (B, 32), one vector an image: leave out ':gap'"),
        (["mu:1x1"], "net: layer 'mu' gives (B, 6), one vector an image: leave out ':1x1'"),
        (["d4:flat"], "net: layer 'd4' gives (B, 32), one vector an image: leave out ':flat'"),
        (["mu", "e.mu"], "net: layers mu, e.mu: name each layer once"),
        (["mu", "paper"], "name each layer once"),
        ([], "layers (none): name each layer once, of conv1, conv2"),
    ],
)
def test_layers_that_the_networks_have_not(parts, layers, says):
    with pytest.raises(PluginError) as caught:
        reader(parts, layers)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_text_and_a_d_that_is_not_there(parts):
    with pytest.raises(PluginError, match=r"net: layer 'd2:gap' is of D's image trunk, which is not there"):
        reader(parts, ["d2:gap"], trunk=False)
    with pytest.raises(ConfigError, match="is one text, not a list of names"):
        reader(parts, "mu")


def test_defaults_that_the_networks_lack_are_those_of_the_paper(parts, monkeypatch):
    paper = ["conv2", "conv3", "fc1", "mu"]
    assert defaults_of(parts[0], SHAPES, parts[1]) == defaults_of(parts[0], SHAPES, None) == paper
    monkeypatch.setattr("galirep.networks.layers.DEFAULT_LAYERS", ("mu", "d2:2x2"))
    assert defaults_of(parts[0], SHAPES, parts[1]) == ["mu", "d2:2x2"] and defaults_of(parts[0], SHAPES, None) == paper
