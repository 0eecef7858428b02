"""A trained E as an extractor: layers, independence of the other images in a batch, gradients, damaged exports."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import galirep
from galirep.errors import CheckpointError, ConfigError, PluginError
from galirep.features.gali import GaliEncoder, build_random, build_run
from galirep.features.registry import load_extractor
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.networks.saved import export_networks, load_autoencoder, load_network

SHAPES = Shapes(16, 1, 6, width=4)
ABOUT = {
    "name": "gali-4-compact",
    "networks": "compact",
    "step": 30,
    "shapes": {"size": 16, "channels": 1, "latent": 6, "width": 4, "features": 0},
}


@pytest.fixture(scope="module")
def nets():
    """Networks with BatchNorm statistics that are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = NETWORKS["compact"].build(SHAPES)
        for _ in range(20):
            parts.encoder(images(32) + 0.3), parts.generator(torch.randn(32, 6))
    return {"encoder": parts.encoder.eval(), "generator": parts.generator.eval()}


@pytest.fixture
def run(tmp_path, nets):
    (tmp_path / "run" / "export").mkdir(parents=True)
    export_networks(tmp_path / "run" / "export", nets, ABOUT, "# card\n")
    return tmp_path / "run"


def images(n=8, seed=1):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_run_gives_the_last_three_hidden_layers_and_mu(run, nets):
    for spec in (f"run:{run}", str(run), str(run / "export")):
        encoder = load_extractor(spec)
        assert list(encoder.layers.items()) == [("conv2", 8 * 16), ("conv3", 16 * 4), ("fc1", 32), ("mu", 6)]
        out = encoder(images())
        assert out.shape == (8, encoder.dim) and out.dtype == torch.float32 and not out.requires_grad
    torch.testing.assert_close(out[:, -6:], nets["encoder"](images())[0])
    assert (encoder.name, encoder.tag, encoder.image_size, encoder.channels) == ("gali-4-compact", "step 30", 16, 1)


def test_layers_come_in_the_order_named(run):
    encoder = load_extractor(f"run:{run}")
    everything = load_extractor(f"run:{run}", layers=["conv1", "conv2", "conv3", "fc1", "mu"])
    some = load_extractor(f"run:{run}#mu,conv1")
    assert list(some.layers) == ["mu", "conv1"]
    whole = everything(images())
    torch.testing.assert_close(some(images()), torch.cat([whole[:, -6:], whole[:, : some.layers["conv1"]]], 1))
    assert encoder.sha256 == everything.sha256 == some.sha256


@pytest.mark.parametrize(
    ("layers", "says"),
    [(["fc2"], "unknown layer 'fc2': did you mean 'fc1'?"), (["mu", "mu"], "name each layer once"), ([], "(none)")],
)
def test_layers_that_do_not_fit(run, layers, says):
    with pytest.raises(PluginError) as caught:
        build_run(str(run)).with_layers(layers)
    assert says in str(caught.value)


def test_features_do_not_depend_on_batch_mates_nor_on_the_batch_size(run):
    encoder, x = build_run(str(run)), images(64)
    together = encoder(x)
    with_others = encoder(torch.cat([x[:3], 5 * images(40, seed=2)]))[:3]
    alone = torch.cat([encoder(x[i : i + 1]) for i in range(3)])
    scale = together.abs().max()
    assert (
        float((with_others - together[:3]).abs().max() / scale) < 1e-5
        and float((alone - together[:3]).abs().max() / scale) < 1e-5
    )


@pytest.mark.parametrize("networks", ("compact", "resnet"))
def test_features_of_group_normed_networks_depend_on_the_image_alone(tmp_path, networks):
    shapes = Shapes(16, 1, 6, width=4, norm="group")
    parts = NETWORKS[networks].build(shapes)
    about = {**ABOUT, "networks": networks, "shapes": dataclasses.asdict(shapes)}
    export_networks(tmp_path, {"encoder": parts.encoder, "generator": parts.generator}, about, "# card\n")
    encoder, x = build_run(str(tmp_path)), images(16)
    together = encoder(x)
    alone = torch.cat([encoder(x[i : i + 1]) for i in range(16)])
    with_others = encoder(torch.cat([x, 5 * images(40, seed=2)]))[:16]
    for other in (alone, with_others):
        assert float((other - together).abs().max() / together.abs().max()) < 1e-5


def test_an_untrained_baseline_takes_a_norm_and_says_it_where_it_is_not_the_default(tmp_path):
    group, batch = build_random("compact,size=16,norm=group"), build_random("compact,size=16,norm=batch")
    assert "norm=group" in group.name and "norm" not in batch.name and group.shapes.norm == "group"
    assert batch.name == build_random("compact,size=16").name
    with pytest.raises(PluginError, match=r"'norm=layer' is not one of .*norm=group"):
        build_random("compact,norm=layer")


