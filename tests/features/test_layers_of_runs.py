"""D's image trunk and pooled layers of a run: exported, embedded, verified, searched, trained with, and refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_runs import config, info_of, tiny

import galirep
from galirep.data.tensors import to_float
from galirep.errors import CheckpointError, ConfigError, DataError, PluginError
from galirep.features.protocol import require_gradient
from galirep.features.registry import load_extractor
from galirep.game.discriminator import Discriminator
from galirep.game.variants import get_variant
from galirep.inspection.paths import info
from galirep.networks.export_file import sha256_tensors
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.networks.saved import EXPORTED, export_networks, export_run, load_network
from galirep.runs.checkpoint import load_checkpoint
from galirep.training.loop import train

SHAPES = Shapes(16, 1, 4, width=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a run whose D has spectral norm."""
    run = tmp_path_factory.mktemp("runs") / "run"
    train(config(steps=3, d_regularizer="sn", holdout=4, evaluate_every=3), tiny(size=16), out=run)
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def old(run):
    """Leave the run as a version before did: without D, and without default layers in the header."""
    encoder, header = load_network(run, "encoder")
    generator, _ = load_network(run, "generator")
    shutil.rmtree(run / "export")
    (run / "export").mkdir()
    header = {k: v for k, v in header.items() if k not in ("kind", "format", "sha256", "default_layers")}
    export_networks(run / "export", {"encoder": encoder, "generator": generator}, header, "")
    return run


def images(n=6):
    return to_float(tiny(seed=1, n=n, size=16).tensor())


def trained_d(run):
    """D as the checkpoint has it, in eval mode."""
    content = load_checkpoint(run / "checkpoints" / "last.pt")
    d = Discriminator(get_variant("gali-4"), NETWORKS["compact"].build(SHAPES), content["config"]["d_regularizer"])
    d.load_state_dict(content["nets"]["D"])
    return d.eval()


@pytest.fixture
def pictures(tmp_path):
    np.savez(tmp_path / "x.npz", images=tiny(seed=2, n=7, size=16).pixels[:, 0], labels=np.arange(7) % 2)
    return f"npz:{tmp_path / 'x.npz'}"


def test_the_layers_of_d_are_those_of_the_trained_d(trained):
    trunk, x = trained_d(trained).trunks["image"], images()
    d1 = trunk[0](x)
    d2 = trunk[1](d1)
    for folder in ("export", "best"):
        extractor = load_extractor(trained / folder, layers=["d1:flat", "d2", "d4", "mu"])
        assert extractor.layers == {"d1:flat": 256, "d2": 128, "d4": 32, "mu": 4}
        expected = torch.cat([d1.flatten(1), d2.flatten(1), trunk(x), load_network(trained, "encoder")[0](x)[0]], 1)
        torch.testing.assert_close(extractor(x), expected, rtol=1e-5, atol=1e-6)


def test_spectral_norm_is_part_of_the_exported_weights(trained):
    trunk, header = load_network(trained, "discriminator")
    assert header["kind"] == "discriminator" and header["default_layers"] == ["conv2", "conv3", "fc1", "mu"]
    names = [f"{i}.{part}" for i in range(3) for part in ("0.bias", "0.weight")] + ["3.1.bias", "3.1.weight"]
    with safe_open(trained / "export" / "discriminator.safetensors", "pt") as file:
        assert sorted(file.keys()) == names
    before = trained_d(trained)
    state = {name: value.clone() for name, value in before.state_dict().items()}
    baked = before.image_trunk()
    torch.testing.assert_close(baked(images()), before.trunks["image"](images()), rtol=0, atol=0)
    # the trained D is left as it was, and learns on
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())
    assert all(parameter.requires_grad for parameter in before.parameters())
    assert not any(parameter.requires_grad for parameter in baked.parameters())
    assert all(torch.equal(value, trunk.state_dict()[name]) for name, value in baked.state_dict().items())


def test_the_hash_is_that_of_the_networks_that_are_read(trained):
    (_, e), (_, d) = (load_network(trained, kind) for kind in ("encoder", "discriminator"))
    both = {
        f"{key}.{n}": v
        for key, kind in (("e", "encoder"), ("d", "discriminator"))
        for n, v in load_network(trained, kind)[0].state_dict().items()
    }
    hashes = [load_extractor(trained, layers=layers).sha256 for layers in (["mu"], ["d2"], ["d2", "mu"], ["conv1:gap"])]
    assert hashes == [e["sha256"], d["sha256"], sha256_tensors(both), e["sha256"]]


def test_pooling_is_recorded_and_changes_no_record_of_before(trained, old):
    record = load_extractor(trained, layers=["conv1:2x1", "conv1", "conv2", "fc1", "d1:gap", "conv1:max"]).preprocessing
    assert record["pooling"] == {
        "conv1:2x1": {"shape": "(B, d, 8, 8)", "pooled": "maximum in each cell of a grid of 2x1"},
        "conv1": {"shape": "(B, d, 8, 8)", "pooled": "maximum in each cell of a grid of 4x4"},
        "conv2": {"shape": "(B, d, 4, 4)", "pooled": "output"},
        "fc1": {"shape": "(B, d)", "pooled": "output"},
        "d1:gap": {"shape": "(B, d, 8, 8)", "pooled": "mean over H and W"},
        "conv1:max": {"shape": "(B, d, 8, 8)", "pooled": "maximum over H and W"},
    }
    assert torch.equal(load_extractor(old)(images()), load_extractor(trained)(images()))


