"""The networks: shapes of the layers, the paper's parameter counts, initialisation, and sizes of each family."""

import dataclasses

import pytest
import torch
from torch import nn

from galirep.errors import ConfigError
from galirep.game.discriminator import Discriminator
from galirep.game.step import Game, Rules, compute_gradients
from galirep.game.variants import get_variant
from galirep.networks.families import NETWORKS, family
from galirep.networks.parts import LOG_SIGMA_RANGE, Shapes
from galirep.networks.resnet import Residual

PAPER = {"svhn32": Shapes(32, 3, 256), "celeba64": Shapes(64, 3, 256)}


@pytest.fixture(scope="module")
def parts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: NETWORKS[name].build(shapes) for name, shapes in PAPER.items()}


def millions(module):
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


def weighted(module):
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]


def conv_shapes(module, value):
    """Return the shape (channels, side) or (width,) after each convolution and linear layer."""
    out = []
    hooks = [
        m.register_forward_hook(lambda m, args, value: out.append((value.shape[1], *value.shape[3:])))
        for m in weighted(module)
    ]
    module.eval()(value)
    for hook in hooks:
        hook.remove()
    return out


def test_parameter_counts_on_svhn(parts):
    d = Discriminator(get_variant("gali-4"), parts["svhn32"], "none")
    assert (millions(parts["svhn32"].encoder), millions(parts["svhn32"].generator), millions(d)) == (3.32, 1.77, 5.29)


@pytest.mark.parametrize(
    ("networks", "variant", "features", "joint"),
    [
        ("svhn32", "gali-4", 0, [1024, 1024, 1024, 4]),
        ("svhn32", "gali-8", 0, [2048, 1024, 1024, 8]),
        ("svhn32", "gali-pt", 3072, [1536, 1024, 1024, 4]),
        ("celeba64", "ali", 0, [1536, 2048, 2048, 2]),
        ("celeba64", "gali-pt", 2048, [2048, 2048, 2048, 4]),
    ],
)
def test_joint_heads_of_the_paper(networks, variant, features, joint):
    shapes = Shapes(PAPER[networks].size, 3, 256, features=features)
    parts = NETWORKS[networks].build(shapes)
    d = Discriminator(get_variant(variant), parts, "none")
    head = [*weighted(d.hidden), d.last]
    assert [head[0].in_features, *(m.out_features for m in head)] == joint
    wide = {"svhn32": 512, "celeba64": 1024}[networks]
    assert [m.out_features for m in weighted(parts.trunks["latent"])] == [wide, wide]
    if features:
        assert [m.in_features for m in weighted(d.trunks["features"])] == [features, 512]
        assert [m.out_features for m in weighted(d.trunks["features"])] == [512, 512]


def test_svhn_layer_by_layer(parts):
    x, z = torch.zeros(1, 3, 32, 32), torch.zeros(1, 256)
    e = [(32, 28), (64, 13), (128, 10), (256, 4), (512,)]
    assert conv_shapes(parts["svhn32"].encoder, x) == [*e, (512,), (512,)]
    assert conv_shapes(parts["svhn32"].trunks["image"], x) == e
    assert conv_shapes(parts["svhn32"].generator, z) == [
        (256 * 16,),
        (128, 10),
        (64, 13),
        (32, 28),
        (32, 32),
        (32, 32),
        (3, 32),
    ]
    assert conv_shapes(parts["svhn32"].trunks["latent"], z) == [(512,), (512,)]


def test_celeba_layer_by_layer(parts):
    x, z = torch.zeros(1, 3, 64, 64), torch.zeros(1, 256)
    e = [(64, 63), (128, 29), (256, 13), (256, 4), (512,)]
    assert conv_shapes(parts["celeba64"].encoder, x) == [*e, (512,)]
    assert conv_shapes(parts["celeba64"].trunks["image"], x) == e
    assert conv_shapes(parts["celeba64"].generator, z) == [
        (512 * 16,),
        (256, 13),
        (256, 29),
        (128, 63),
        (64, 64),
        (3, 64),
    ]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_initialisation_and_normalisation(parts, name):
    built = parts[name]
    for module in (
        weighted(built.encoder) + weighted(built.generator) + [m for t in built.trunks.values() for m in weighted(t)]
    ):
        assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=0.1) and not module.bias.detach().any()
    slopes = {
        m.negative_slope
        for net in (built.encoder, built.generator)
        for m in net.modules()
        if isinstance(m, nn.LeakyReLU)
    }
    assert slopes == {{"svhn32": 0.01, "celeba64": 0.02}[name]} == {built.slope}
    norms = [m for m in built.encoder.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == len(weighted(built.encoder)) - 1  # everywhere but last
    assert not any(
        isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d | nn.Dropout) for t in built.trunks.values() for m in t.modules()
    )


