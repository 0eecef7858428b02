"""Features near the ends of float32: refused with the largest value and its row, or searched exactly; never guessed."""

import numpy as np
import pytest
from toy_galleries import clusters, write_embeddings

import galirep
from galirep.errors import DataError
from galirep.search.distances import MAX_LENGTH, prepare_vectors
from galirep.search.nearest import Search, TorchScan


def _files(folder, factor):
    features, labels = clusters(60)
    features[7, 3] = 9
    scaled = (features.astype(np.float64) * factor).astype(np.float32)
    (folder / "scaled").mkdir()
    return write_embeddings(folder / "x.h5", features, labels), write_embeddings(
        folder / "scaled" / "x.h5", scaled, labels
    )


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_features_near_3e19_are_refused_with_the_largest_value(tmp_path, cli, metric, backend):
    _, large = _files(tmp_path, 3e19)
    message = rf"x\.h5 has features too large for metric {metric}: up to 2\.7e\+20, in 'x/0007\.png'; .*--metric cosine"
    with pytest.raises(DataError, match=message):
        galirep.retrieve(large, large, metric=metric, backend=backend, k=3)
    done = cli("retrieve", "--gallery", str(large), "--queries", str(large), "--metric", metric, "--backend", backend)
    assert done.exit_code == 1 and "up to 2.7e+20, in 'x/0007.png'" in done.stderr


def test_large_queries_and_indices_are_refused(tmp_path):
    usual, large = _files(tmp_path, 3e19)
    with pytest.raises(DataError, match=r"up to 2\.7e\+20, in 'x/0007\.png'"):
        galirep.retrieve(usual, large, metric="l2", k=3)
    for factory in ("Flat", "IVF4,Flat"):
        with pytest.raises(DataError, match=r"up to 2\.7e\+20, in 'x/0007\.png'"):
            galirep.build_index(large, tmp_path / "x.faiss", metric="l2", factory=factory)
    assert not (tmp_path / "x.faiss").exists()
    # an index of an earlier version
    vectors = np.full((3, 4), 1e19, np.float32)
    with pytest.raises(DataError, match="the index has vectors longer than"):
        Search(TorchScan(vectors, "l2"), "l2", 3, vectors)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize(
    ("metric", "factor"), [("cosine", 3e19), ("cosine", 3e37), ("cosine", 1e-36), ("l2", 1e17), ("l2", 1e-21)]
)
def test_neighbours_do_not_depend_on_the_scale(tmp_path, metric, factor, backend):
    usual, scaled = _files(tmp_path, factor)
    expected = galirep.retrieve(usual, usual, metric=metric, k=5)
    got = galirep.retrieve(scaled, scaled, metric=metric, backend=backend, k=5)
    np.testing.assert_array_equal(got.neighbors, expected.neighbors)


def test_the_limit_itself_is_taken_and_searched_right():
    vectors = np.zeros((3, 2), np.float32)
    vectors[:, 0] = np.float32(MAX_LENGTH) * np.array([-0.999, 0.5, 0.999], np.float32)
    prepared = prepare_vectors(vectors, "l2", str, "x")
    distances, rows = Search(TorchScan(prepared, "l2"), "l2", 3, prepared)(prepared[2:], 3)
    assert rows.tolist() == [[2, 1, 0]] and np.isfinite(distances).all()


def test_a_length_beyond_float32_still_has_a_direction():
    rows = np.array([[3e38, 3e38], [1e-45, 0], [3, 4]], np.float32)
    np.testing.assert_allclose(
        prepare_vectors(rows, "cosine", str, "x"), [[0.5**0.5, 0.5**0.5], [1, 0], [0.6, 0.8]], rtol=1e-6
    )


def test_verify_compares_large_features(tmp_path):
    class Scaled:
        name, dim, image_size = "scaled", 2, 8

        def __init__(self, factor):
            self.factor = factor

        def __call__(self, images):
            return self.factor * images.flatten(1)[:, :2]

    galirep.embed(Scaled(3e19), "sklearn:digits", tmp_path / "x.h5", split="test", batch_size=8, device="cpu")
    options = {"data": "sklearn:digits", "device": "cpu", "sample": 8}
    assert galirep.verify(tmp_path / "x.h5", encoder=Scaled(3e19), **options).worst == 0
    worst = galirep.verify(tmp_path / "x.h5", encoder=Scaled(1e19), **options).worst
    assert worst == pytest.approx(2 / 3, rel=1e-3)