def test_an_old_export_has_e_and_says_how_to_get_d(old, tmp_path):
    extractor = load_extractor(old)
    assert list(extractor.layers) == ["conv2", "conv3", "fc1", "mu"] == list(extractor.known_layers)[1:]
    with pytest.raises(CheckpointError) as caught:
        load_extractor(old, layers=["d2"])
    assert str(caught.value).endswith(
        "run has no layers of D: it was exported without discriminator.safetensors, which a run gets when it is "
        "resumed (galirep train --resume)"
    )
    assert len(export_run(old, tmp_path / "out")) == 4
    train(config(steps=3, d_regularizer="sn", holdout=4, evaluate_every=3), tiny(size=16), out=old, resume=True)
    assert load_extractor(old, layers=["d2"]).dim == 128


def test_what_is_exported_copied_and_told(run, tmp_path):
    out = tmp_path / "out"
    assert [path.name for path in export_run(run, out)] == list(EXPORTED)
    assert (
        load_extractor(out, layers=["d2:gap"]).dim == 8
        and "discriminator.safetensors" in (out / "README.md").read_text()
    )
    assert "export/discriminator.safetensors" in info(run)["exports"]
    told = info(out)
    assert told["network"] == "encoder" and told["exports"] == ["discriminator", "encoder", "generator"]
    assert told["default_layers"] == ["conv2", "conv3", "fc1", "mu"]
    assert info(out / "discriminator.safetensors")["network"] == "discriminator"
    # an export without D leaves none of another behind
    (run / "export" / "discriminator.safetensors").unlink()
    export_run(run, out, overwrite=True)
    assert not (out / "discriminator.safetensors").exists()


def test_networks_of_two_steps_are_not_mixed(run, tmp_path):
    train(
        config(steps=4, d_regularizer="sn", holdout=4, evaluate_every=3, instance_noise=0.0),
        tiny(size=16),
        out=tmp_path / "b",
    )
    shutil.copy(tmp_path / "b" / "export" / "discriminator.safetensors", run / "export")
    assert load_extractor(run).tag == "step 3"
    with pytest.raises(CheckpointError, match=r"has an encoder of step 3 and a discriminator of step 4: try again"):
        load_extractor(run, layers=["d2"])


def test_the_default_layers_of_an_export_are_what_it_gives(run, monkeypatch, pictures, tmp_path):
    monkeypatch.setattr("galirep.networks.layers.DEFAULT_LAYERS", ("mu", "d2:gap"))
    train(config(steps=3, d_regularizer="sn", holdout=4, evaluate_every=3), tiny(size=16), out=run, resume=True)
    monkeypatch.undo()
    assert json.loads((run / "export" / "encoder.json").read_text())["default_layers"] == ["mu", "d2:gap"]
    assert list(galirep.load_encoder(run, device="cpu").extractor.layers) == ["mu", "d2:gap"]
    assert list(load_extractor(f"random:{run}").layers) == ["mu", "d2:gap"]
    made = galirep.embed(run, pictures, tmp_path / "x.h5", layers=["paper"], device="cpu", num_workers=0)
    assert made.layers == ("conv2", "conv3", "fc1", "mu")
    assert galirep.verify(tmp_path / "x.h5", data=pictures, encoder=str(run), device="cpu").ok


def test_an_untrained_d_beside_an_e_that_is_what_it_was(trained):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        parts = NETWORKS["compact"].build(SHAPES)
    x, encoder = images(), parts.encoder.eval()
    options = "size=16,channels=1,width=4,latent=4"
    for spec in (f"random:compact,{options},seed=5", f"random:{trained},seed=5"):
        extractor = load_extractor(spec, layers=["d1:flat", "fc1"])
        d1, fc1 = parts.trunks["image"][0](x), encoder.layers(x)["fc1"]
        torch.testing.assert_close(extractor(x), torch.cat([d1.flatten(1), fc1], 1))
        assert load_extractor(spec).sha256 == sha256_tensors(encoder.state_dict())


def test_gradients_reach_the_image_through_d_and_e(trained):
    for layers in (["d2:gap"], ["d1:flat", "d4"], ["conv1:max"], ["conv1:3x3", "mu", "d3"]):
        extractor = load_extractor(trained, layers=layers)
        require_gradient(extractor, images(2))
        x = images(2).requires_grad_()
        extractor(x).sum().backward()
        assert bool((x.grad.flatten(1).abs().sum(1) > 0).all())
        assert all(parameter.grad is None for parameter in extractor.parameters())


