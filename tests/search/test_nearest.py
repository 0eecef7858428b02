"""Exact search: faiss, torch and a plain numpy ranking agree, ties included."""

import numpy as np
import pytest

from galirep.errors import ConfigError, DataError
from galirep.search.distances import METRICS, distance, prepare_vectors
from galirep.search.nearest import FaissScan, Search, TorchScan

faiss = pytest.importorskip("faiss")


def _searches(vectors, metric):
    index = faiss.IndexFlat(vectors.shape[1], faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    return {
        "faiss": Search(FaissScan(index, metric), metric, len(vectors), vectors),
        "torch": Search(TorchScan(vectors, metric), metric, len(vectors), vectors),
    }


def _brute_force(queries, vectors, metric, k, exclude=None):
    """Compare each query with every row; sort by (distance, row)."""
    rows = []
    for i, query in enumerate(queries):
        distances = distance(query, vectors, metric).tolist()
        order = sorted(range(len(vectors)), key=lambda j: (distances[j], j))
        rows.append([j for j in order if exclude is None or j != exclude[i]][:k])
    return np.array(rows)


def _features(n, dim, seed, *, ties):
    r = np.random.default_rng(seed)
    x = r.normal(size=(n, dim)).astype(np.float32)
    if ties:
        # each vector about ten times
        x = x[r.integers(0, n // 10, n)]
    return x


@pytest.mark.parametrize("ties", [False, True], ids=["continuous", "ties"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 5, 40])
def test_faiss_torch_and_numpy_find_the_same(metric, ties, k):
    vectors = prepare_vectors(_features(300, 7, 0, ties=ties), metric, str, "gallery")
    queries = np.concatenate([vectors[::20], prepare_vectors(_features(20, 7, 1, ties=False), metric, str, "queries")])
    expected = _brute_force(queries, vectors, metric, k)
    for name, search in _searches(vectors, metric).items():
        distances, rows = search(queries, k)
        np.testing.assert_array_equal(rows, expected, err_msg=name)
        np.testing.assert_array_equal(distances, distance(queries[:, None], vectors[expected], metric), err_msg=name)
        assert distances.dtype == np.float32 and rows.dtype == np.int64


@pytest.mark.parametrize("metric", METRICS)
def test_more_equal_rows_than_candidates_come_in_the_order_of_the_rows(metric):
    one = prepare_vectors(np.random.default_rng(0).normal(size=(1, 65)), metric, str, "x")
    other = prepare_vectors(np.random.default_rng(1).normal(size=(1, 65)), metric, str, "x")
    vectors = np.repeat(np.concatenate([other, one]), [3, 1500], axis=0)
    for name, search in _searches(vectors, metric).items():
        _, rows = search(one, 10)
        # under ip a longer vector may be nearer than an equal one
        other_is_nearer = distance(one, other, metric)[0] < distance(one, one, metric)[0]
        expected = ([0, 1, 2] if other_is_nearer else []) + list(range(3, 13))
        assert rows[0].tolist() == expected[:10], name


@pytest.mark.parametrize("metric", METRICS)
def test_results_do_not_depend_on_the_batch(metric):
    vectors = prepare_vectors(_features(500, 33, 3, ties=True), metric, str, "x")
    for search in _searches(vectors, metric).values():
        together, rows = search(vectors[:60], 12)
        for i in range(60):
            alone = search(vectors[i : i + 1], 12)
            np.testing.assert_array_equal(alone[1][0], rows[i])
            np.testing.assert_array_equal(alone[0][0], together[i])


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_is_left_out_of_its_own_neighbours(metric):
    vectors = prepare_vectors(_features(120, 6, 4, ties=True), metric, str, "x")
    own_rows = np.arange(120)
    expected = _brute_force(vectors, vectors, metric, 9, exclude=own_rows)
    for name, search in _searches(vectors, metric).items():
        _, rows = search(vectors, 9, own_rows)
        np.testing.assert_array_equal(rows, expected, err_msg=name)
        ranked = np.concatenate(list(search.rank(vectors, 119, own_rows)))
        assert (np.sort(ranked, axis=1) == np.array([np.delete(own_rows, i) for i in own_rows])).all()


@pytest.mark.parametrize("metric", METRICS)
def test_ranks_are_by_distance(metric):
    vectors = prepare_vectors(_features(200, 9, 5, ties=False), metric, str, "x")
    queries = prepare_vectors(_features(15, 9, 6, ties=False), metric, str, "x")
    for search in _searches(vectors, metric).values():
        ranked = np.concatenate(list(search.rank(queries, 50)))
        np.testing.assert_array_equal(ranked, _brute_force(queries, vectors, metric, 50))


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_within_a_radius_are_all_found(metric):
    vectors = prepare_vectors(_features(150, 5, 7, ties=True), metric, str, "x")
    distances = distance(vectors[:, None], vectors[None], metric)
    radius = float(np.quantile(distances, 0.05))
    expected = {(i, j) for i, j in np.argwhere(distances <= radius).tolist()}
    for search in _searches(vectors, metric).values():
        pairs = [
            (int(i), int(j))
            for queries, rows, _ in search.range_search(vectors, radius)
            for i, j in zip(queries, rows, strict=True)
        ]
        assert len(pairs) == len(set(pairs)) and set(pairs) == expected


def test_an_inexact_search_pads_and_does_not_rank():
    index = faiss.index_factory(8, "IVF16,Flat", faiss.METRIC_L2)
    vectors = _features(400, 8, 8, ties=False)
    index.train(vectors)
    index.add(vectors)
    search = Search(FaissScan(index, "l2"), "l2", 400)
    distances, rows = search(vectors[:5], 200)
    assert (rows == -1).any() and (np.isinf(distances) == (rows == -1)).all()
    assert (distances[:, 1:] >= distances[:, :-1]).all()
    with pytest.raises(TypeError, match="exact"):
        list(search.rank(vectors[:5], 10))


def test_distances_are_what_their_names_say():
    a, b = np.array([3.0, 4.0], np.float32), np.array([4.0, 3.0], np.float32)
    assert distance(a, b, "l2") == pytest.approx(2**0.5)
    assert distance(a, b, "ip") == -24
    assert distance(a / 5, b / 5, "cosine") == pytest.approx(0.04, abs=1e-6)
    np.testing.assert_allclose(prepare_vectors(np.array([[3.0, 4.0]]), "cosine", str, "x"), [[0.6, 0.8]])


def test_features_without_a_direction_or_a_number_are_refused_with_their_ids():
    ids = ["a.png", "b.png", "c.png"]
    x = np.ones((3, 2), np.float32)
    x[1] = 0
    with pytest.raises(DataError, match=r"gallery\.h5 has zero vectors.*'b\.png'"):
        prepare_vectors(x, "cosine", ids.__getitem__, "gallery.h5")
    assert prepare_vectors(x, "l2", ids.__getitem__, "gallery.h5")[1].tolist() == [0, 0]
    for bad in (np.nan, np.inf, -np.inf):
        x[2, 1] = bad
        with pytest.raises(DataError, match=r"NaN or infinite.*'c\.png'"):
            prepare_vectors(x, "l2", ids.__getitem__, "gallery.h5")


def test_faiss_packages_that_overwrite_each_other_are_refused(monkeypatch):
    from galirep.search import faiss_library

    faiss_library.load_faiss.cache_clear()
    monkeypatch.setattr(faiss_library, "version", lambda name: "1.15")
    with pytest.raises(
        ConfigError, match=r"faiss-cpu 1\.15 and faiss-gpu 1\.15 are both installed and overwrite each other"
    ):
        faiss_library.load_faiss()
    monkeypatch.undo()
    assert faiss_library.load_faiss() is faiss
