"""Layers with other axes: which axis has the channels, prefix tokens, NAME:POOLING, and what the record says of it."""

import json

import numpy as np
import pytest
import timm
import torch
from edited_files import edited
from torch import nn

import galirep
from galirep.errors import DataError, PluginError
from galirep.features.cache import cached_features
from galirep.features.network import NetworkExtractor
from galirep.training.run import _fact_differences

SIDE = 64


def _extractor(name, size=SIDE, **options):
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0, **options).eval()
    return NetworkExtractor(
        network, name=name, image_size=size, channels_last=str(getattr(network, "output_fmt", "")) == "NHWC"
    )


def _raw(extractor, layer, images):
    """Return what a module gives for preprocessed images."""
    found = []
    handle = extractor.network.get_submodule(layer).register_forward_hook(lambda m, i, out: found.append(out.clone()))
    with torch.no_grad():
        extractor.network(extractor.preprocess(images).contiguous(memory_format=torch.channels_last))
    handle.remove()
    return found[-1]


def _pooled(extractor, layer, images):
    chosen = extractor.with_layers([layer])
    with torch.no_grad():
        return chosen(images), chosen.preprocessing["pooling"][layer]


@pytest.fixture
def images():
    return torch.rand(2, 3, SIDE, SIDE) * 2 - 1


@pytest.mark.parametrize(
    ("model", "layer", "axes", "shape", "earlier"),
    [
        # Swin takes one size; its patch embedding is a convolution in a network of (B, H, W, d)
        ("swin_tiny_patch4_window7_224", "patch_embed.proj", (2, 3), "(B, d, H, W)", "mean over d and H"),
        ("swin_tiny_patch4_window7_224", "patch_embed", (1, 2), "(B, H, W, d)", None),
        ("swin_tiny_patch4_window7_224", "layers.1.blocks.0", (1, 2), "(B, H, W, d)", None),
        ("swin_tiny_patch4_window7_224", "layers.1.blocks.0.mlp.act", (1,), "(B, N, d)", None),
        # ConvNeXt takes any; its blocks are (B, H, W, d) inside
        ("convnext_tiny", "stages.1.blocks.0.mlp", (1, 2), "(B, H, W, d)", "mean over W and d"),
        ("convnext_tiny", "stages.1.blocks.0.mlp.act", (1, 2), "(B, H, W, d)", "mean over W and d"),
        ("convnext_tiny", "stages.1.blocks.0", (2, 3), "(B, d, H, W)", None),
        ("convnext_atto", "stages.1.blocks.0.mlp", (2, 3), "(B, d, H, W)", None),
        ("test_mambaout", "stages.0", (1, 2), "(B, H, W, d)", None),
        ("resnet10t", "layer2", (2, 3), "(B, d, H, W)", None),
        ("resnet10t", "act1", (2, 3), "(B, d, H, W)", None),
        ("vit_tiny_patch16_224", "patch_embed", (1,), "(B, N, d)", None),
    ],
)
def test_the_channels_are_kept_and_space_is_averaged(model, layer, axes, shape, earlier, images):
    options = {"img_size": SIDE} if "patch" in model else {}
    extractor = _extractor(model, **options)
    got, record = _pooled(extractor, layer, images)
    # bit-equal, as files made before depend on it
    assert torch.equal(got, _raw(extractor, layer, images).mean(axes))
    space = "N" if len(axes) == 1 else "H and W"
    assert record == {"shape": shape, "pooled": f"mean over {space}", **({"earlier": earlier} if earlier else {})}
    assert torch.equal(_pooled(extractor, "features", images)[0], extractor(images))


@pytest.mark.parametrize(
    ("model", "prefix"),
    [("vit_tiny_patch16_224", 1), ("deit_tiny_distilled_patch16_224", 2), ("vit_small_patch16_dinov3", 5)],
)
def test_prefix_tokens_are_left_out_of_the_mean_and_chosen_by_name(model, prefix, images):
    extractor = _extractor(model, **({} if "dinov3" in model else {"img_size": SIDE}))
    tokens = _raw(extractor, "blocks.1", images)
    assert tokens.shape[1] == 16 + prefix
    plural = "s" if prefix > 1 else ""
    expected = {
        "blocks.1": (tokens[:, prefix:].mean(1), f"mean over N without {prefix} prefix token{plural}"),
        "blocks.1:mean": (tokens.mean(1), f"mean over N with {prefix} prefix token{plural}"),
        "blocks.1:cls": (tokens[:, 0], "class token"),
        "blocks.1:prefix": (
            tokens[:, :prefix].flatten(1),
            f"{prefix} prefix tokens side by side" if prefix > 1 else "1 prefix token",
        ),
    }
    for layer, (values, text) in expected.items():
        got, record = _pooled(extractor, layer, images)
        assert torch.equal(got, values)
        before = {"earlier": expected["blocks.1:mean"][1]} if layer == "blocks.1" else {}
        assert record == {"shape": "(B, N, d)", "pooled": text, **before}
    several = extractor.with_layers(["blocks.1:cls", "features", "blocks.1", "blocks.1:prefix"])
    width = tokens.shape[2]
    assert several.layers == {
        "blocks.1:cls": width,
        "features": extractor.dim,
        "blocks.1": width,
        "blocks.1:prefix": prefix * width,
    }
    with torch.no_grad():
        torch.testing.assert_close(several(images)[:, :width], tokens[:, 0])
    assert list(extractor.preprocessing["pooling"]) == ["features"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("blocks.1:max", r"unknown pooling 'max' of layer 'blocks.1': write blocks.1 or one of blocks.1:mean, "),
        ("blocks.99:cls", r"unknown layer 'blocks\.99:cls'"),
        ("features:cls", r"layer 'features' gives \(B, 192\), one vector an image: leave out ':cls'"),
        ("patch_embed:cls", r"layer 'patch_embed' gives \(B, 16, 192\) without prefix tokens: leave out ':cls'"),
        ("patch_embed.proj:prefix", r"gives \(B, 192, 4, 4\) without prefix tokens"),
        # heads and their width are both independent of the size
        ("blocks.0.attn.q_norm", r"gives \(1, 3, 17, 64\) for one 64x64 image: which axis has the channels is not cer"),
    ],
)
def test_layers_and_poolings_that_cannot_be_had(layer, message):
    with pytest.raises(PluginError, match=message):
        _extractor("vit_tiny_patch16_224", img_size=SIDE).with_layers([layer])


