"""Baselines against numpy and scikit-learn, and bad input."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from galirep.data.tensors import image_blocks
from galirep.errors import ConfigError, PluginError
from galirep.evaluation.baselines import fit_pca, mean_image, raw_pixels, train_autoencoder, untrained
from galirep.evaluation.few_labels import compute_features
from galirep.metrics.reconstruction import pixel_mse


@pytest.fixture(scope="module")
def pixels(digit_images):
    return digit_images.pixels[:300]


def _error(rebuild, pixels):
    return pixel_mse((x, rebuild(x)) for x in image_blocks(pixels))


def test_the_mean_image_has_the_variance_as_its_error(pixels):
    baseline = mean_image(pixels)
    assert baseline.extract is None
    assert _error(baseline.rebuild, pixels) == pytest.approx((pixels / 255).var(0).mean(), rel=1e-5)


def test_raw_pixels_are_the_images(pixels):
    baseline = raw_pixels()
    assert baseline.rebuild is None
    features = compute_features(baseline.extract, pixels)
    np.testing.assert_allclose(features, pixels.reshape(len(pixels), -1) / 127.5 - 1, atol=1e-6)


def test_pca_is_that_of_scikit_learn(pixels):
    baseline = fit_pca(pixels, 5)
    flat = pixels.reshape(len(pixels), -1) / 127.5 - 1
    reference = PCA(5, svd_solver="full").fit(flat)
    expected = reference.transform(flat)
    features = compute_features(baseline.extract, pixels)
    signs = np.sign((features * expected).sum(0))
    np.testing.assert_allclose(features * signs, expected, atol=1e-3)
    rebuilt = compute_features(baseline.rebuild, pixels)
    np.testing.assert_allclose(rebuilt, reference.inverse_transform(expected), atol=1e-3)


def test_pca_of_many_images_takes_some_spread_over_them(pixels, monkeypatch):
    monkeypatch.setattr("galirep.evaluation.baselines._PCA_IMAGES", 100)
    some, chosen = fit_pca(pixels, 3), fit_pca(pixels[::3], 3)
    assert _error(some.rebuild, pixels) == _error(chosen.rebuild, pixels)


@pytest.mark.parametrize("components", [0, 65])
def test_pca_needs_a_possible_number_of_components(pixels, components):
    with pytest.raises(ConfigError, match=rf"{components} components of PCA: expected 1 to 64 for \(300, 64\)"):
        fit_pca(pixels, components)


def test_untrained_networks_are_the_extractor_random(pixels):
    mu = untrained("compact", 8, 1, seed=3, layers=["mu"])
    assert mu.dim == 64 and compute_features(mu, pixels).shape == (300, 64)
    assert compute_features(untrained("compact", 8, 1), pixels).shape[1] > 64
    with pytest.raises(ConfigError, match="unknown networks"):
        untrained("compacted", 8, 1)
    with pytest.raises(PluginError, match="unknown layer"):
        untrained("compact", 8, 1, layers=["nu"])


def test_an_autoencoder_learns_and_repeats(pixels):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (train_autoencoder(pixels, updates=40, seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are left alone
    assert first.updates == 40 and not first.encoder.training and not first.generator.training
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(value, second.encoder.state_dict()[name]), name
    other = train_autoencoder(pixels, updates=40, seed=2)
    assert not torch.equal(first.encoder.head.weight, other.encoder.head.weight)
    with torch.inference_mode():
        error = _error(lambda x: first.generator(first.encoder(x)[0]), pixels)
    assert error < _error(mean_image(pixels).rebuild, pixels)


def test_an_autoencoder_stops_when_its_cpu_time_is_spent(pixels, monkeypatch):
    # the start, then the time before each update and after the last
    clock = iter([100.0, 100.0, 106.0, 112.0, 118.0])
    monkeypatch.setattr("galirep.evaluation.baselines.time.process_time", lambda: next(clock))
    assert train_autoencoder(pixels, minutes=0.25).updates == 3


@pytest.mark.parametrize(
    "budget", [{}, {"minutes": 1, "updates": 1}, {"minutes": 0}, {"updates": 0}, {"minutes": -1.0}]
)
def test_an_autoencoder_needs_one_budget(pixels, budget):
    with pytest.raises(ConfigError, match="give exactly one of them, above 0"):
        train_autoencoder(pixels, **budget)


def test_an_autoencoder_needs_networks_of_the_size(pixels):
    with pytest.raises(ConfigError, match="'svhn32' take images of 32 pixels, not 8"):
        train_autoencoder(pixels, "svhn32", updates=1)