def test_layers_by_name_are_those_of_the_probe_protocol(parts):
    layers = parts["svhn32"].encoder.eval().layers(torch.zeros(2, 3, 32, 32))
    assert list(layers) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "mu"]
    assert [v.shape[1] for v in layers.values()] == [32 * 16, 64 * 16, 128 * 16, 4096, 512, 512, 256]
    assert sum(v.shape[1] for v in list(layers.values())[-4:]) == 5376


def test_mu_among_the_layers_is_that_of_forward_and_convolutions_are_max_pooled():
    torch.manual_seed(1)
    encoder = NETWORKS["compact"].build(Shapes(16, 1, 6, width=4)).encoder.eval()
    x = torch.randn(3, 1, 16, 16)
    layers = encoder.layers(x)
    assert list(layers) == ["conv1", "conv2", "conv3", "fc1", "mu"]
    torch.testing.assert_close(layers["mu"], encoder(x)[0])
    conv1 = encoder.blocks["conv1"](x)  # (3, 4, 8, 8) -> (3, 4, 4, 4)
    pooled = conv1.unflatten(2, (4, 2)).unflatten(4, (4, 2)).amax((3, 5))
    torch.testing.assert_close(layers["conv1"], pooled.flatten(1))
    torch.testing.assert_close(layers["conv2"], encoder.blocks["conv2"](conv1).flatten(1))  # 4 x 4 already


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("size", range(8, 129, 8))
def test_compact_takes_every_multiple_of_8(size, channels):
    parts = NETWORKS["compact"].build(Shapes(size, channels, 5, width=4, features=7))
    x = torch.zeros(2, channels, size, size)
    mu, log_sigma = parts.encoder(x)
    assert mu.shape == log_sigma.shape == (2, 5)
    assert parts.generator(mu).shape == x.shape
    inputs = {"image": x, "latent": mu, "features": torch.zeros(2, 7)}
    assert {kind: trunk(inputs[kind]).shape for kind, trunk in parts.trunks.items()} == dict.fromkeys(
        inputs, (2, parts.trunk_dims["image"])
    )
    deepest = [m for m in parts.encoder.modules() if isinstance(m, nn.Conv2d)][-1]
    assert deepest.out_channels <= 8 * 4


def test_log_sigma_is_clamped():
    parts = NETWORKS["compact"].build(Shapes(8, 1, 4, width=4))
    assert LOG_SIGMA_RANGE == (-7, 2)
    for scale, bound in ((-1e3, -7), (1e3, 2)):
        with torch.no_grad():
            parts.encoder.head.bias[4:] = scale
        assert (parts.encoder(torch.zeros(2, 1, 8, 8))[1] == bound).all()


def test_g_starts_from_the_mean_image():
    parts = NETWORKS["compact"].build(Shapes(8, 3, 4, width=4))
    mean = torch.rand(3, 8, 8) * 1.8 - 0.9
    mean[0, 0, 0], mean[1, 1, 1] = 1.0, -1.0  # where atanh is infinite
    parts.generator.start_from(mean)
    assert parts.generator.bias.isfinite().all()
    with torch.no_grad():
        parts.generator.body[-1].weight.zero_(), parts.generator.body[-1].bias.zero_()
        torch.testing.assert_close(parts.generator(torch.randn(2, 4)), mean.clamp(-0.98, 0.98).expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("name", "size", "chosen"),
    [
        ("paper", 32, "svhn32"),
        ("paper", 64, "celeba64"),
        ("auto", 16, "compact"),
        ("auto", 32, "compact"),
        ("compact", 32, "compact"),
    ],
)
def test_names_by_size(name, size, chosen):
    assert family(name, size)[0] == chosen and family(name, size)[1] is NETWORKS[chosen]


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("svhn32", 28, "the networks 'svhn32' take images of 32 pixels, not 28"),
        ("celeba64", 32, "the networks 'celeba64' take images of 64 pixels, not 32"),
        ("auto", 28, "the networks 'compact' take images of 8, 16, 24, ..., 128 pixels, not 28; pass --image-size 32"),
        ("compact", 100, "not 100; pass --image-size 104"),
        ("compact", 4, "not 4; pass --image-size 8"),
        ("resnet", 48, "the networks 'resnet' take images of 8, 16, 32, 64, 128 pixels, not 48"),
        ("compact", 500, "not 500; pass --image-size 128"),
        (
            "svhn",
            32,
            f"unknown networks 'svhn': did you mean 'svhn32'? known: {', '.join(sorted([*NETWORKS, 'auto', 'paper']))}",
        ),
        ("paper", 16, "the paper has networks for images of 32 and 64 pixels, not 16: pass --networks compact"),
    ],
)
def test_a_size_or_name_that_does_not_fit(name, size, says):
    with pytest.raises(ConfigError) as caught:
        family(name, size)
    assert says in str(caught.value)


