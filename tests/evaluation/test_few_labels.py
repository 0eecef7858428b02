"""Probes with few labels against `probe` on the choices spelled out, and bad input."""

import numpy as np
import pytest
import torch

import galirep
from galirep.data.tensors import BLOCK
from galirep.errors import ConfigError, DataError
from galirep.evaluation.few_labels import (
    FAIR_PROTOCOLS,
    attribute_labels,
    best_few_label_error,
    compute_features,
    few_label_error,
)


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
    errors = [
        galirep.probe((features[rows], labels[rows]), test, protocol="linear-svm/v1").error_mean for rows in choices
    ]
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


@pytest.mark.parametrize("protocol", ["linear-svm/v2", "logistic/v1"])
def test_the_error_of_a_protocol(blobs, protocol):
    features, labels = blobs
    test = features[:50], labels[:50]
    rows = np.random.default_rng(0).permutation(200)[:40]
    error = few_label_error(lambda rows: features[rows], labels, test, 40, 1, protocol)
    assert error == galirep.probe((features[rows], labels[rows]), test, protocol=protocol).error_mean


def test_the_best_protocol_is_chosen_by_training_labels(blobs):
    features, labels = blobs
    test = features[:50], labels[:50]
    result = best_few_label_error(lambda rows: features[rows], labels, test, 40, 3)
    for draw in range(3):
        rows = np.random.default_rng(draw).permutation(200)[:40]
        probes = [galirep.probe((features[rows], labels[rows]), test, protocol=name) for name in FAIR_PROTOCOLS]
        errors = [min(step["error"] for step in probe.validation) for probe in probes]
        best = errors.index(min(errors))
        assert result.protocols[draw] == FAIR_PROTOCOLS[best] and result.layers[draw] is None
        assert (result.validation_errors[draw], result.errors[draw]) == (errors[best], probes[best].error_mean)
    assert result.error == pytest.approx(sum(result.errors) / 3)
    # other test labels change no choice
    wrong = best_few_label_error(lambda rows: features[rows], labels, (test[0], (test[1] + 1) % 3), 40, 3)
    assert wrong.protocols == result.protocols and wrong.errors != result.errors


def test_layers_are_chosen_for_each_draw(blobs):
    features, labels = blobs
    noise = np.random.default_rng(1).normal(size=(200, 40)).astype(np.float32)
    test = {"noise": noise[:50], "good": features[:50]}, labels[:50]

    def features_of(rows):
        return {"noise": noise[rows], "good": features[rows]}

    chosen = best_few_label_error(features_of, labels, test, 60, 2, layer_choice=True)
    assert chosen.layers == [["good"], ["good"]]
    everything = best_few_label_error(features_of, labels, test, 60, 2)
    assert everything.layers == [None, None] and everything.error > chosen.error
    assert chosen.to_dict()["protocols"] == chosen.protocols
    with pytest.raises(ConfigError, match="features of each layer by name"):
        best_few_label_error(lambda rows: features[rows], labels, (features, labels), 60, 1, layer_choice=True)
    with pytest.raises(ConfigError, match="knn/v1 has no error on training labels"):
        best_few_label_error(features_of, labels, test, 60, 1, protocols=["knn/v1"])