def test_eval_mode_and_frozen_weights_stay_and_gradients_reach_the_input(run):
    encoder = build_run(str(run))
    outer = torch.nn.Sequential(encoder).train()
    assert not any(m.training for m in encoder.modules()) and not any(p.requires_grad for p in encoder.parameters())
    state = {k: v.clone() for k, v in encoder.state_dict().items()}
    x = images().requires_grad_()
    outer(x).square().sum().backward()
    assert x.grad.abs().sum() > 0 and all(torch.equal(v, state[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 8, 8), (2, 1, 16, 8)])
def test_images_of_another_shape_are_refused(run, shape):
    with pytest.raises(PluginError, match=r"gali-4-compact takes images \(B, 1, 16, 16\), not \(2, "):
        build_run(str(run))(torch.zeros(shape))


def test_the_autoencoder_of_a_run(run, nets):
    encoder, generator, about = load_autoencoder(run)
    torch.testing.assert_close(generator(encoder(images())[0]), nets["generator"](nets["encoder"](images())[0]))
    assert (
        about["shapes"] == ABOUT["shapes"] and json.loads((run / "export" / "encoder.json").read_text())["step"] == 30
    )


# --- exports that are refused


def refused(run):
    with pytest.raises(CheckpointError) as caught:
        load_network(run, "encoder")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kept", (0, 5, 0.5, 0.99))
def test_a_truncated_export(run, kept):
    path = run / "export" / "encoder.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    assert f"{path} is truncated or damaged" in refused(run)


def test_a_flipped_bit_in_an_export(run):
    path = run / "export" / "encoder.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    assert "its tensors do not match the SHA-256 in its header" in refused(run)


def test_exports_of_others(run):
    path = run / "export" / "encoder.safetensors"
    tensors = load_file(path)
    save_file(tensors, path)
    assert "is not a galirep export of kind 'encoder'" in refused(run)
    save_file(tensors, path, metadata={"galirep": json.dumps({"kind": "encoder", "format": 9})})
    assert "has export format 9; this galirep reads 1" in refused(run)


def test_folders_without_an_export(tmp_path):
    with pytest.raises(CheckpointError, match=r"the run directory .*none does not exist"):
        build_run(str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match=r"has no exported encoder \(export/encoder\.safetensors\)"):
        build_run(str(tmp_path))
    with pytest.raises(PluginError, match="run: needs a run directory"):
        build_run("")


# --- the untrained baseline


def test_random_is_an_untrained_e_of_the_seed():
    one, same, other = (build_random(f"compact,size=16,channels=1,width=4,latent=6,seed={s}") for s in (0, 0, 1))
    torch.testing.assert_close(one(images()), same(images()))
    assert (
        one.sha256 == same.sha256 != other.sha256
        and one.name == "random-compact,size=16,channels=1,latent=6,width=4,seed=0"
    )
    torch.manual_seed(3)
    state = torch.get_rng_state()
    build_random("compact,size=8,width=4")
    assert torch.equal(torch.get_rng_state(), state)


def test_random_of_a_run_has_its_networks(run):
    trained, untrained = build_run(str(run)), load_extractor(f"random:{run}")
    assert untrained.layers == trained.layers and untrained.sha256 != trained.sha256
    assert isinstance(untrained, GaliEncoder) and build_random("svhn32").layers == {
        "conv4": 4096,
        "conv5": 512,
        "fc1": 512,
        "mu": 256,
    }


@pytest.mark.parametrize(
    ("argument", "error", "says"),
    [
        ("compact,sise=16", PluginError, "random:compact,sise=16: 'sise=16' is not one of size=N, channels=N"),
        ("compact,size=big", PluginError, "'size=big' is not one of size=N"),
        ("compakt", ConfigError, "unknown networks 'compakt': did you mean 'compact'?"),
        ("svhn32,size=64", ConfigError, "the networks 'svhn32' take images of 32 pixels, not 64"),
    ],
)
def test_a_random_spec_that_cannot_be_read(argument, error, says):
    with pytest.raises(error) as caught:
        build_random(argument)
    assert says in str(caught.value)


def test_no_layers_is_not_the_default(tmp_path, cli):
    with pytest.raises(ConfigError, match=r"layers of random:compact.* none is named"):
        galirep.load_encoder("random:compact,size=8,channels=1", layers=[])
    done = cli(
        "embed",
        "--encoder",
        "random:compact,size=8,channels=1",
        "--data",
        "sklearn:digits",
        "--layers",
        "",
        "--out",
        tmp_path / "x.h5",
    )
    assert done.exit_code == 2 and "write names with commas between them" in done.stderr


def test_an_error_of_all_images_is_told_once(cli, tmp_path):
    done = cli("embed", "--encoder", "random:compact", "--data", "sklearn:digits", "--out", tmp_path / "x.h5")
    assert done.exit_code == 1 and done.stderr.count("are too small") == 1 and "and 1342 more" in done.stderr
