"""`torchscript:FILE`."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from galirep.errors import PluginError
from galirep.features.protocol import describe, require_gradient
from galirep.features.registry import load_extractor
from galirep.system.files import sha256_file


def _save(network: nn.Module, path: Path, example: torch.Tensor | None = None) -> Path:
    with warnings.catch_warnings():
        # torch recommends torch.export instead
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(network) if example is None else torch.jit.trace(network.eval(), example)
        scripted.save(str(path))
    return path


@pytest.fixture
def flexible(tmp_path) -> tuple[nn.Module, Path]:
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)
    )
    return network.eval(), _save(network, tmp_path / "net.pt")


def test_images_come_as_they_are_and_the_width_is_probed(flexible):
    network, file = flexible
    extractor = load_extractor(f"torchscript:{file}")
    about = describe(extractor)
    assert (about.name, about.dim, about.image_size, about.sha256) == ("net", 5, None, sha256_file(file))
    images = torch.rand(3, 3, 9, 12) * 2 - 1
    torch.testing.assert_close(extractor.train()(images), network(images))
    require_gradient(extractor, images)


def test_one_size_and_one_channel(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    file = _save(network, tmp_path / "net.pt", torch.rand(2, 1, 8, 8))
    extractor = load_extractor(f"torchscript:{file},size=8,channels=1")
    assert extractor(torch.rand(2, 3, 20, 20)).shape == (2, 5)
    with pytest.raises(
        PluginError, match=r"net cannot take 32x32 images: RuntimeError: .*; if it works at one size only, .*,size=N"
    ):
        load_extractor(f"torchscript:{file}")


def test_inner_layers_are_out_of_reach(flexible):
    with pytest.raises(
        PluginError, match="net is TorchScript, whose inner layers cannot be reached: name no layers, not 0"
    ):
        load_extractor(f"torchscript:{flexible[1]}#0")
    assert load_extractor(f"torchscript:{flexible[1]}#features").dim == 5


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", r"write torchscript:FILE\[,size=N\]\[,channels=1\]"),
        ("missing.pt", "the TorchScript file missing.pt does not exist"),
        ("{folder}", "the TorchScript file .* does not exist"),
        ("{folder}/junk.pt", "junk.pt is not a readable TorchScript file"),
        ("{folder}/state.pt", "state.pt is not a readable TorchScript file"),
        ("{folder}/image.pt", r"layer 'features' of image gives a tensor \(1, 3, 32, 32, 1\)"),
    ],
)
def test_files_that_are_not_extractors(tmp_path, argument, message):
    (tmp_path / "junk.pt").write_bytes(b"junk")
    torch.save({"weight": torch.ones(2)}, tmp_path / "state.pt")
    _save(nn.Unflatten(3, (32, 1)), tmp_path / "image.pt", torch.rand(1, 3, 32, 32))
    with pytest.raises(PluginError, match=message):
        load_extractor("torchscript:" + argument.format(folder=tmp_path))
