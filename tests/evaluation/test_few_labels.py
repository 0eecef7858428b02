"""Probes with few labels against `probe` on the choices spelled out, and bad input."""

import numpy as np
import pytest
import torch

import galirep
from galirep.data.tensors import BLOCK
from galirep.errors import ConfigError, DataError
from galirep.evaluation.few_labels import attribute_labels, compute_features, few_label_error


@pytest.fixture
def blobs():
    random = np.random.default_rng(0)
    labels = np.arange(200) % 3
    return (2 * np.eye(3, 5)[labels] + random.normal(size=(200, 5))).astype(np.float32), labels


def test_features_are_those_of_the_function_in_blocks():
    pixels = np.random.default_rng(0).integers(0, 256, (BLOCK + 3, 2, 4, 4), dtype=np.uint8)
    sizes = []

    def halves(x):
        sizes.append(len(x))
        return x / 2

    features = compute_features(halves, pixels)
    assert features.dtype == np.float32 and sizes == [BLOCK, 3]
    np.testing.assert_allclose(features, (pixels.reshape(len(pixels), -1) / 127.5 - 1) / 2, atol=1e-6)
    assert compute_features(torch.nn.Identity(), pixels[:2], torch.device("cpu")).shape == (2, 32)


def test_the_error_is_the_mean_over_seeded_choices(blobs):
    features, labels = blobs
    test = features[:50], labels[:50]
    requested = []

    def features_of(rows):
        requested.append(rows)
        return features[rows]

    error = few_label_error(features_of, labels, test, count=40, draws=3)
    choices = [np.random.default_rng(i).permutation(200)[:40] for i in range(3)]
    assert [rows.tolist() for rows in requested] == [rows.tolist() for rows in choices]
    errors = [galirep.probe((features[rows], labels[rows]), test).error_mean for rows in choices]
    assert error == pytest.approx(sum(errors) / 3) and error > 0


@pytest.mark.parametrize(
    ("count", "draws", "error", "text"),
    [
        (0, 1, ConfigError, "count 0 and draws 1 must be 1 or more"),
        (10, 0, ConfigError, "count 10 and draws 0 must be 1 or more"),
        (201, 1, DataError, "cannot choose 201 labelled images of 200"),
        (1, 1, DataError, "has one class only"),
    ],
)
def test_bad_numbers(blobs, count, draws, error, text):
    features, labels = blobs
    with pytest.raises(error, match=text):
        few_label_error(lambda rows: features[rows], labels, blobs, count, draws)


def test_attributes_come_in_the_order_of_the_images(tmp_path):
    file = tmp_path / "attributes.csv"
    file.write_text("id,smiling,young\nb.png,1,0\na.png,-1,1\n")
    labels = attribute_labels(file, ["faces/a.png", "faces/b.png"])
    assert {name: values.tolist() for name, values in labels.items()} == {"smiling": [0, 1], "young": [1, 0]}
    assert labels["smiling"].dtype == np.int64
    with pytest.raises(DataError, match=r"no row for 1 of 1 images, the first 'c\.png'"):
        attribute_labels(file, ["c.png"])
