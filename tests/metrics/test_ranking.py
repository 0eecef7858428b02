"""Metrics of a ranking, against loops over their definitions."""

import math

import numpy as np
import pytest

from galirep.metrics import ranking


def _cases(seed):
    r = np.random.default_rng(seed)
    gallery = r.integers(-1, 6, 40)
    queries = r.integers(-1, 8, 25)  # classes 6 and 7 have no rows in the gallery
    order = np.stack([r.permutation(40) for _ in queries])
    return gallery, queries, order


def _spelled_out(gallery, label, order, k):
    """Return (P@1, R@k, RR@k, AP@R) of one query from a ranking of the gallery; None if it has no relevant row."""
    relevant = sum(1 for other in gallery if other == label and label >= 0)
    if relevant == 0:
        return None
    ranked = [bool(gallery[row] == label) for row in order]
    reciprocal = next((1 / rank for rank, hit in enumerate(ranked[:k], 1) if hit), 0.0)
    precisions = [sum(ranked[:i]) / i for i in range(1, relevant + 1) if ranked[i - 1]]
    return float(ranked[0]), float(any(ranked[:k])), reciprocal, sum(precisions) / relevant


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 7])
def test_measures_are_what_their_definitions_say(seed, k):
    gallery, queries, order = _cases(seed)
    relevant = ranking.relevant(queries, gallery, leave_one_out=False)
    hits = ranking.hits(order[:, :k], queries, gallery)
    deep = ranking.hits(order, queries, gallery)
    got = np.stack(
        [
            ranking.precision_at_1(hits, relevant),
            ranking.recall_at_k(hits, relevant, k),
            ranking.reciprocal_rank(hits, relevant, k),
            ranking.average_precision_at_r(deep, relevant),
        ],
        axis=1,
    )
    seen = 0
    for i, label in enumerate(queries):
        expected = _spelled_out(gallery.tolist(), int(label), order[i].tolist(), k)
        if expected is None:
            assert np.isnan(got[i]).all() and relevant[i] == 0
        else:
            np.testing.assert_allclose(got[i], expected, atol=1e-12)
            seen += 1
    assert 0 < seen < len(queries)


def test_map_at_r_of_the_example_in_the_paper_of_musgrave():
    # R = 10, of which one is found, first: R-precision 0.1 and MAP@R 0.1; all ten found: 1
    hits = np.zeros((2, 10), bool)
    hits[0, 0] = hits[1] = True
    np.testing.assert_allclose(ranking.average_precision_at_r(hits, np.array([10, 10])), [0.1, 1.0])


def test_map_at_r_looks_at_r_neighbours_of_each_query_and_refuses_fewer():
    hits = np.array([[False, True, True]])
    assert ranking.average_precision_at_r(hits, np.array([2]))[0] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="needs 4 neighbours"):
        ranking.average_precision_at_r(hits, np.array([4]))


def test_leave_one_out_counts_the_query_itself_off():
    labels = np.array([0, 0, 1, -1])
    assert ranking.relevant(labels, labels, leave_one_out=True).tolist() == [1, 1, 0, 0]
    assert ranking.relevant(labels, labels, leave_one_out=False).tolist() == [2, 2, 1, 0]
    assert ranking.relevant(labels, np.array([-1, -1]), leave_one_out=False).tolist() == [0, 0, 0, 0]


def test_rows_without_a_label_and_missing_neighbours_never_hit():
    gallery = np.array([-1, 3, 3])
    assert ranking.hits(np.array([[0, 1, -1]]), np.array([3]), gallery).tolist() == [[False, True, False]]
    assert not ranking.hits(np.array([[0, 1, 2]]), np.array([-1]), gallery).any()


def test_a_query_without_a_hit_has_reciprocal_rank_zero():
    assert ranking.reciprocal_rank(np.array([[False, False]]), np.array([5]), 2).tolist() == [0.0]
    assert math.isnan(ranking.reciprocal_rank(np.array([[False, False]]), np.array([0]), 2)[0])


def test_confusions_count_the_nearest_of_another_class():
    assert ranking.confusions(np.array([1, 1, 0, 2, -1, 1]), np.array([0, 0, 0, 1, 1, -1])) == [(0, 1, 2), (1, 2, 1)]
    assert ranking.confusions(np.array([1]), np.array([1])) == []
