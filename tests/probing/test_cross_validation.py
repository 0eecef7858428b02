"""Protocols that choose by cross-validation, spelled out with scikit-learn; folds, ties, notes and bad settings."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

import galirep
from galirep.errors import ConfigError, DataError
from galirep.probing import linear_svm
from galirep.probing.cross_validation import Classifier, make_folds, select
from galirep.probing.protocols import PROTOCOLS
from galirep.probing.scaled_rows import SCALINGS, ScaledRows, Scaling


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    features = features.astype(np.float32)
    return (features[:300], labels[:300]), (features[300:900], labels[300:900])


def _scaled(kind, rows, new):
    """Centre and scale `new` by the statistics of `rows`, which get the mean squared length 1."""
    mean, deviation = rows.mean(0, dtype=float), rows.std(0, dtype=float)
    if kind == "columns":
        new = (new - mean) / np.where(deviation > 0, deviation, 1)
        return new / np.sqrt(np.sum(deviation > 0))
    return (new - mean) / np.sqrt(np.sum(deviation**2))


def _reference(protocol, C):
    if protocol == "logistic/v1":
        return LogisticRegression(C=C, tol=1e-6, max_iter=5000)
    return LinearSVC(C=C, dual=False, intercept_scaling=100, tol=1e-7, max_iter=20_000)


@pytest.mark.parametrize("protocol", ["linear-svm/v2", "logistic/v1"])
@pytest.mark.parametrize("wide", [False, True], ids=["columns", "Gram matrix"])
def test_the_protocol_spelled_out(digits, protocol, wide, monkeypatch):
    (x, y), (test_x, test_y) = digits
    if wide:
        # the same inner products on more columns than rows
        mixing = np.random.default_rng(0).normal(size=(64, 400)).astype(np.float32)
        x, test_x = x @ mixing, test_x @ mixing
    else:
        monkeypatch.setattr(linear_svm, "_MAX_GRAM_ROWS", 0)
    settings = {"grid": [1.0, 30.0]}
    result = galirep.probe((x, y), (test_x, test_y), protocol=protocol, settings=settings, seed=4)
    scalings = SCALINGS if protocol == "linear-svm/v2" else ["one"]
    folds = list(StratifiedKFold(5, shuffle=True, random_state=4).split(x, y))
    steps = iter(result.validation)
    for kind in scalings:
        for C in settings["grid"]:
            step = next(steps)
            wrong = 0
            for rows, held in folds:
                model = _reference(protocol, C).fit(_scaled(kind, x[rows], x[rows]), y[rows])
                wrong += np.sum(model.predict(_scaled(kind, x[rows], x[held])) != y[held])
            assert step["C"] == C and step.get("scaling", "one") == kind
            assert step["error"] == pytest.approx(wrong / len(y), abs=2.5 / len(y))
    best = min(result.validation, key=lambda step: step["error"])
    assert (result.C, result.scaling) == (best["C"], best.get("scaling"))
    kind = result.scaling or "one"
    model = _reference(protocol, result.C).fit(_scaled(kind, x, x), y)
    error = np.mean(model.predict(_scaled(kind, x, test_x)) != test_y)
    assert result.error_mean == pytest.approx(error, abs=2.5 / len(test_y)) and result.converged
    assert result.settings["folds"] == 5 and result.protocol == f"{protocol.partition('/')[0]}/custom"


@pytest.mark.parametrize("protocol", ["linear-svm/v2", "logistic/v1"])
@pytest.mark.parametrize("wide", [False, True], ids=["more rows than columns", "fewer rows than columns"])
def test_the_unit_of_the_features_does_not_matter(digits, protocol, wide):
    (x, y), (test_x, test_y) = digits
    if wide:
        x, y = x[:63], y[:63]
    results = [
        galirep.probe((unit * x + 7 * unit, y), (unit * test_x + 7 * unit, test_y), protocol=protocol)
        for unit in (1.0, 1e3, 1e-3)
    ]
    assert {result.C for result in results} == {results[0].C} and results[0].error_mean < 0.4
    assert all(result.errors == pytest.approx(results[0].errors, abs=2 / len(test_y)) for result in results)


def test_a_scaling_takes_nothing_from_other_rows():
    random = np.random.default_rng(0)
    x = (random.normal(size=(30, 5)) * [1, 2, 3, 0, 0] + [0, 1, 2, 0, 7]).astype(np.float32)
    rows = np.arange(20)
    for kind in SCALINGS:
        scaled = ScaledRows({"a": x[:, :3], "b": x[:, 3:]}).columns(["a", "b"], kind, rows)
        np.testing.assert_allclose(scaled, _scaled(kind, x[rows], x), atol=1e-12)
        assert np.mean(np.sum(scaled[rows] ** 2, axis=1)) == pytest.approx(1)
        changed = np.where(np.arange(30)[:, None] < 20, x, 100 * x)
        again = ScaledRows({"a": changed[:, :3], "b": changed[:, 3:]}).columns(["a", "b"], kind, rows)
        np.testing.assert_array_equal(again[rows], scaled[rows])
    assert Scaling.fit(np.full((4, 2), 5.0), "columns").apply(np.full((4, 2), 5.0)) == pytest.approx(0)


@pytest.mark.parametrize("keep", [False, True])
def test_inner_products_of_layers_add_up(keep):
    random = np.random.default_rng(0)
    layers = {"a": random.normal(size=(12, 30)), "b": 5 + 3 * random.normal(size=(12, 7))}
    scaled = ScaledRows(layers, keep)
    whole = ScaledRows({"all": np.concatenate([layers["b"], layers["a"]], axis=1)})
    for rows in (np.arange(9), np.arange(3, 12), np.arange(9)):
        for kind in SCALINGS:
            columns = whole.columns(["all"], kind, rows)
            gram = scaled.gram(["b", "a"], kind, rows)
            # up to the origin
            centring = np.eye(12) - 1 / 12
            np.testing.assert_allclose(
                centring @ gram @ centring, centring @ columns @ columns.T @ centring, atol=1e-12
            )
        spanned = scaled.span(["b", "a"], rows)
        np.testing.assert_allclose(spanned @ spanned.T, scaled.gram(["b", "a"], "one", rows), atol=1e-12)


def test_each_class_is_in_each_fold():
    labels = np.repeat([0, 1, 2], [50, 7, 5])
    folds = make_folds(labels, 5, 0, str, "rows")
    assert len(folds) == 5 and sorted(np.concatenate([held for _, held in folds])) == list(range(62))
    for rows, held in folds:
        assert set(labels[rows]) == set(labels[held]) == {0, 1, 2} and not set(rows) & set(held)
    assert [list(held) for _, held in make_folds(labels, 5, 1, str, "rows")] != [list(held) for _, held in folds]


def _blobs(n=90, classes=3, spread=0.1, d=6):
    labels = np.arange(n) % classes
    return 3 * np.eye(classes, d)[labels] + spread * np.random.default_rng(0).normal(size=(n, d)), labels


def test_a_rare_class_lowers_the_number_of_folds():
    x, y = _blobs()
    rare = np.where(np.isin(np.arange(90), [4, 7, 10]), 3, y)
    for protocol in ("linear-svm/v2", "logistic/v1"):
        result = galirep.probe((x, rare), (x, rare), protocol=protocol)
        assert result.settings["folds"] == 3 and result.protocol == protocol
        assert "3 folds instead of 5: the rarest class has 3 training rows" in result.notes
        lone = np.where(np.arange(90) == 4, 3, y)
        with pytest.raises(DataError, match=r"has 1 training row of class '3'.*2 or more.*--min-per-class N") as raised:
            galirep.probe((x, lone), (x, lone), protocol=protocol)
        assert "\n" not in str(raised.value)
        assert galirep.probe((x, lone), (x, lone), protocol=protocol, min_per_class=2).n_classes == 3


def _stub(errors):
    """Return a classifier whose number of wrong answers in a fold is given by scaling and C."""

    def fold_path(rows, names, scaling, labels, fold, grid):
        for C in grid:
            yield errors[scaling][C], True

    return Classifier(fold_path, None)


@pytest.mark.parametrize(
    ("wrong", "scaling", "C", "end"),
    [
        ({1: 5, 2: 3, 3: 4, 4: 5}, "columns", 2, ""),
        ({1: 3, 2: 4, 3: 5, 4: 6}, "columns", 1, "smallest"),
        ({1: 6, 2: 5, 3: 4, 4: 3}, "columns", 4, "largest"),
        ({1: 9, 2: 3, 3: 3, 4: 3}, "columns", 3, ""),
        ({1: 3, 2: 3, 3: 9, 4: 9}, "columns", 1, "smallest"),
        ({1: 9, 2: 9, 3: 9, 4: 9}, "one", 2, ""),
    ],
)
def test_the_choice_of_C_and_scaling(wrong, scaling, C, end):
    other = {1: 9, 2: 8, 3: 9, 4: 9}
    folds = [(np.arange(5, 10), np.arange(5)), (np.arange(5), np.arange(5, 10))]
    chosen = select(_stub({"columns": wrong, "one": other}), None, ["x"], np.zeros(40), folds, SCALINGS, [3, 1, 2, 4])
    assert (chosen.scaling, chosen.C, chosen.end) == (scaling, C, end)
    assert chosen.error == 2 * min([*wrong.values(), *other.values()]) / 40
    assert bool(chosen.notes) == bool(end) and all(f"is the {end} of its grid" in note for note in chosen.notes)


def test_the_search_stops_three_steps_past_the_best():
    wrong = {C: abs(C - 2) for C in range(1, 12)}
    chosen = select(_stub({"one": wrong}), None, ["x"], np.zeros(40), [(None, None)], ["one"], list(wrong))
    assert [step["C"] for step in chosen.steps] == [1, 2, 3, 4, 5] and chosen.C == 2


def test_a_chosen_C_at_the_end_of_the_grid_is_noted():
    x, y = _blobs(spread=3.0)
    result = galirep.probe((x, y), (x, y), settings={"grid": [1e-3]})
    assert any("the chosen C, 0.001, is the smallest of its grid" in note for note in result.notes)
    assert galirep.probe(_blobs(), _blobs()).C not in (1e-3, 1e5)


@pytest.mark.parametrize(
    ("protocol", "settings", "text"),
    [
        ("linear-svm/v2", {"scalings": ["rows"]}, r"scalings=\['rows'\] does not fit linear-svm/v2"),
        ("linear-svm/v2", {"scalings": []}, "scalings="),
        ("linear-svm/v2", {"scalings": "one"}, "scalings='one'"),
        (
            "linear-svm/v2",
            {"folds": 1},
            "folds=1 does not fit linear-svm/v2: it is a whole number, 2 or more, written like folds=5",
        ),
        ("logistic/v1", {"folds": 2.5}, "folds=2.5"),
        ("logistic/v1", {"scalings": ["one"]}, "unknown setting of logistic/v1 'scalings'"),
        ("logistic/v1", {"grid": [0.0]}, "grid="),
    ],
)
def test_bad_settings(protocol, settings, text):
    with pytest.raises(ConfigError, match=text):
        galirep.probe(_blobs(), protocol=protocol, settings=settings)


def test_one_scaling_alone():
    result = galirep.probe(_blobs(spread=2.0), protocol="linear-svm/v2", settings={"scalings": ["one"]})
    assert {step["scaling"] for step in result.validation} == {result.scaling} == {"one"}
    assert "scaling" not in galirep.probe(_blobs(), protocol="logistic/v1").to_dict()
    assert PROTOCOLS["logistic/v1"].settings.keys() == {"grid", "folds"}
