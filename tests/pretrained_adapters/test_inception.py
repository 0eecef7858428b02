"""`inception:WEIGHTS`, with random weights in the format of pytorch-fid."""

import socket
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from galirep.errors import PluginError
from galirep.features.protocol import describe
from galirep.features.registry import load_extractor
from galirep.system.files import sha256_file

pytorch_fid = pytest.importorskip("pytorch_fid.inception")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Write random weights with pytorch-fid's names, scaled so that activations neither vanish nor explode."""
    with (
        patch.object(pytorch_fid, "load_state_dict_from_url", lambda *a, **k: {}),
        patch.object(nn.Module, "load_state_dict"),
    ):
        network = pytorch_fid.fid_inception_v3()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    path = tmp_path_factory.mktemp("inception") / "pt_inception-random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights):
    return load_extractor(f"inception:{weights}")


def test_features_are_those_of_pytorch_fid(weights, extractor):
    about = describe(extractor)
    assert (about.name, about.dim, about.image_size, about.sha256) == (
        "inception-v3-fid",
        2048,
        299,
        sha256_file(weights),
    )
    with patch.object(pytorch_fid, "load_state_dict_from_url", lambda *a, **k: torch.load(weights, weights_only=True)):
        reference = pytorch_fid.InceptionV3().eval()
    images = torch.rand(1, 3, 32, 32)
    expected = reference(images)[0][:, :, 0, 0]
    assert expected.std() > 1e-3
    torch.testing.assert_close(extractor(images * 2 - 1), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_other_layers(extractor):
    assert extractor.with_layers(["pool1", "pool2", "pre_aux", "pool3"]).layers == {
        "pool1": 64,
        "pool2": 192,
        "pre_aux": 768,
        "pool3": 2048,
    }


def test_weights_of_another_network(tmp_path):
    save_file({"conv.weight": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(PluginError) as caught:
        load_extractor(f"inception:{tmp_path / 'w.safetensors'}")
    assert "does not fit FID's Inception-v3 (it needs pt_inception-2015-12-05-6726825d.pth of pytorch-fid)" in str(
        caught.value
    )
    assert "Conv2d_1a_3x3.conv.weight (32, 3, 3, 3) is missing in the file" in str(caught.value)


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("the network was touched"))
    with pytest.raises(
        PluginError, match=r"give the file pt_inception-2015-12-05-6726825d.pth of pytorch-fid, inception:FILE"
    ):
        load_extractor("inception")


def test_without_its_library_the_extra_is_named(monkeypatch):
    module = "galirep.pretrained_adapters.inception"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "pytorch_fid", None)
    with pytest.raises(
        PluginError, match=r"the extractor 'inception' needs pytorch-fid .*: pip install 'galirep\[inception\]'"
    ):
        load_extractor("inception:weights.pth")
    sys.modules.pop(module, None)
