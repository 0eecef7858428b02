"""The linear SVM solvers against scikit-learn's LinearSVC, which minimises the same function."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from galirep.probing import linear_svm as svm


def _blobs(n, d, classes, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    return (rng.normal(size=(classes, d))[labels] + spread * rng.normal(size=(n, d))).astype(np.float32), labels


def _objective(model, features, labels, C):
    """Sum 1/2 |w|^2 + C sum max(0, 1 - y w.x)^2 over the classes, spelled out."""
    total = 0.0
    for column, label in enumerate(model.classes):
        w = model.coef[:, column]
        total += 0.5 * sum(v * v for v in w)
        for x, y in zip(features.astype(float), labels, strict=True):
            margin = (1 if y == label else -1) * (x @ w[:-1] + w[-1])
            total += C * max(0.0, 1 - margin) ** 2
    return total


SOLVERS = {"gram": {}, "columns": {"_MAX_GRAM_ROWS": 0}, "lbfgs": {"_MAX_GRAM_ROWS": 0, "_MAX_COLUMN_WORK": 0}}


@pytest.fixture(params=SOLVERS)
def solver(request, monkeypatch):
    """Set the size limits of the solvers so that this one is chosen."""
    for name, value in SOLVERS[request.param].items():
        monkeypatch.setattr(svm, name, value)


@pytest.mark.usefixtures("solver")
@pytest.mark.parametrize(("n", "d"), [(60, 200), (120, 20)], ids=["fewer rows than columns", "more rows than columns"])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0])
def test_the_optimum_is_that_of_linear_svc(n, d, C):
    features, labels = _blobs(n, d, 4, spread=2.0)
    model = svm.fit(features, labels, C)
    assert model.converged
    expected = LinearSVC(C=C, dual=True, tol=1e-8, max_iter=200_000, random_state=0).fit(features.astype(float), labels)
    reference = svm.LinearSVM(expected.classes_, np.vstack([expected.coef_.T, expected.intercept_]), C, True)
    best = _objective(reference, features, labels, C)
    assert best * (1 - 1e-6) <= _objective(model, features, labels, C) <= best * (1 + svm.TOLERANCE)
    assert np.linalg.norm(model.coef - reference.coef) <= 0.01 * np.linalg.norm(reference.coef)


@pytest.mark.usefixtures("solver")
@pytest.mark.parametrize(("n", "d"), [(60, 200), (300, 20)])
def test_a_path_of_C_equals_separate_fits(n, d):
    features, labels = _blobs(n, d, 3)
    grid = [1e-4, 1e-2, 1.0]
    for C, fit in zip(grid, svm.fit_path(features, labels, grid), strict=True):
        alone = svm.fit(features, labels, C)
        assert fit.C == C and fit.converged
        assert np.linalg.norm(fit.coef - alone.coef) <= 0.02 * np.linalg.norm(alone.coef)


def test_extreme_C_converges_to_the_hard_margin():
    features = np.array([[-3.0, 0, 0, 0], [-1, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]])
    labels = np.array(["left", "left", "right", "right"])
    *_, last = svm.fit_path(features, labels, np.exp(np.linspace(-20, 20, 50)))
    assert last.converged
    assert last.coef[:, 1] == pytest.approx([1, 0, 0, 0, 0], abs=1e-4)  # the margin is 1 at x = -1 and x = 1
    assert list(last.predict(features)) == list(labels)


def test_repeated_and_constant_rows_do_no_harm():
    features = np.zeros((40, 60))
    features[20:, 0] = 1
    labels = np.repeat([0, 1], 20)
    for model in svm.fit_path(features, labels, [1e-6, 1.0, 1e8]):
        assert model.converged and np.isfinite(model.coef).all()
    assert (model.predict(features) == labels).all()


def test_a_fit_that_did_not_converge_says_so(monkeypatch):
    features, labels = _blobs(200, 10, 3, spread=2.0)
    monkeypatch.setattr(svm, "_NEWTON_STEPS", 1)
    assert not svm.fit(features, labels, 100.0).converged
    monkeypatch.setattr(svm, "_MAX_COLUMN_WORK", 0)
    assert svm.fit(features, labels, 100.0).converged
    monkeypatch.setattr(svm, "_LBFGS_ITERATIONS", 1)
    assert not svm.fit(features, labels, 100.0).converged
