"""FID, KID, precision and recall against torch-fidelity's own entry point on the same images."""

import json
import pickle
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import galirep
from galirep.data.memory import load_images
from galirep.data.tensors import to_float
from galirep.errors import PluginError
from galirep.evaluation.measures import fidelity
from galirep.metrics.frechet import frechet_distance
from galirep.networks.saved import load_autoencoder

torch_fidelity = pytest.importorskip("torch_fidelity")

RUN = Path(__file__).parents[1] / "fixtures" / "written_by_04408f9" / "run"
NETWORK = "random:compact,size=8,channels=1,width=4,latent=6#mu"
DIGITS = {"data": "sklearn:digits", "device": "cpu", "num_workers": 0}
EXTRACTOR = galirep.load_extractor(NETWORK)


class Pictures(Dataset):
    def __init__(self, images):
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


class OwnExtractor(torch_fidelity.FeatureExtractorBase):
    """NETWORK as torch-fidelity registers extractors."""

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)
        self.network = EXTRACTOR

    @staticmethod
    def get_provided_features_list():
        return ("mu",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "mu"

    def forward(self, x):
        return (self.network(to_float(x[:, :1])),)


@pytest.fixture(scope="module")
def sides():
    """Return 100 samples and 100 test digits, uint8, as `evaluate` draws them with seed 2."""
    images = load_images(galirep.open_data("sklearn:digits", "test"), 8, num_workers=0)
    rows = np.sort(np.random.default_rng(2).permutation(len(images))[:100])
    _, generator, _ = load_autoencoder(RUN)
    with torch.inference_mode():
        samples = generator(torch.randn(100, 4, generator=torch.Generator().manual_seed(2)))
    return ((samples + 1) * 127.5).round().clamp(0, 255).to(torch.uint8), images.tensor()[torch.from_numpy(rows)]


def _library(sides, **options):
    common = {"cuda": False, "verbose": False, "cache": False, "save_cpu_ram": True, "rng_seed": 2}
    return torch_fidelity.calculate_metrics(
        input1=Pictures(sides[0]),
        input2=Pictures(sides[1]),
        kid_subset_size=50,
        prc_neighborhood=3,
        **common,
        **options,
    )


def test_an_extractor_of_ours_gives_what_the_entry_point_gives(sides):
    torch_fidelity.register_feature_extractor("own", OwnExtractor)
    expected = _library(sides, fid=True, kid=True, prc=True, feature_extractor="own")
    result = galirep.evaluate(RUN, metrics="fid,kid", extractor=NETWORK, samples=100, seed=2, **DIGITS)
    fid, kid = result.metrics["fid"], result.metrics["kid"]
    assert fid["mean"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert kid["mean"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert kid["std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)
    assert (fid["precision"], fid["recall"]) == pytest.approx((expected["precision"], expected["recall"]))
    own = [EXTRACTOR(to_float(side)).numpy() for side in sides]
    assert fid["mean"] == pytest.approx(frechet_distance(*own), rel=1e-4)
    assert fid["label"].startswith("Fréchet distance in random-compact") and "n 100" in fid["label"]
    assert fid["label"].endswith(f"torch-fidelity {torch_fidelity.__version__}") and fid["n"] == kid["n"] == 100
    assert kid["settings"]["subset_size"] == 50 and fid["versions"]["torch-fidelity"] == torch_fidelity.__version__


def test_the_floor_is_of_training_images_or_of_two_halves(sides, digit_images):
    real = EXTRACTOR(to_float(sides[1])).numpy()
    result = galirep.evaluate(RUN, metrics="fid", extractor=NETWORK, samples=100, seed=2, **DIGITS)
    rows = np.sort(np.random.default_rng(2).permutation(len(digit_images))[:100])
    train = EXTRACTOR(to_float(digit_images.tensor()[torch.from_numpy(rows)])).numpy()
    floor = result.metrics["fid"]["floor"]
    assert floor["mean"] == pytest.approx(frechet_distance(train, real), rel=1e-4) and "training images" in floor["of"]
    test = load_images(galirep.open_data("sklearn:digits", "test"), 8, num_workers=0)
    options = {**DIGITS, "data": test, "extractor": NETWORK, "samples": 100, "seed": 2}
    floor = galirep.evaluate(RUN, metrics="fid", **options).metrics["fid"]["floor"]
    order = np.random.default_rng(2).permutation(100)
    expected = frechet_distance(real[order[:50]], real[order[50:]])
    assert floor["mean"] == pytest.approx(expected, rel=1e-4) and "two halves of the reference, 50" in floor["of"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write random weights of the library's Inception, scaled so that activations neither vanish nor explode."""
    with patch.object(torch, "load", lambda *a, **k: {}), patch.object(nn.Module, "load_state_dict"):
        network = torch_fidelity.FeatureExtractorInceptionV3("random", ["64"], feature_extractor_weights_path="none")
    random = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=random)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_is_the_library_s(weights, sides):
    sides = [side[:70] for side in sides]
    options = {"feature_extractor": "inception-v3-compat", "feature_extractor_weights_path": str(weights)}
    expected = _library([side[:70] for side in sides], fid=True, feature_layer_fid="64", **options)
    network = fidelity.FidInception(weights, "64")
    features = [network(to_float(side)).numpy() for side in sides]
    assert features[0].shape == (70, 64) and features[0].std() > 1e-3
    assert fidelity.frechet(*features) == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)


def test_kid_in_inception_from_a_file(weights, cli):
    arguments = ("--data", "sklearn:digits", "--metrics", "kid", "--inception", weights, "--samples", 12, "--json")
    done = cli("evaluate", RUN, *arguments, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    entry = json.loads(done.stdout)["kid"]
    assert entry["extractor"]["sha256"] == galirep.features.sha256_file(weights)
    assert "fid-inception-v3" in entry["label"] and "bilinear of TensorFlow 1, no antialias, 299" in entry["label"]
    done = cli("evaluate", RUN, *arguments, "--metrics", "fid")
    assert done.exit_code == 1 and "fid of 12 images in 2048 features" in done.stderr


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(PluginError, match=r"none\.pth does not exist: FID's Inception needs weights-inception-2015"):
        fidelity.FidInception(tmp_path / "none.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(PluginError, match=r"other\.pth does not fit FID's Inception"):
        fidelity.FidInception(tmp_path / "other.pth")

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(PluginError, match=r"evil\.pth does not fit"):
        fidelity.FidInception(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_without_the_library_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity", None)
    with pytest.raises(PluginError, match=r"pip install 'galirep\[fidelity\]'"):
        fidelity.library()
