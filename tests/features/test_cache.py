"""The cache of features on disk: one pass over the images, and never the features of something else."""

import json
import logging

import numpy as np
import pytest
import torch

from galirep.errors import DataError, PluginError
from galirep.features.cache import cached_features, default_folder


class Scaled:
    """The mean of each channel times `factor`; counts the images it has seen."""

    name, dim = "scaled", 3

    def __init__(self, factor=1.0, sha256=""):
        self.factor, self.sha256, self.seen = factor, sha256, 0

    def __call__(self, images):
        self.seen += len(images)
        return images.mean((2, 3)) * self.factor


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (23, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_one_pass_over_the_images_then_none(pixels, tmp_path):
    done = []
    first = Scaled(sha256="a")
    features = cached_features(first, pixels, "data", folder=tmp_path / "cache", batch_size=5, progress=done.append)
    expected = (pixels.float() / 127.5 - 1).mean((2, 3)).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-6)
    assert features.dtype == np.float32 and first.seen == 23 and done == [5, 10, 15, 20, 23]
    again = Scaled(sha256="a")
    assert (
        np.array_equal(cached_features(again, pixels, "data", folder=tmp_path / "cache"), features) and again.seen == 0
    )
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0


def test_other_weights_data_size_or_layers_have_a_file_of_their_own(pixels, tmp_path):
    other_layers = Scaled(sha256="a")
    other_layers.layers = {"mean": 3}
    calls = [
        (Scaled(sha256="a"), pixels, "data"),
        (Scaled(2.0, sha256="b"), pixels, "data"),
        (Scaled(sha256="a"), pixels, "other data"),
        (Scaled(sha256="a"), pixels[:, :, :2, :2], "data"),
        (other_layers, pixels, "data"),
    ]
    for extractor, images, fingerprint in calls:
        got = cached_features(extractor, images, fingerprint, folder=tmp_path)
        assert extractor.seen == 23
        np.testing.assert_allclose(got, (images.float() / 127.5 - 1).mean((2, 3)).numpy() * extractor.factor, rtol=1e-6)
    assert len(list(tmp_path.glob("*.npy"))) == len(calls)


def test_an_extractor_without_a_hash_is_identified_by_its_output(pixels, tmp_path):
    cached_features(Scaled(1.0), pixels, "data", folder=tmp_path)
    same, other = Scaled(1.0), Scaled(1.5)
    cached_features(same, pixels, "data", folder=tmp_path)
    assert same.seen == 4
    got = cached_features(other, pixels, "data", folder=tmp_path)
    np.testing.assert_allclose(got, (pixels.float() / 127.5 - 1).mean((2, 3)).numpy() * 1.5, rtol=1e-6)


@pytest.mark.parametrize("harm", ["flip", "truncate", "no record", "cut record"])
def test_a_damaged_file_is_made_anew(pixels, tmp_path, harm, caplog):
    expected = np.array(cached_features(Scaled(sha256="a"), pixels, "data", folder=tmp_path))
    (file,) = tmp_path.glob("*.npy")
    content, record = file.read_bytes(), file.with_suffix(".json")
    if harm == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "truncate":
        file.write_bytes(content[:-8])
    elif harm == "no record":
        record.unlink()
    else:
        record.write_text(record.read_text()[:40])
    again = Scaled(sha256="a")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(cached_features(again, pixels, "data", folder=tmp_path), expected)
    assert again.seen == 23 and ("is damaged: its features are computed again" in caplog.text) == (harm != "no record")


def test_a_file_of_another_extractor_under_this_name_is_refused(pixels, tmp_path):
    cached_features(Scaled(sha256="a"), pixels, "data", folder=tmp_path)
    (record,) = tmp_path.glob("*.json")
    content = json.loads(record.read_text())
    content["key"]["weights"] = "b"
    record.write_text(json.dumps(content))
    with pytest.raises(DataError, match="contains features of something else \\(weights: 'b', not 'a'\\): delete it"):
        cached_features(Scaled(sha256="a"), pixels, "data", folder=tmp_path)


@pytest.mark.parametrize("give", [lambda x: x.mean((2, 3))[:, :2], lambda x: x.mean((2, 3)) / 0])
def test_wrong_features_leave_no_file(pixels, tmp_path, give):
    extractor = Scaled(sha256="a")
    extractor.__class__ = type("Broken", (Scaled,), {"__call__": lambda self, x: give(x)})
    with pytest.raises(PluginError, match=r"the extractor 'scaled' must give \(23, 3\) finite float32"):
        cached_features(extractor, pixels, "data", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_default_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.delenv("GALIREP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "galirep"
    monkeypatch.setenv("GALIREP_CACHE", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"
