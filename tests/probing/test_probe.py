"""The probe protocols against scikit-learn spelled out, closed forms, and bad input."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from toy_galleries import write_embeddings

import galirep
from galirep.errors import ConfigError, DataError
from galirep.probing.protocols import PROTOCOLS, Outcome, Protocol

KEYS = {
    "protocol",
    "n_train",
    "n_test",
    "n_classes",
    "layers",
    "C",
    "error_mean",
    "error_std",
    "errors",
    "baseline",
    "baseline_error",
}


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    features = features.astype(np.float32)
    return (features[:1000], labels[:1000]), (features[1000:], labels[1000:])


def _write(path, features, labels, names=("a", "b", "c"), **meta):
    """Write an embedding file with the layers `first` (the leading columns) and `last` (two columns)."""
    features = np.asarray(features)
    settings = {
        "encoder": "test",
        "layers": (("first", features.shape[1] - 2), ("last", 2)),
        "names": names,
        "fingerprint": "",
        **meta,
    }
    return write_embeddings(path, features, labels, ids=[f"image{i}" for i in range(len(features))], **settings)


def _blobs(n=90, d=6, classes=3, seed=0, spread=0.1):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return 3 * np.eye(classes, d)[labels] + spread * random.normal(size=(n, d)), labels


def test_linear_svm_is_standard_scaler_and_linear_svc(digits):
    (x, y), (test_x, test_y) = digits
    result = galirep.probe((x, y), (test_x, test_y), protocol="linear-svm/v1", seed=3)
    rows, held = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=3)
    rows, held = np.sort(rows), np.sort(held)

    def model(C, x, y):
        scaler = StandardScaler().fit(x)
        svm = LinearSVC(C=C, dual=False, tol=1e-6, max_iter=10_000).fit(scaler.transform(x), y)
        return lambda new: svm.predict(scaler.transform(new))

    assert [step["C"] for step in result.validation] == PROTOCOLS["linear-svm/v1"].settings["grid"][
        : len(result.validation)
    ]
    for step in result.validation:
        assert step["error"] == pytest.approx(
            np.mean(model(step["C"], x[rows], y[rows])(x[held]) != y[held]), abs=1.5 / len(held)
        )
    assert min(result.validation, key=lambda step: step["error"])["C"] == result.C
    assert result.errors == [pytest.approx(np.mean(model(result.C, x, y)(test_x) != test_y), abs=1.5 / len(test_y))]
    assert (result.n_train, result.n_test, result.n_classes, result.n_features) == (1000, 797, 10, 64)
    assert result.converged and result.notes == [] and result.error_std is None
    assert result.baseline_error == np.mean(test_y != np.bincount(y).argmax())


def test_linear_svm_stops_two_steps_past_the_best_C():
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = np.concatenate([labels[:, None] + random.normal(size=(200, 1)), random.normal(size=(200, 150))], axis=1)
    errors = [step["error"] for step in galirep.probe((features, labels), protocol="linear-svm/v1", seed=1).validation]
    best = errors.index(min(errors))
    assert len(errors) == 6 or (len(errors) > best + 2 and min(errors[-2:]) > errors[best])


def test_knn_is_a_weighted_vote_by_cosine(digits):
    (x, y), (test_x, test_y) = digits
    result = galirep.probe((x, y), (test_x, test_y), protocol="knn/v1")
    assert set(result.errors_by_k) == {"1", "5", "20", "200"}
    for k, error in result.errors_by_k.items():
        reference = KNeighborsClassifier(
            int(k), metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
        ).fit(x, y)
        assert error == pytest.approx(1 - reference.score(test_x, test_y), abs=1.5 / len(test_y))
    assert result.error_mean == result.errors_by_k["20"] and result.C is None


def test_knn_without_enough_rows_says_so_by_k():
    result = galirep.probe(_blobs(60), _blobs(30, seed=1), protocol="knn/v1")
    assert result.errors_by_k == {"1": 0.0, "5": 0.0, "20": 0.0, "200": None}


def test_ali_protocol_draws_labels_and_averages(digits):
    (x, y), test = digits
    small = {"labels_per_class": 10, "held_out": 300, "selection_draws": 2, "draws": 5, "grid": [1e-6, 1e-4, 1e-2]}
    result = galirep.probe((x, y), test, protocol="ali-l2svm/v1", settings=small)
    assert result.protocol == "ali-l2svm/custom" and result.settings == small
    assert len(result.errors) == 5 and len(set(result.errors)) > 1
    assert result.error_mean == pytest.approx(sum(result.errors) / 5)
    assert result.error_std == pytest.approx(math.sqrt(sum((e - result.error_mean) ** 2 for e in result.errors) / 4))
    assert min(result.validation, key=lambda step: step["error"])["C"] == result.C
    assert result.error_mean < 0.2 < result.baseline_error
    repeated = galirep.probe((x, y), test, protocol="ali-l2svm/v1", settings=small)
    assert repeated.errors == result.errors
    assert galirep.probe((x, y), test, protocol="ali-l2svm/v1", settings=small, seed=1).errors != result.errors


def test_the_standard_protocols_are_there():
    assert {"linear-svm/v1", "linear-svm/v2", "logistic/v1", "ali-l2svm/v1", "knn/v1"} <= set(PROTOCOLS)
    assert all(name.count("/") == 1 and protocol.about for name, protocol in PROTOCOLS.items())


def test_ali_v1_is_what_it_says():
    settings = PROTOCOLS["ali-l2svm/v1"].settings
    assert (settings["labels_per_class"], settings["held_out"], settings["selection_draws"], settings["draws"]) == (
        100,
        10_000,
        10,
        100,
    )
    assert settings["grid"] == pytest.approx([math.exp(-20 + 40 * i / 49) for i in range(50)])
    assert json.loads(json.dumps(dict(settings))) == settings


def test_separable_classes_have_no_error_whatever_the_numbering(tmp_path):
    x, y = _blobs()
    train = _write(tmp_path / "train.h5", x, y)
    test = _write(tmp_path / "test.h5", _blobs(seed=1)[0], np.array([2, 0, 1])[y], names=("b", "c", "a"), source="x")
    result = galirep.probe(train, str(test))
    assert result.error_mean == 0 and result.layers == ["first", "last"] and result.notes == []
    assert result.baseline_error == pytest.approx(2 / 3) and "'a'" in result.baseline


def test_layers_choose_columns(tmp_path):
    x, y = _blobs()
    path = _write(tmp_path / "train.h5", x, y)
    assert galirep.probe(path, layers=["first"]).error_mean == 0
    blind = galirep.probe(path, layers=["last"])
    assert blind.n_features == 2 and blind.error_mean > 0.3
    with galirep.load_embeddings(path) as opened:
        assert galirep.probe(opened, layers=["first"]).layers == ["first"]


def test_without_test_a_fifth_is_kept_by_class():
    result = galirep.probe(_blobs(100, classes=2))
    assert (result.n_train, result.n_test) == (80, 20) and result.test == "20% of TRAIN (arrays), drawn by class"


def test_what_a_reader_should_know_is_noted(tmp_path):
    x, y = _blobs()
    train = _write(tmp_path / "train.h5", x, np.where(np.arange(len(y)) < 4, -1, y), fingerprint="ab")
    test = _write(tmp_path / "test.h5", x, np.where(y == 2, 3, y), names=("a", "b", "c", "d"), fingerprint="ab")
    result = galirep.probe(train, test)
    notes = "\n".join(result.notes)
    assert "4 of 90 rows of TRAIN have no label" in notes and result.n_train == 86
    assert (
        "30 rows of TEST are of classes that TRAIN does not have (d)" in notes
        and result.error_mean == pytest.approx(1 / 3)
    )
    assert "same images" in notes


def _twelve(seed):
    return _blobs(240, 14, 12, seed)


def test_folders_called_by_numbers_are_probed_on_numbers(tmp_path):
    """Trained on class folders 1 to 12, which are numbered as text, and tested on a list with labels 1 to 12."""
    x, y = _twelve(0)
    folders = tuple(sorted(str(k) for k in range(1, 13)))
    train = _write(tmp_path / "train.h5", x, [folders.index(str(k + 1)) for k in y], names=folders)
    test_x, test_y = _twelve(1)
    test = _write(tmp_path / "test.h5", test_x, test_y + 1, names=(), source="list")
    for result in (galirep.probe(train, test), galirep.probe(test, train)):
        assert result.error_mean == 0 and result.n_classes == 12 and result.notes == []
    words = _write(tmp_path / "words.h5", test_x, test_y, names=tuple("abcdefghijkl"), source="other")
    for pair in ((train, words), (words, train)):
        with pytest.raises(
            DataError, match=r"no class is in both: .*\.h5 has '1', '10', .*Classes are matched by name"
        ):
            galirep.probe(*pair)
    for pair in ((test, words), (words, test)):
        with pytest.raises(
            DataError, match=r"the labels of .*test\.h5 are numbers without names, but classes of .*Give"
        ):
            galirep.probe(*pair)


def test_names_are_compared_as_a_reader_sees_them(tmp_path):
    x, y = _blobs()
    train = _write(tmp_path / "train.h5", x, y, names=("caf\u00e9", "tea", "Milk"))
    test_x = _blobs(seed=1)[0]
    test = _write(tmp_path / "test.h5", test_x, y, names=("cafe\u0301", "tea ", "milk"), source="other")
    result = galirep.probe(train, test)
    assert result.error_mean == pytest.approx(1 / 3)
    assert result.notes == [
        "30 rows of TEST are of classes that TRAIN does not have (milk): each counts as an error; "
        "TRAIN has them in another case: 'milk'"
    ]


def test_pictures_on_both_sides_are_noted(tmp_path):
    x, y = _blobs()
    other_x, _ = _blobs(seed=1)
    train = _write(tmp_path / "train.h5", x, y, source="set", split="train")
    mixed = np.concatenate([other_x[:80], x[7:17]])
    test = _write(tmp_path / "test.h5", mixed, np.concatenate([y[:80], y[7:17]]), source="set", split="test")
    notes = galirep.probe(train, test).notes
    assert notes == [
        "pictures that may be on both sides: 10 of 90 rows of TEST have the vector of a row of TRAIN "
        "('image80' and 'image7'): the error on pictures that the probe was not fitted on may be higher"
    ]
    assert "10 of 90 rows of TEST have the vector" in galirep.probe((x, y), (mixed, np.r_[y[:80], y[7:17]])).notes[0]
    # ids of one split of one set are the same pictures, those of two splits are not
    again = _write(tmp_path / "again.h5", other_x, y, source="set", split="train")
    (note,) = galirep.probe(train, again).notes
    assert "90 of 90 ids of TEST are in TRAIN too ('image0'), with other vectors" in note
    assert galirep.probe(train, _write(tmp_path / "t.h5", other_x, y, source="set", split="test")).notes == []
    # without TEST, too
    (note,) = galirep.probe((np.repeat(x, 2, axis=0), np.repeat(y, 2))).notes
    assert "rows of the held-out part of TRAIN have the vector of a row of the other rows" in note


def test_rare_classes_are_left_out_on_both_sides(cli, tmp_path):
    x, y = _blobs()
    labels = np.where(np.arange(90) == 5, 3, y)
    names = ("a", "b", "c", "lone", "unseen")
    train = _write(tmp_path / "train.h5", x, labels, names=names, source="set", split="train")
    test_labels = np.where(np.arange(90) < 2, 3, np.where(np.arange(90) < 5, 4, y))
    test = _write(tmp_path / "test.h5", _blobs(seed=1)[0], test_labels, names=names, source="set", split="test")
    refused = cli("probe", train)
    assert refused.exit_code == 1 and refused.stderr.count("\n") == 1
    assert "1 of class 'lone'" in refused.stderr and "--min-per-class N (min_per_class=N) leaves out" in refused.stderr
    done = cli("probe", train, "--test", test, "--min-per-class", 2, "--json")
    result = json.loads(done.stdout)
    assert (result["n_train"], result["n_test"], result["n_classes"]) == (89, 85, 3) and result["min_per_class"] == 2
    assert result["error_mean"] == 0 and result["notes"] == [
        "classes with fewer than 2 rows in TRAIN are left out: 'unseen' (0), 'lone' (1); "
        "1 rows of TRAIN and 5 of TEST with them"
    ]
    assert result["notes"][0] in done.stderr
    alone = galirep.probe(train, min_per_class=2)
    assert alone.n_train + alone.n_test == 89
    assert alone.notes == [
        "classes with fewer than 2 rows in TRAIN are left out: 'lone' (1); 1 rows of TRAIN with them"
    ]
    with pytest.raises(DataError, match="0 of 4 classes have 50 rows or more"):
        galirep.probe(train, min_per_class=50)
    with pytest.raises(ConfigError, match="min_per_class must be at least 1, not 0"):
        galirep.probe(train, min_per_class=0)
    assert "min_per_class" not in galirep.probe((x, y)).to_dict()


def test_labels_of_arrays_are_read_as_those_of_files():
    x, y = _blobs()
    for labels in (y.astype(float), [str(k) for k in y], [["a", "b", "c"][k] for k in y]):
        assert galirep.probe((x, labels)).error_mean == 0
    none = np.array(["cat", "dog", None], dtype=object)[y]
    result = galirep.probe((x, none))
    assert result.n_classes == 2 and result.notes[0] == "30 of 90 rows of TRAIN have no label and are left out"


def test_names_as_labels():
    x, y = _blobs()
    names = np.array(["cat", "dog", "emu"])[y]
    result = galirep.probe((x, names), (x[names != "cat"], names[names != "cat"]))
    assert result.error_mean == 0 and result.n_classes == 3


def test_the_result_reads_like_the_dict_of_version_0_1():
    result = galirep.probe(_blobs(), protocol="knn/v1")
    values = result.to_dict()
    assert list(result) == list(result.keys()) == list(values) and len(result) == len(values) and dict(result) == values
    assert result["error_mean"] == result.error_mean and result.get("errors_by_k") == result.errors_by_k
    # optional keys only where the protocol has them
    assert "errors_by_k" in result and "validation" not in result and result.validation is None
    assert result.get("validation", []) == []
    with pytest.raises(KeyError, match="validation"):
        result["validation"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.error_mean = 0.0


def test_the_json_object_has_its_keys_in_order():
    head = ["protocol", "settings", "seed", "train", "test", "encoder", "layers", "n_train", "n_test", "n_classes"]
    errors = ["error_mean", "error_std", "error_stderr", "errors", "baseline_error", "baseline", "converged"]
    values = galirep.probe(_blobs()).to_dict()
    assert list(values) == [*head, "n_features", "C", *errors, "validation", "notes", "seconds", "scaling"]
    assert json.loads(json.dumps(values)) == values


def test_a_new_protocol_is_a_function_and_an_entry(cli, tmp_path, monkeypatch):
    """Nothing outside galirep.probing has to know of it."""

    def guess(task):
        return Outcome([task.error(np.full(len(task.test.labels), task.settings["answer"]))])

    added = {**PROTOCOLS, "guess/v1": Protocol("always the same answer", {"answer": 1}, guess)}
    monkeypatch.setattr("galirep.probing.protocols.PROTOCOLS", added)
    monkeypatch.setattr("galirep.probing.probe.PROTOCOLS", added)
    assert "guess/v1" in cli("list", "protocols").stdout
    done = cli(
        "probe", _write(tmp_path / "train.h5", *_blobs()), "--protocol", "guess/v1", "--set", "answer=2", "--json"
    )
    printed = json.loads(done.stdout)
    assert printed["protocol"] == "guess/custom" and printed["error_mean"] == pytest.approx(2 / 3)
    assert "validation" not in printed and "errors_by_k" not in printed


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x, y: (x, np.zeros_like(y)), "one class only, '0'"),
        (lambda x, y: (x, np.full_like(y, -1)), "no labels"),
        (
            lambda x, y: (np.where(np.arange(90)[:, None] == 7, np.nan, x), y),
            "1 of 90 rows of features contain NaN or infinity, the first is row 7",
        ),
        (lambda x, y: (x, y[:-1]), r"features \(N, D\) and labels \(N,\), not \(90, 6\) and \(89,\)"),
        (lambda x, y: (x, y + 0.5), "whole numbers or names"),
        (lambda x, y: (x[:4], y[:4]), "too few to hold out 20% of each class"),
        (lambda x, y: (x, np.where(np.arange(len(y)) == 5, 9, y)), "1 of class '9'"),
    ],
)
def test_bad_arrays(change, text):
    with pytest.raises(DataError, match=text):
        galirep.probe(change(*_blobs()))


def test_different_encoders_list_what_differs(tmp_path):
    x, y = _blobs()
    train = _write(tmp_path / "train.h5", x, y, encoder_sha256="12ab")
    test = _write(tmp_path / "test.h5", x[:, 1:], y, encoder_sha256="34cd")
    with pytest.raises(
        DataError, match=r"encoder_sha256 '12ab' is not '34cd'; layers \{'first': 4, .* are not \{'first': 3"
    ):
        galirep.probe(train, test)
    assert galirep.probe(train, _write(tmp_path / "same.h5", x, y, encoder_sha256="12ab")).error_mean == 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"protocol": "linear-svm"}, ConfigError, "unknown protocol 'linear-svm': did you mean 'linear-svm/v"),
        ({"protocol": "knn/v1", "settings": {"neighbours": 3}}, ConfigError, "unknown setting of knn/v1 'neighbours'"),
        ({"protocol": "knn/v1", "settings": {"k": [1.5]}}, ConfigError, r"k=\[1.5\] does not fit knn/v1"),
        ({"protocol": "knn/v1", "settings": {"k": [3]}}, ConfigError, r"headline_k=20 is not one of k=\[3\]"),
        (
            {"protocol": "knn/v1", "settings": {"k": [500], "headline_k": 500}},
            DataError,
            "has 72 rows, fewer than the 500 neighbours that vote",
        ),
        ({"settings": {"grid": []}}, ConfigError, "grid="),
        ({"protocol": "linear-svm/v1", "settings": {"validation_fraction": 1}}, ConfigError, "validation_fraction=1"),
        (
            {"protocol": "ali-l2svm/v1"},
            DataError,
            "of 72 rows, 10000 are held out to choose C; class '0' has 0 of the others",
        ),
        ({"layers": ["mu"]}, DataError, "a pair of arrays, which has no layers"),
    ],
)
def test_bad_settings(arguments, error, text):
    with pytest.raises(error, match=text):
        galirep.probe(_blobs(), **arguments)


def test_the_command_prints_and_writes_the_result(cli, tmp_path):
    x, y = _blobs()
    train, test = _write(tmp_path / "train.h5", x, y), _write(tmp_path / "test.h5", x[:30], y[:30])
    out = tmp_path / "probe.json"
    result = cli("probe", train, "--test", test, "--layers", "first", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed == json.loads(out.read_text()) and printed.keys() >= KEYS
    assert "error     0.00 %" in result.stderr
    second = cli("probe", train, "--test", test, "--out", out)
    assert second.exit_code == 1 and "exists" in second.stderr
    knn = cli("probe", train, "--protocol", "knn/v1", "--set", "k=[1, 3]", "--set", "headline_k=3")
    assert knn.exit_code == 0 and "knn/custom" in knn.stdout and "by k      1: 0.00 %, 3: 0.00 %" in knn.stdout


def test_the_command_refuses_bad_input_in_one_line(cli, tmp_path):
    x, y = _blobs()
    train = _write(tmp_path / "train.h5", x, y)
    Path(tmp_path / "other.h5").write_bytes(b"not HDF5")
    for arguments, text in [
        ((train, "--layers", "firts"), "did you mean 'first'?"),
        ((train, "--set", "grid"), "KEY=VALUE"),
        ((train, "--set", "grid=[1"), "grid='[1' does not fit linear-svm/v2"),
        ((train, "--test", tmp_path / "other.h5"), "not an HDF5 file"),
        ((tmp_path / "missing.h5",), "no such file"),
        ((train, "--protocol", "svm"), "unknown protocol 'svm'"),
        ((train, "--out", tmp_path / "nowhere" / "x.json"), "does not exist"),
    ]:
        result = cli("probe", *arguments)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1 and text in result.stderr, (
            arguments,
            result.stderr,
        )