def test_windows_are_not_images():
    with pytest.raises(PluginError, match=r"gives a tensor \(9, 49, 96\) for 1 image, not a tensor \(B, d\)"):
        _extractor("swin_tiny_patch4_window7_224", img_size=SIDE).with_layers(["layers.0.blocks.0.attn"])


def test_registers_without_a_class_token():
    extractor = _extractor("vit_medium_patch16_reg4_gap_256", img_size=SIDE)
    assert extractor.with_layers(["blocks.0:prefix"]).dim == 4 * 512
    with pytest.raises(PluginError, match=r"has no class token, only 4 others: write blocks\.0 or blocks\.0:prefix"):
        extractor.with_layers(["blocks.0:cls"])


@pytest.mark.parametrize(
    ("model", "layer", "channels_last"),
    [("resnet10t", "layer2", False), ("swin_tiny_patch4_window7_224", "layers.1.blocks.0", True)],
)
def test_maps_are_pooled_by_name(model, layer, channels_last, images):
    extractor = _extractor(model, **({"img_size": SIDE} if channels_last else {}))
    maps = _raw(extractor, layer, images)
    maps = maps.movedim(3, 1) if channels_last else maps
    side, shape = maps.shape[2], "(B, H, W, d)" if channels_last else "(B, d, H, W)"
    expected = {
        "gap": (maps.mean((2, 3)), "mean over H and W"),
        "mean": (maps.mean((2, 3)), "mean over H and W"),
        "max": (maps.flatten(2).amax(2), "maximum over H and W"),
        "flat": (maps.flatten(1), "output"),
        "2x4": (nn.functional.adaptive_max_pool2d(maps, (2, 4)).flatten(1), "maximum in each cell of a grid of 2x4"),
    }
    for pooling, (values, text) in expected.items():
        got, record = _pooled(extractor, f"{layer}:{pooling}", images)
        torch.testing.assert_close(got, values)
        assert record == {"shape": shape, "pooled": text}
    for pooling, says in (
        (f"{side + 1}x1", f"its maps are {side}x{side}"),
        ("avg", f"write a grid up to {side}x{side}"),
    ):
        with pytest.raises(PluginError, match=f"'{pooling}' of layer '{layer}': {says}"):
            extractor.with_layers([f"{layer}:{pooling}"])


def test_a_map_of_another_size_has_other_columns():
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    extractor = NetworkExtractor(network, name="n", image_size=None, probe_size=8).with_layers(["0:flat"])
    assert extractor(torch.zeros(2, 3, 8, 8)).shape == (2, 320)
    with pytest.raises(
        PluginError, match=r"layer '0:flat' of n has 320 columns, and 500 for .*choose a grid, gap or max"
    ):
        extractor(torch.zeros(2, 3, 10, 10))


class Fixed(nn.Sequential):
    """A network of one size: its linear layer sees the whole map."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 64, 4))


def test_a_network_of_one_size_is_probed_as_far_as_the_other_size_gets():
    extractor = NetworkExtractor(Fixed(), name="n", image_size=8)
    assert extractor.with_layers(["0", "1", "2", "3"]).layers == {"0": 5, "1": 5, "2": 320, "3": 4}


class Axes(nn.Module):
    """Give the image's channels on one axis, its rows and columns on the others."""

    def __init__(self, order):
        super().__init__()
        self.order = order
        self.inner = nn.Identity()

    def forward(self, x):
        return self.inner(x.permute(0, *self.order)).mean((1, 2))


@pytest.mark.parametrize("order", [(1, 2, 3), (2, 1, 3), (2, 3, 1)])
def test_any_axis_may_have_the_channels(order):
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    chosen = NetworkExtractor(Axes(order), name="n", image_size=8).with_layers(["inner"])
    torch.testing.assert_close(chosen(images), images.mean((2, 3)))


