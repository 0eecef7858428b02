"""Logistic regression in the span of the rows against scikit-learn's on the columns."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from galirep.probing import logistic


def _blobs(n, d, classes, spread=2.0):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    features = rng.normal(size=(classes, d))[labels] + spread * rng.normal(size=(n, d))
    return features - features.mean(0), labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("n", "d"), [(50, 120), (120, 10)], ids=["fewer rows than columns", "more rows than columns"])
def test_the_optimum_is_that_of_the_columns(n, d, classes):
    features, labels = _blobs(n, d, classes)
    assert logistic.prefers_span(n, d) == (n < d)
    for C in (0.01, 0.3):
        model = logistic.fit(features, labels, C)
        expected = LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(features, labels)
        assert model.converged and model.coef.shape == (d + 1, classes)
        coef = expected.coef_.T
        got = model.coef[:-1] if classes > 2 else model.coef[:-1, 1:]
        assert np.linalg.norm(got - coef) <= 0.01 * np.linalg.norm(coef)
        assert np.array_equal(model.predict(features), expected.predict(features))


def test_a_path_is_warm_started_and_says_where_it_did_not_converge(monkeypatch):
    features, labels = _blobs(60, 8, 3)
    for C, model in zip([0.01, 1.0], logistic.fit_path(features, labels, [0.01, 1.0]), strict=True):
        alone = next(logistic.fit_path(features, labels, [C]))
        assert model.C == C and model.converged
        assert np.linalg.norm(model.coef - alone.coef) <= 0.02 * np.linalg.norm(alone.coef)
    monkeypatch.setattr(logistic, "_ITERATIONS", 1)
    assert not logistic.fit(features, labels, 100.0).converged
