"""Layers chosen by cross-validation on training labels: the rule, its bounds, `probe` and the command, bad input."""

import json

import numpy as np
import pytest
from toy_galleries import write_embeddings

import galirep
from galirep.errors import ConfigError, DataError
from galirep.probing.layer_choice import choose_layers
from galirep.probing.protocols import PROTOCOLS


def _layers(n=200, seed=0, noise=60):
    """Return four classes of which `left` tells one bit, `right` the other, and `noise` none."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    left, right = labels // 2, labels % 2
    return {
        "noise": 3 * random.normal(size=(n, noise)),
        "left": np.eye(2, 3)[left] * 4 + random.normal(size=(n, 3)),
        "right": np.eye(2, 3)[right] * 4 + random.normal(size=(n, 3)),
    }, labels


@pytest.mark.parametrize("protocol", ["linear-svm/v2", "logistic/v1"])
def test_layers_that_help_together_are_found(protocol):
    layers, labels = _layers()
    choice = choose_layers(layers, labels, protocol)
    assert choice.layers == ("left", "right") and (choice.n_rows, choice.folds) == (200, 5)
    tried = [frozenset(step["layers"]) for step in choice.path]
    assert tried[:4] == [{"noise", "left", "right"}, {"noise"}, {"left"}, {"right"}]
    # each addition, then the best of them on the whole grid
    assert [len(members) for members in tried[4:]] == [2, 2, 2, 3, 3]
    by_members = {frozenset(step["layers"]): step for step in choice.path}
    assert choice.error == by_members[frozenset(choice.layers)]["error"] < 0.15
    assert choice.error <= min(step["error"] for step in choice.path)
    assert json.loads(json.dumps(choice.to_dict())) == choice.to_dict()
    assert choose_layers(layers, labels, protocol) == choice
    names = np.array(["cat", "dog", "emu", "fox"])[labels]
    assert choose_layers(layers, names, protocol).layers == choice.layers
    assert len(choose_layers(layers, labels, protocol, max_layers=1).path) == 4


@pytest.mark.parametrize("protocol", ["linear-svm/v2", "logistic/v1"])
def test_the_errors_of_single_layers_are_those_of_the_protocol(protocol):
    layers, labels = _layers(noise=300)
    choice = choose_layers(layers, labels, protocol, seed=2)
    grid = PROTOCOLS[protocol].settings["grid"][::2]
    for step in choice.path[1:4]:
        (name,) = step["layers"]
        x = layers[name].astype(np.float32)
        alone = galirep.probe((x, labels), (x, labels), protocol=protocol, settings={"grid": grid}, seed=2)
        assert step["error"] == pytest.approx(min(s["error"] for s in alone.validation), abs=1e-9)
        assert step["C"] == alone.C and step["scaling"] == (alone.scaling or "one")


def test_all_layers_stay_where_nothing_smaller_is_as_good():
    random = np.random.default_rng(0)
    labels = np.arange(240) % 2
    layers = {f"l{i}": labels[:, None] * 1.2 + random.normal(size=(240, 1)) for i in range(7)}
    choice = choose_layers(layers, labels, max_layers=2)
    assert choice.layers == tuple(layers) and choice.error == choice.path[0]["error"]


def test_the_rows_are_bounded_and_rare_classes_kept():
    layers, labels = _layers(2000, noise=4)
    labels = np.where(np.arange(2000) < 6, 9, labels)
    choice = choose_layers(layers, labels, max_rows=100, max_layers=1)
    assert 100 <= choice.n_rows <= 106 and choice.folds == 5


def _file(path, seed, n=200):
    layers, labels = _layers(n, seed)
    shapes = tuple((name, x.shape[1]) for name, x in layers.items())
    features = np.concatenate(list(layers.values()), axis=1)
    return write_embeddings(
        path,
        features,
        labels,
        ids=[f"{seed}-{i}" for i in range(n)],
        encoder="test",
        layers=shapes,
        names=("a", "b", "c", "d"),
        fingerprint=str(seed),
    )


def test_probe_and_command_use_the_layers_chosen(cli, tmp_path):
    train, test = _file(tmp_path / "train.h5", 0), _file(tmp_path / "test.h5", 1)
    result = galirep.probe(train, test, choose_layers=True)
    assert result.layers == ["left", "right"] and result.n_features == 6
    layers, labels = _layers()
    assert result.chosen_layers == choose_layers(layers, labels).to_dict()
    assert result.error_mean == galirep.probe(train, test, layers=["left", "right"]).error_mean
    assert result.error_mean < galirep.probe(train, test).error_mean
    done = cli("probe", train, "--test", test, "--choose-layers", "--layers", "noise,left", "--json")
    printed = json.loads(done.stdout)
    assert printed["layers"] == printed["chosen_layers"]["layers"] and set(printed["layers"]) <= {"noise", "left"}
    assert all(set(step["layers"]) <= {"noise", "left"} for step in printed["chosen_layers"]["path"])
    assert "sets tried on 200 training rows; cross-validation error" in done.stderr
    # without TEST, the rows held out for it take no part
    alone = galirep.probe(train, choose_layers=True, protocol="logistic/v1")
    assert alone.chosen_layers["n_rows"] == 160 == alone.n_train
    assert "chosen_layers" not in galirep.probe(train, test, protocol="knn/v1").to_dict()


def test_test_labels_take_no_part(tmp_path):
    train = _file(tmp_path / "train.h5", 0)
    with galirep.load_embeddings(_file(tmp_path / "test.h5", 1)) as test:
        one = galirep.probe(train, test, choose_layers=True)
    layers, labels = _layers(200, 1)
    shapes = tuple((name, x.shape[1]) for name, x in layers.items())
    other = write_embeddings(
        tmp_path / "other.h5",
        -np.concatenate(list(layers.values()), axis=1),
        labels[::-1],
        layers=shapes,
        ids=[f"x{i}" for i in range(200)],
        encoder="test",
        names=("a", "b", "c", "d"),
        fingerprint="x",
    )
    assert galirep.probe(train, other, choose_layers=True).chosen_layers == one.chosen_layers


def test_bad_input(cli, tmp_path):
    layers, labels = _layers(40)
    for protocol in ("knn/v1", "linear-svm/v1", "ali-l2svm/v1"):
        with pytest.raises(ConfigError, match=rf"{protocol} does not choose .* take linear-svm/v2, logistic/v1"):
            choose_layers(layers, labels, protocol)
    for arguments, error, text in [
        ((layers, labels, "svm"), ConfigError, "unknown protocol 'svm'"),
        (({}, labels), DataError, "no layers to choose among"),
        (({"a": layers["left"][:-1]}, labels), DataError, r"layer 'a' must be \(40, D\) for 40 labels, not \(39, 3\)"),
        (({"a": np.full((40, 2), np.nan)}, labels), DataError, "layer 'a' contains NaN"),
        ((layers, np.zeros(40)), DataError, "labels of 1 class"),
        ((layers, np.where(np.arange(40) == 3, 9, labels)), DataError, "1 training row of class '9'"),
    ]:
        with pytest.raises(error, match=text):
            choose_layers(*arguments)
    with pytest.raises(ConfigError, match="max_layers 0 and max_rows 1000 must be 1 or more"):
        choose_layers(layers, labels, max_layers=0)
    with pytest.raises(ConfigError, match="unknown setting of linear-svm/v2 'fold'"):
        choose_layers(layers, labels, settings={"fold": 3})
    with pytest.raises(DataError, match="has one layer, 'features': choosing layers needs two or more"):
        galirep.probe((layers["left"], labels), choose_layers=True)
    refused = cli("probe", _file(tmp_path / "train.h5", 0), "--choose-layers", "--protocol", "knn/v1")
    assert refused.exit_code == 1 and refused.stderr.count("\n") == 1 and "take linear-svm/v2" in refused.stderr
