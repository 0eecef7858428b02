"""The linear SVM solvers against scikit-learn's LinearSVC, which minimises the same function."""

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from sklearn.svm import LinearSVC

from galirep.probing import linear_svm as svm
from galirep.probing.free_intercept import best_intercept
from galirep.probing.linear_classifier import LinearClassifier


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
    reference = LinearClassifier(expected.classes_, np.vstack([expected.coef_.T, expected.intercept_]), C, True)
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


def _free_optimum(features, sign, C):
    """Minimise 1/2 |w|^2 + C sum max(0, 1 - y (w.x + b))^2 by scipy; return (w, b) and the value."""

    def objective(v):
        slack = np.maximum(1 - sign * (features @ v[:-1] + v[-1]), 0)
        gradient = np.r_[v[:-1] - 2 * C * features.T @ (sign * slack), -2 * C * np.sum(sign * slack)]
        return v[:-1] @ v[:-1] / 2 + C * slack @ slack, gradient

    found = minimize(
        objective, np.zeros(features.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000}
    )
    return found.x, objective


@pytest.mark.usefixtures("solver")
@pytest.mark.parametrize(("n", "d"), [(40, 60), (120, 8)], ids=["fewer rows than columns", "more rows than columns"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0])
def test_a_free_intercept_is_not_regularised(n, d, classes, C):
    features, labels = _blobs(n, d, classes, spread=2.0)
    features = features.astype(float) + 3  # so that the intercept matters
    model = svm.fit(features, labels, C, free_intercept=True)
    assert model.converged and model.coef.shape == (d + 1, classes)
    for column, label in enumerate(model.classes):
        optimum, objective = _free_optimum(features, np.where(labels == label, 1.0, -1.0), C)
        best = objective(optimum)[0]
        assert best * (1 - 1e-6) <= objective(model.coef[:, column])[0] <= best * (1 + svm.TOLERANCE)
        # F is 1-strongly convex in w
        assert np.linalg.norm(model.coef[:-1, column] - optimum[:-1]) ** 2 <= 2.2 * svm.TOLERANCE * best
    # LinearSVC's intercept is nearly free where its column is large
    nearly = LinearSVC(C=C, dual=True, intercept_scaling=300, tol=1e-6, max_iter=100_000, random_state=0)
    if C == 1e-2 and n < d:
        nearly.fit(features - features.mean(0), labels)
        expected = nearly.coef_[-1]
        assert np.linalg.norm(model.coef[:-1, -1] - expected) <= 0.02 * np.linalg.norm(expected)


@pytest.mark.usefixtures("solver")
def test_with_a_free_intercept_the_origin_does_not_matter():
    features, labels = _blobs(80, 30, 3, spread=2.0)
    here, there = (svm.fit(features + shift, labels, 0.1, free_intercept=True) for shift in (0.0, 50.0))
    assert np.linalg.norm(here.coef[:-1] - there.coef[:-1]) <= 0.01 * np.linalg.norm(here.coef[:-1])
    assert np.array_equal(here.predict(features), there.predict(features + np.float32(50)))


def test_a_path_on_the_gram_matrix_is_that_on_the_rows():
    features, labels = _blobs(90, 200, 4, spread=2.0)
    train, held = features[:70].astype(float), features[70:].astype(float)
    grid = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 100.0]
    on_rows = svm.fit_path(train, labels[:70], grid, free_intercept=True)
    on_gram = svm.fit_gram_path(train @ train.T, labels[:70], grid)
    for rows, gram in zip(on_rows, on_gram, strict=True):
        assert rows.converged and gram.converged and rows.C == gram.C
        coef = train.T @ gram.coef[:-1]
        assert np.linalg.norm(coef - rows.coef[:-1]) <= 0.02 * np.linalg.norm(coef)
        assert np.array_equal(gram.predict(held @ train.T), rows.predict(held))


def test_the_best_intercept_is_the_minimum():
    random = np.random.default_rng(0)
    for n in (2, 3, 10, 50):
        signs = np.where(random.random((n, 6)) < 0.4, 1.0, -1.0)
        signs[0], signs[1] = 1, -1
        scores = random.normal(size=(n, 6)) * random.choice([0.1, 1, 10], 6)
        for column, b in enumerate(best_intercept(scores, signs)):

            def loss(b, s=scores[:, column], y=signs[:, column]):
                return np.sum(np.maximum(1 - y * (s + b), 0) ** 2)

            assert loss(b) <= minimize_scalar(loss, bounds=(-60, 60), method="bounded").fun + 1e-8
    # no row has a loss between the two classes
    assert -4 <= best_intercept(np.array([[5.0], [-7.0]]), np.array([[1.0], [-1.0]]))[0] <= 6
    # all scores equal: the mean of the signs
    assert best_intercept(np.zeros((4, 1)), np.array([[1.0], [-1], [-1], [-1]])) == pytest.approx([-0.5])


def test_extreme_C_converges_to_the_hard_margin():
    features = np.array([[-3.0, 0, 0, 0], [-1, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]])
    labels = np.array(["left", "left", "right", "right"])
    *_, last = svm.fit_path(features, labels, np.exp(np.linspace(-20, 20, 50)))
    assert last.converged
    assert last.coef[:, 1] == pytest.approx([1, 0, 0, 0, 0], abs=1e-4)  # the margin is 1 at x = -1 and x = 1
    assert list(last.predict(features)) == list(labels)
    *_, free = svm.fit_path(features + 5, labels, np.exp(np.linspace(-20, 20, 50)), free_intercept=True)
    assert free.converged and free.coef[:, 1] == pytest.approx([1, 0, 0, 0, -5], abs=1e-4)


def test_repeated_and_constant_rows_do_no_harm():
    features = np.zeros((40, 60))
    features[20:, 0] = 1
    labels = np.repeat([0, 1], 20)
    for free in (False, True):
        for model in svm.fit_path(features, labels, [1e-6, 1.0, 1e8], free):
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