def test_one_dimensional_convolutions_have_channels_before_positions():
    network = nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    extractor = NetworkExtractor(network, name="n", image_size=8)
    assert extractor.with_layers(["1", "2", "3"]).layers == {"1": 5, "2": 5, "3": 5}


def test_more_rows_than_images_at_another_size_are_refused():
    class Patches(nn.Module):
        def forward(self, x):
            return x.unfold(2, 8, 8).unfold(3, 8, 8).flatten(1, 3).flatten(0, 1).flatten(1)

    extractor = NetworkExtractor(nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten()), name="n", image_size=None)
    assert extractor(torch.rand(2, 3, 40, 24)).shape == (2, 192)
    with pytest.raises(PluginError, match=r"gives a tensor \(3, 64\) for 1 image"):
        NetworkExtractor(Patches(), name="n", image_size=8)


@pytest.fixture
def pictures(tmp_path):
    r = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=r.integers(0, 256, (6, 16, 16, 3), np.uint8))
    return f"npz:{tmp_path / 'x.npz'}"


def _embed(extractor, pictures, out, **options):
    return galirep.embed(extractor, pictures, out, batch_size=2, device="cpu", num_workers=0, **options)


def _as_written_before(path):
    """Take from a file what versions before did not write."""
    with edited(path) as file:
        record = json.loads(file.attrs["preprocessing"])
        assert record.pop("pooling")
        file.attrs["preprocessing"] = json.dumps(record, sort_keys=True)


def test_a_file_made_before_is_verified_resumed_and_queried_where_nothing_changed(tmp_path, pictures):
    extractor = _extractor("resnet10t").with_layers(["layer2", "features"])
    _embed(extractor, pictures, tmp_path / "x.h5")
    with galirep.load_embeddings(tmp_path / "x.h5") as file:
        assert file.meta.preprocessing["pooling"]["layer2"] == {"shape": "(B, d, H, W)", "pooled": "mean over H and W"}
    _as_written_before(tmp_path / "x.h5")
    assert galirep.verify(tmp_path / "x.h5", encoder=extractor, data=pictures, device="cpu").ok
    assert _embed(extractor, pictures, tmp_path / "x.h5", resume=True).resumed_from == 6
    _embed(extractor, pictures, tmp_path / "new.h5")
    assert len(galirep.retrieve(tmp_path / "x.h5", tmp_path / "new.h5", k=1).neighbors) == 6


def test_a_layer_that_is_pooled_otherwise_now_is_told_in_words(tmp_path, pictures):
    extractor = _extractor("vit_tiny_patch16_224", img_size=SIDE).with_layers(["blocks.1", "features"])
    for name in ("old", "new"):
        _embed(extractor, pictures, tmp_path / f"{name}.h5")
    _as_written_before(tmp_path / "old.h5")
    words = (
        "layer 'blocks.1' is the mean over N with 1 prefix token (by a version before this one: embed again), not the "
        "mean over N without 1 prefix token of (B, N, d)"
    )
    (problem,) = galirep.verify(tmp_path / "old.h5", encoder=extractor, data=pictures, device="cpu").problems
    assert words in problem and "preprocessing" not in problem
    for action in (
        lambda: _embed(extractor, pictures, tmp_path / "old.h5", resume=True),
        lambda: galirep.retrieve(tmp_path / "old.h5", tmp_path / "new.h5", k=1),
        lambda: galirep.merge([tmp_path / "old.h5", tmp_path / "new.h5"], tmp_path / "both.h5"),
    ):
        with pytest.raises(DataError, match=r"layer 'blocks\.1' is the mean over N with"):
            action()
    # the layer that is as it was can still be compared
    assert len(galirep.retrieve(tmp_path / "old.h5", tmp_path / "new.h5", k=1, layers=["features"]).neighbors) == 6


def test_the_cache_of_an_unchanged_layer_is_found(tmp_path):
    extractor = _extractor("resnet10t")
    extractor.sha256 = "12"
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    cached_features(extractor, pixels, "f", folder=tmp_path)
    (before,) = tmp_path.glob("*.npy")
    extractor.preprocessing = {key: value for key, value in extractor.preprocessing.items() if key != "pooling"}
    cached_features(extractor, pixels, "f", folder=tmp_path)
    assert list(tmp_path.glob("*.npy")) == [before]


def test_a_run_with_an_adapter_of_an_earlier_version_goes_on():
    new = {"name": "m", "preprocessing": {"size": 8, "pooling": {"features": {"shape": "(B, d)", "pooled": "output"}}}}
    old = {"name": "m", "preprocessing": {"size": 8}}
    facts = {"data": {"fingerprint": "f"}, "variant": {}}
    assert _fact_differences({**facts, "adapter": new}, {**facts, "adapter": old}) == []
    changed = {"shape": "(B, N, d)", "pooled": "mean over N without 1 prefix token", "earlier": "mean over N"}
    new["preprocessing"]["pooling"]["blocks.1"] = changed
    (text,) = _fact_differences({**facts, "adapter": new}, {**facts, "adapter": old})
    assert text.startswith("adapter: ")