# --- group norm and the residual family


@pytest.mark.parametrize(
    ("name", "shapes"),
    [*PAPER.items(), ("compact", Shapes(24, 1, 6, width=20)), ("resnet", Shapes(16, 3, 6, width=12))],
)
def test_group_norm_takes_the_place_of_batchnorm_in_e_and_g(name, shapes):
    batch, group = (NETWORKS[name].build(dataclasses.replace(shapes, norm=norm)) for norm in ("batch", "group"))
    for net in ("encoder", "generator"):
        norms = [m for m in getattr(batch, net).modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        groups = [m for m in getattr(group, net).modules() if isinstance(m, nn.GroupNorm)]
        assert [m.num_features for m in norms] == [m.num_channels for m in groups] != []
        assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in getattr(group, net).modules())
        for one, other in zip(norms, groups, strict=True):
            max_groups = 1 if isinstance(one, nn.BatchNorm1d) else max(1, min(32, one.num_features // 16))
            assert other.num_groups == max(g for g in range(1, max_groups + 1) if one.num_features % g == 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_group_norm_a_training_forward_is_that_of_each_image_alone(name):
    size = 64 if name == "celeba64" else 32
    parts = NETWORKS[name].build(Shapes(size, 1, 5, width=4, norm="group"))
    x = torch.randn(3, 1, size, size)
    mu, _ = parts.encoder.train()(x)
    torch.testing.assert_close(mu, torch.cat([parts.encoder(x[i : i + 1])[0] for i in range(3)]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ("batch", "group"))
@pytest.mark.parametrize("size", (8, 16, 32, 64, 128))
def test_resnet_takes_powers_of_2(size, norm):
    parts = NETWORKS["resnet"].build(Shapes(size, 3, 5, width=4, features=7, norm=norm))
    x = torch.zeros(2, 3, size, size).contiguous(memory_format=torch.channels_last)
    layers = parts.encoder.eval().layers(x)
    blocks = [f"res{i + 1}" for i in range(size.bit_length() - 3 + 1)]
    assert list(layers) == [*blocks[: len(blocks)], "fc1", "mu"]
    assert all(layers[b].shape[1] == 16 * 4 * min(2**i, 8) for i, b in enumerate(blocks))
    assert parts.generator(layers["mu"]).shape == x.shape
    inputs = {"image": x, "latent": layers["mu"], "features": torch.zeros(2, 7)}
    assert {kind: trunk(inputs[kind]).shape[1] for kind, trunk in parts.trunks.items()} == parts.trunk_dims
    normed = nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm
    assert not any(isinstance(m, normed) for t in parts.trunks.values() for m in t.modules())


@pytest.mark.parametrize(
    ("size", "counts"),
    [(16, (0.76, 0.43, 0.98)), (32, (1.65, 1.07, 1.88)), (64, (2.06, 1.48, 2.28)), (128, (2.46, 1.92, 2.68))],
)
def test_parameter_counts_of_resnet(size, counts):
    parts = NETWORKS["resnet"].build(Shapes(size, 3, 128))
    d = Discriminator(get_variant("gali-4"), parts, "none")
    assert (millions(parts.encoder), millions(parts.generator), millions(d)) == counts


def test_a_residual_block_is_near_the_identity_at_the_start_and_takes_any_width():
    for channels in (4, 33, 64):
        block, x = Residual(channels, "none", 4), torch.randn(2, channels, 4, 4)
        assert (block(x) - x).abs().max() < 0.5
        grouped = block.branch[2]
        assert grouped.groups * grouped.weight.shape[1] == 2 * channels


@pytest.mark.parametrize("regularizer", ("sn", "sn-scale+r1r2", "r1r2"))
def test_resnet_plays_in_bf16_and_channels_last_with_a_second_derivative(regularizer):
    torch.manual_seed(0)
    parts, variant = NETWORKS["resnet"].build(Shapes(16, 1, 5, width=4)), get_variant("gali-4")
    game = Game(variant, parts.encoder, parts.generator, Discriminator(variant, parts, regularizer))
    for net in game.players().values():
        net.to(memory_format=torch.channels_last)
    for bf16 in (False, True):
        rules = Rules(r1_gamma=1.0, autocast=lambda bf16=bf16: torch.autocast("cpu", torch.bfloat16, enabled=bf16))
        statistics = compute_gradients(game, torch.rand(4, 1, 16, 16), torch.Generator().manual_seed(1), rules)
        assert all(v.isfinite().all() for v in statistics.values())
        assert all(
            p.grad is None or p.grad.isfinite().all() for net in game.players().values() for p in net.parameters()
        )