def test_the_module_holds_what_it_reads(trained):
    of_e, both = (load_extractor(trained, layers=layers) for layers in (["mu"], ["mu", "d2"]))
    assert of_e.trunk is None and both.trunk is not None
    outer = torch.nn.Sequential(both).train()
    assert not any(module.training for module in both.modules()) and outer.training
    # through an extractor that has D already
    assert torch.equal(both.with_layers(["d2"])(images()), both(images())[:, 4:])


def test_files_of_layers_of_d_are_resumed_verified_probed_searched_and_indexed(run, pictures, tmp_path, cli):
    file, layers = tmp_path / "x.h5", "d2:flat,e.conv1:gap,mu"
    common = ("--encoder", run, "--data", pictures, "--device", "cpu", "--num-workers", "0", "--out")
    assert "d2:flat, conv1:gap, mu" in cli("embed", *common, file, "--layers", layers).stdout
    again = cli("embed", *common, file, "--layers", layers, "--resume")
    assert "is complete: 7 rows" in again.stdout, again.stderr
    assert "layers" in cli("embed", *common, file, "--layers", "d2:gap,mu", "--resume").stderr
    assert galirep.verify(file, data=pictures, encoder=str(run), device="cpu").ok
    assert len(galirep.retrieve(file, file, k=1, layers=["d2:flat"]).neighbors) == 7
    pixels = tiny(seed=2, n=7, size=16).pixels[:, 0]
    encoder = galirep.load_encoder(run, layers.split(","), device="cpu")
    with galirep.load_embeddings(file) as stored:
        np.testing.assert_allclose(encoder.transform(pixels), stored.features[:], atol=1e-5)
    assert list(encoder.get_feature_names_out()[[0, -1]]) == ["d2:flat_0", "mu_3"]
    assert cli("index", file, "--out", tmp_path / "x.faiss", "--layers", "d2:flat").exit_code == 0
    assert len(galirep.retrieve(tmp_path / "x.faiss", file, k=1).neighbors) == 7
    galirep.embed(run, pictures, tmp_path / "y.h5", layers=["d2:max", "mu"], device="cpu", num_workers=0)
    with pytest.raises(DataError, match="d2"):
        galirep.retrieve(file, tmp_path / "y.h5", k=1, layers=["d2:flat"])


def test_a_layer_that_a_run_has_not_is_one_line(run, pictures, tmp_path, cli):
    result = cli("embed", "--encoder", run, "--data", pictures, "--out", tmp_path / "x.h5", "--layers", "d2:5x5")
    assert result.exit_code == 1 and len(result.stderr.strip().splitlines()) == 1
    assert "pooling '5x5' of layer 'd2': its maps are 4x4" in result.stderr


# --- as M(.) of GALI-PT


def test_a_run_is_m_by_chosen_layers(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("GALIREP_CACHE", str(tmp_path / "cache"))
    options = {"variant": "gali-pt", "adapter": f"run:{trained}", "adapter_layers": "d2:gap, mu", "steps": 2}
    run, data = tmp_path / "pt", tiny(size=16)
    train(config(**options), data, out=run)
    assert info_of(run)["adapter"]["layers"] == {"d2:gap": 8, "mu": 4}
    assert load_network(run, "discriminator")[1]["shapes"]["features"] == 12
    train(config(**options), data, out=run, resume=True)
    with pytest.raises(CheckpointError, match=r"adapter_layers: 'd3', not 'd2:gap, mu'; adapter: "):
        train(config(**{**options, "adapter_layers": "d3"}), data, out=run, resume=True)
    with pytest.raises(PluginError, match="unknown layer 'd9'"):
        train(config(**{**options, "adapter_layers": "d9"}), data, out=tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_layers_of_an_adapter_that_has_no_names(tmp_path):
    with pytest.raises(
        ConfigError, match="adapter_layers mu chooses layers of an adapter that is named, and there is "
    ):
        train(config(adapter_layers="mu"), tiny(), out=tmp_path / "run")
    options = config(variant="gali-pt", adapter_layers="mu")
    with pytest.raises(ConfigError, match="and this one is a function"):
        train(options, tiny(), out=tmp_path / "run", adapter=lambda x: x.flatten(1))
    with pytest.raises(ConfigError, match=r"adapter_layers 'mu,,d2': write names with commas between them"):
        config(adapter_layers="mu,,d2")


def test_a_d_that_sees_no_image_is_not_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("GALIREP_CACHE", str(tmp_path / "cache"))
    classes = '[["M(x)", "E(x)"], ["M(G(z))", "z"]]'
    (tmp_path / "v.toml").write_text(f"classes = {classes}\n")
    options = {
        "variant": str(tmp_path / "v.toml"),
        "adapter": "pixels:2",
        "steps": 2,
        "holdout": 4,
        "evaluate_every": 1,
    }
    train(config(**options), tiny(), out=tmp_path / "run")
    assert len(list((tmp_path / "run" / "export").glob("*.safetensors"))) == 2
    with pytest.raises(galirep.errors.SpecError, match="D of the variant 'v' sees no image"):
        train(config(**options, evaluate_layers="d1"), tiny(), out=tmp_path / "other")
