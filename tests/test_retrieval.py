"""`index` and `retrieve` on real files: what they find, what they write, what they refuse, and what a kill leaves."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

import galirep
from galirep.errors import ConfigError, DataError, PluginError
from galirep.index_build import auto_factory
from galirep.index_file import card_path, rows_path
from galirep.store import EmbeddingWriter, StoreMeta

faiss = pytest.importorskip("faiss")
NAMES = ("ant", "bee", "cat", "dog")


def _clusters(n, dim=16, seed=0):
    r = np.random.default_rng(seed)
    labels = r.integers(0, len(NAMES), n)
    return (np.random.default_rng(99).normal(size=(len(NAMES), dim))[labels] + r.normal(size=(n, dim))).astype(np.float32), labels


def _write(path, features, labels=None, *, names=NAMES, ids=None, layers=None, **meta):
    ids = ids or [f"{path.stem}/{i:04d}.png" for i in range(len(features))]
    fields = {"encoder": "toy", "layers": layers or (("h", features.shape[1] - 4), ("mu", 4)), "fingerprint": path.stem, **meta}
    writer = EmbeddingWriter.create(path, StoreMeta(n_expected=len(features), label_names=names, **fields), ids, labels)
    writer.append(features)
    return writer.finish()


@pytest.fixture
def files(tmp_path):
    """A gallery of 400 rows and 60 queries, of four classes."""
    return _write(tmp_path / "gallery.h5", *_clusters(400)), _write(tmp_path / "queries.h5", *_clusters(60, seed=1))


def _cosines(path, other=None):
    with galirep.load_embeddings(path) as a, galirep.load_embeddings(other or path) as b:
        x, y = (np.asarray(e.features, dtype=np.float64) for e in (a, b))
        return x / np.linalg.norm(x, axis=1, keepdims=True) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T, a.labels, b.labels


# --- retrieve


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_retrieve_finds_and_measures_what_a_full_sort_does(files, backend):
    gallery, queries = files
    found = galirep.retrieve(gallery, queries, k=5, backend=backend)
    cosines, query_labels, gallery_labels = _cosines(queries, gallery)
    order = np.argsort(-cosines, axis=1)
    np.testing.assert_array_equal(found.neighbors, order[:, :5])
    np.testing.assert_allclose(found.distances, 1 - np.take_along_axis(cosines, order[:, :5], 1), atol=1e-6)
    hits = gallery_labels[order] == query_labels[:, None]
    counts = hits.sum(axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, 401)
    map_at_r = np.mean([(precision[i] * hits[i])[:r].sum() / r for i, r in enumerate(counts)])
    summary = found.summary()
    assert summary["precision_at_1"] == pytest.approx(hits[:, 0].mean())
    assert summary["recall_at_k"] == pytest.approx(hits[:, :5].any(axis=1).mean())
    assert summary["map_at_r"] == pytest.approx(map_at_r, abs=1e-6)
    assert summary["index"]["exact"] and backend in summary["index"]["backend"] and not found.leave_one_out


def test_a_file_searched_in_itself_leaves_each_query_out(files):
    gallery, _ = files
    found = galirep.retrieve(gallery, k=3)
    assert found.leave_one_out and (found.neighbors != np.arange(400)[:, None]).all()
    cosines, labels, _ = _cosines(gallery)
    np.fill_diagonal(cosines, -np.inf)
    np.testing.assert_array_equal(found.neighbors[:, 0], cosines.argmax(axis=1))
    assert found.summary()["precision_at_1"] == pytest.approx((labels[cosines.argmax(axis=1)] == labels).mean())


def test_the_same_images_embedded_twice_are_the_same_rows_and_other_images_are_not(files, tmp_path):
    gallery, _ = files
    features, labels = _clusters(400)
    ids = [f"gallery/{i:04d}.png" for i in range(400)]
    again = _write(tmp_path / "again.h5", features, labels, ids=ids, fingerprint="gallery")
    other = _write(tmp_path / "other.h5", features, labels, ids=ids, fingerprint="other")
    assert galirep.retrieve(gallery, again, k=1).leave_one_out
    found = galirep.retrieve(gallery, other, k=1)
    assert not found.leave_one_out and (found.neighbors[:, 0] == np.arange(400)).all()


def test_layers_are_compared_by_name(files):
    gallery, queries = files
    whole, part = (galirep.retrieve(gallery, queries, k=1, layers=layers) for layers in (None, ["mu"]))
    with galirep.load_embeddings(gallery, ["mu"]) as g, galirep.load_embeddings(queries, ["mu"]) as q:
        cosines = np.asarray(q.features) @ (np.asarray(g.features) / np.linalg.norm(np.asarray(g.features), axis=1, keepdims=True)).T
    assert (part.neighbors[:, 0] == cosines.argmax(axis=1)).all() and (part.neighbors != whole.neighbors).any()


def test_classes_are_matched_by_name_and_those_the_gallery_lacks_are_counted(tmp_path):
    features, labels = _clusters(80)
    gallery = _write(tmp_path / "g.h5", features, labels)
    table = np.array([3, 2, 0, 1])  # the same classes, numbered otherwise, and one more
    turned = table[labels]
    turned[:3] = 4
    queries = _write(tmp_path / "q.h5", features, turned, names=("cat", "dog", "bee", "ant", "eel"))
    summary = galirep.retrieve(gallery, queries, k=1).summary()
    assert summary["precision_at_1"] == 1.0 and summary["queries_without_relevant"] == 3
    counts = {name: int((turned == i).sum()) for i, name in enumerate(["cat", "dog", "bee", "ant"])}
    assert {row["name"]: row["n"] for row in summary["classes"]} == counts


def test_without_labels_there_are_neighbours_and_no_measures(files, tmp_path):
    gallery, _ = files
    summary = galirep.retrieve(gallery, _write(tmp_path / "bare.h5", _clusters(9)[0], names=()), k=2).summary()
    assert summary["precision_at_1"] is summary["recall_at_k"] is summary["map_at_r"] is summary["mrr"] is None and summary["classes"] == []


def test_results_are_written_in_the_keys_of_ann_benchmarks_and_as_json(files, tmp_path):
    gallery, queries = files
    found = galirep.retrieve(gallery, queries, k=4, out=tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["neighbors"][:], found.neighbors)
        np.testing.assert_array_equal(file["distances"][:], found.distances)
        assert file.attrs["distance"] == "angular"
        assert file["neighbor_ids"].asstr()[0, 0] == f"gallery/{found.neighbors[0, 0]:04d}.png"
        assert file["query_ids"].asstr()[1] == "queries/0001.png"
    found.save(tmp_path / "out.json")
    value = json.loads((tmp_path / "out.json").read_text())
    first = value["results"][0]["neighbors"][0]
    assert value["k"] == 4 and len(value["results"]) == 60
    assert first["row"] == found.neighbors[0, 0] and first["label"] in NAMES and first["id"] == f"gallery/{first['row']:04d}.png"
    with pytest.raises(ConfigError, match=r"out\.h5 exists"):
        galirep.retrieve(gallery, queries, out=tmp_path / "out.h5")


def test_images_are_embedded_with_the_encoder_of_the_gallery(tmp_path):
    r = np.random.default_rng(0)
    for split, n in (("train", 12), ("test", 3)):
        for i in range(n):
            folder = tmp_path / "set" / split / f"class{i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(r.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    galirep.embed("pixels:8", str(tmp_path / "set"), tmp_path / "g.h5", split="train", num_workers=0)
    picture = tmp_path / "set" / "train" / "class1" / "5.png"
    for gallery in (tmp_path / "g.h5", tmp_path / "g.faiss"):
        found = galirep.retrieve(gallery, [picture, picture], k=2, num_workers=0)
        assert found.gallery_ids[found.neighbors[:, 0]].tolist() == ["class1/5.png"] * 2 and found.distances[0, 0] < 1e-6
        found = galirep.retrieve(gallery, tmp_path / "set", split="test", k=2, num_workers=0)
        assert found.neighbors.shape == (3, 2) and found.summary()["precision_at_1"] is not None
        itself = galirep.retrieve(gallery, tmp_path / "set", split="train", k=2, num_workers=0)
        assert itself.leave_one_out and (itself.neighbors != np.arange(12)[:, None]).all()
        if gallery.suffix == ".h5":
            galirep.build_index(gallery, tmp_path / "g.faiss")
    picture.write_bytes(picture.read_bytes()[:40])
    with pytest.raises(DataError, match=r"1 of 1 query images cannot be read: .*5\.png"):
        galirep.retrieve(tmp_path / "g.h5", picture, k=1, num_workers=0)


# --- index


def test_an_index_is_searched_and_its_rows_named_without_the_embedding_file(files, tmp_path):
    gallery, queries = files
    info = galirep.build_index(gallery, tmp_path / "g.faiss")
    assert (info.factory, info.exact, info.recall_at_10, info.n, info.dim, info.metric) == ("Flat", True, 1.0, 400, 16, "cosine")
    expected = galirep.retrieve(gallery, queries)
    itself = galirep.retrieve(gallery)
    moved = gallery.rename(tmp_path / "moved.h5")
    for backend in ("faiss", "torch"):
        found = galirep.retrieve(tmp_path / "g.faiss", queries, backend=backend)
        np.testing.assert_array_equal(found.neighbors, expected.neighbors)
        np.testing.assert_array_equal(found.distances, expected.distances)
        assert found.summary()["map_at_r"] == pytest.approx(expected.summary()["map_at_r"]) and found.gallery_ids[7] == "gallery/0007.png"
        left_out = galirep.retrieve(tmp_path / "g.faiss", moved, backend=backend)
        assert left_out.leave_one_out
        np.testing.assert_array_equal(left_out.neighbors, itself.neighbors)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_the_metric_of_an_index_is_stored_and_enforced(files, tmp_path, metric):
    gallery, queries = files
    galirep.build_index(gallery, tmp_path / "g.faiss", metric=metric)
    found = galirep.retrieve(tmp_path / "g.faiss", queries)
    assert found.metric == metric
    np.testing.assert_array_equal(found.neighbors, galirep.retrieve(gallery, queries, metric=metric).neighbors)
    with pytest.raises(ConfigError, match=f"was built for metric '{metric}', not 'cosine'"):
        galirep.retrieve(tmp_path / "g.faiss", queries, metric="cosine")


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,PQ8", "PQ4", "HNSW16", "PCAR8,IVF4,PQ4", "SQ8"])
def test_factories_report_the_recall_they_have(files, tmp_path, factory):
    gallery, queries = files
    info = galirep.build_index(gallery, tmp_path / "g.faiss", factory=factory)
    assert not info.exact and info.recall_queries == 128
    index = faiss.read_index(str(tmp_path / "g.faiss"))
    assert index.ntotal == 400
    if info.nprobe:
        faiss.extract_index_ivf(index).nprobe = info.nprobe
    with galirep.load_embeddings(gallery) as embeddings:
        x = np.asarray(embeddings.features)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    true = np.argsort(-cosines, axis=1)[:, :10]
    found = [[row for row in rows if row != i][:10] for i, rows in enumerate(index.search(x, 11)[1].tolist())]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, true.tolist(), strict=True)])
    assert info.recall_at_10 == pytest.approx(recall, abs=0.05)  # that of 128 of the 400 rows
    result = galirep.retrieve(tmp_path / "g.faiss", queries, k=3)
    assert result.summary()["map_at_r"] is None and result.summary()["precision_at_1"] > 0.5
    assert json.loads(card_path(tmp_path / "g.faiss").read_text())["recall_at_10"] == info.recall_at_10


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_file_that_is_read_in_blocks_gives_the_same_index_as_one_that_is_held(files, tmp_path, monkeypatch, metric):
    gallery, _ = files
    held = galirep.build_index(gallery, tmp_path / "held.faiss", factory="IVF8,Flat", metric=metric)
    monkeypatch.setattr("galirep.vectors.HELD_BYTES", 0)
    monkeypatch.setattr("galirep.store._BLOCK_BYTES", 4 * 16 * 150)  # three blocks
    done = []
    read = galirep.build_index(gallery, tmp_path / "read.faiss", factory="IVF8,Flat", metric=metric, progress=done.append)
    assert done == [150, 150, 100]
    assert read.files["index"] == held.files["index"] and read.recall_at_10 == held.recall_at_10


def test_a_refused_build_leaves_the_old_index_whole(files, tmp_path):
    gallery, queries = files
    out = tmp_path / "g.faiss"
    galirep.build_index(gallery, out)
    with galirep.load_embeddings(gallery) as embeddings:
        ids, rows = list(embeddings.ids), np.asarray(embeddings.features)
    rows[7] = 0
    _write(tmp_path / "zero.h5", rows, ids=ids)
    for factory in ("Flat", "IVF8,Flat"):
        with pytest.raises(DataError, match="vectors of zeros"):
            galirep.build_index(tmp_path / "zero.h5", out, factory=factory, overwrite=True)
        assert galirep.retrieve(out, queries, k=1).k == 1
    assert sorted(p.name for p in tmp_path.glob("*g.faiss*")) == ["g.faiss", "g.faiss.json", "g.faiss.rows.h5"]


def test_more_lists_searched_find_more(files, tmp_path):
    gallery, queries = files
    galirep.build_index(gallery, tmp_path / "g.faiss", factory="IVF16,Flat")
    exact = galirep.retrieve(gallery, queries)
    few, all_of_them = (galirep.retrieve(tmp_path / "g.faiss", queries, nprobe=n) for n in (1, 16))
    np.testing.assert_array_equal(all_of_them.neighbors, exact.neighbors)
    assert (few.neighbors != exact.neighbors).any() and few.index["nprobe"] == 1 and few.index["recall_at_10"] is None
    with pytest.raises(ConfigError, match="nprobe 17 is more than the 16 lists"):
        galirep.retrieve(tmp_path / "g.faiss", queries, nprobe=17)
    with pytest.raises(ConfigError, match="nprobe is for an index with inverted lists"):
        galirep.retrieve(gallery, queries, nprobe=1)


@pytest.mark.parametrize(
    ("n", "dim", "factory"),
    [
        (1, 8, "Flat"),
        (10**6, 512, "Flat"),
        (10**6 + 1, 512, "IVF2048,Flat"),
        (10**7, 64, "IVF8192,Flat"),
        (10**7 + 1, 512, "IVF8192,PQ64"),
        (10**8, 100, "PCAR96,IVF32768,PQ12"),
        (10**8, 6, "IVF32768,PQ6"),
    ],
)
def test_auto_is_flat_then_ivf_then_codes_and_a_string_that_faiss_takes(n, dim, factory):
    assert auto_factory(n, dim) == factory
    assert faiss.index_factory(dim, factory).d == dim


def test_a_large_index_is_mapped_and_finds_the_same(files, tmp_path, monkeypatch):
    gallery, queries = files
    expected = {}
    for factory in ("Flat", "IVF8,PQ8"):
        galirep.build_index(gallery, tmp_path / "g.faiss", factory=factory, overwrite=True)
        expected[factory] = galirep.retrieve(tmp_path / "g.faiss", queries)
        monkeypatch.setattr("galirep.index_file._MAP_FROM", 1)
        np.testing.assert_array_equal(galirep.retrieve(tmp_path / "g.faiss", queries).neighbors, expected[factory].neighbors)
        monkeypatch.undo()


# --- bad input


def _bad_row(path, value):
    features, labels = _clusters(20)
    features[7] = value
    return _write(path, features, labels)


def test_rows_that_cannot_be_compared_are_refused_by_id_on_either_side(files, tmp_path):
    gallery, queries = files
    zeros = _bad_row(tmp_path / "zeros.h5", 0)
    out = tmp_path / "x.faiss"
    calls = (lambda: galirep.retrieve(zeros, queries), lambda: galirep.retrieve(gallery, zeros), lambda: galirep.build_index(zeros, out))
    for call in calls:
        with pytest.raises(DataError, match=r"vectors of zeros.*'zeros/0007\.png'"):
            call()
    with h5py.File(queries, "r+") as file:
        file["features"][5, 2] = np.nan
    with pytest.raises(DataError, match=r"NaN or infinite.*'queries/0005\.png'"):
        galirep.retrieve(gallery, queries)
    with pytest.raises(DataError, match="NaN or infinite"):
        galirep.build_index(queries, tmp_path / "x.faiss", metric="l2")
    assert not list(tmp_path.glob("*x.faiss*"))


def test_files_that_cannot_be_compared_are_told_apart_difference_by_difference(files, tmp_path):
    gallery, _ = files
    features, labels = _clusters(30)
    rival = {"encoder": "rival", "encoder_sha256": "ab", "layers": (("h", 12), ("z", 4)), "preprocessing": {"size": 64}}
    other = _write(tmp_path / "other.h5", features, labels, **rival)
    with pytest.raises(DataError) as raised:
        galirep.retrieve(gallery, other)
    for part in ("not comparable", "encoder 'rival' is not 'toy'", "encoder_sha256 'ab' is not ''", "preprocessing", "no 'mu' among h, z"):
        assert part in str(raised.value)
    wide = _write(tmp_path / "wide.h5", _clusters(30, dim=20)[0], labels)
    with pytest.raises(DataError, match="'h' has 16 columns, not 12"):
        galirep.retrieve(gallery, wide)


def test_numbers_that_do_not_fit_are_refused(files):
    gallery, queries = files
    for options, message in (
        ({"k": 0}, "k 0: ask for at least one"),
        ({"k": 401}, "k 401 is larger than the gallery: .* has 400 rows$"),
        ({"outliers": 0}, "outliers 0"),
        ({"duplicates": 1.5}, "threshold 1.5: under metric cosine it is a cosine similarity from -1 to 1"),
        ({"metric": "cosin"}, "did you mean 'cosine'"),
        ({"backend": "fais"}, "did you mean 'faiss'"),
        ({"out": "x.csv"}, r"x\.csv: results are written as \.h5 or \.json"),
        ({"split": "test"}, "has no split 'test'"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            galirep.retrieve(gallery, queries, **options)
    with pytest.raises(ConfigError, match="has 399 rows besides the query itself"):
        galirep.retrieve(gallery, k=400)
    assert galirep.retrieve(gallery, k=399).neighbors.shape == (400, 399)


def test_an_index_that_lacks_a_part_or_was_changed_is_refused(files, tmp_path):
    gallery, queries = files
    index = tmp_path / "g.faiss"
    galirep.build_index(gallery, index)
    whole = {path: path.read_bytes() for path in (index, rows_path(index), card_path(index))}

    def refused(message):
        with pytest.raises(DataError, match=message):
            galirep.retrieve(index, queries)
        for path, data in whole.items():
            path.write_bytes(data)

    card_path(index).unlink()
    refused(r"has no side-car g\.faiss\.json beside it")
    rows_path(index).unlink()
    refused(r"has no list of ids g\.faiss\.rows\.h5 beside it")
    index.unlink()
    refused("no such index file")
    index.write_bytes(whole[index][:-9])
    refused("is not the file that g.faiss.json was written for")
    flipped = bytearray(whole[index])
    flipped[-100] ^= 1
    index.write_bytes(flipped)
    refused("is not the file that g.faiss.json was written for")
    rows_path(index).write_bytes(whole[rows_path(index)] + b"x")
    refused(r"rows\.h5 is not the file")
    card_path(index).write_text("{}")
    refused("is not the side-car of an index")
    card_path(index).write_text(card_path(index).read_text().replace('"schema_version": 1', '"schema_version": 7'))
    refused("has schema version 7, not 1: read it with galirep")
    assert galirep.retrieve(index, queries).k == 10


def test_what_an_index_cannot_do_is_said(files, tmp_path):
    gallery, queries = files
    index = tmp_path / "g.faiss"
    bad = (("IVFQ", "could not parse"), ("IVF1000,Flat", "400.*1000"), ("PQ5", "multiple of the number"), ("IDMap,Flat", "add_with_ids"))
    for factory, message in bad:
        with pytest.raises(ConfigError, match=f"faiss cannot build the factory '{factory}': .*{message}"):
            galirep.build_index(gallery, index, factory=factory)
    assert not list(tmp_path.glob("*g.faiss*"))
    galirep.build_index(gallery, index, factory="IVF4,PQ4")
    with pytest.raises(ConfigError, match="is an index: name the queries"):
        galirep.retrieve(index)
    with pytest.raises(DataError, match="is an index, not queries"):
        galirep.retrieve(gallery, index)
    with pytest.raises(ConfigError, match="only faiss can search"):
        galirep.retrieve(index, queries, backend="torch")
    with pytest.raises(ConfigError, match="near-duplicates need exact vectors"):
        galirep.retrieve(index, queries, duplicates=0.9)
    with pytest.raises(ConfigError, match="was built on layers h, mu, not mu"):
        galirep.retrieve(index, queries, layers=["mu"])
    with pytest.raises(ConfigError, match=r"g\.faiss exists"):
        galirep.build_index(gallery, index)
    with pytest.raises(DataError, match="unknown layer 'nu': known: h, mu"):
        galirep.build_index(gallery, index, layers=["nu"], overwrite=True)


def test_without_faiss_search_is_torchs_and_says_so(files, monkeypatch, tmp_path):
    gallery, queries = files
    expected = galirep.retrieve(gallery, queries)
    galirep.build_index(gallery, tmp_path / "g.faiss")
    from galirep import faiss_library

    faiss_library.load_faiss.cache_clear()
    monkeypatch.setattr(faiss_library, "PACKAGES", ())
    monkeypatch.setitem(sys.modules, "faiss", None)
    found = galirep.retrieve(gallery, queries)
    np.testing.assert_array_equal(found.neighbors, expected.neighbors)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert found.index["backend"] == "torch (faiss is not installed)"
    with pytest.raises(ConfigError, match=r"faiss cannot be imported .*install galirep\[cpu\]"):
        galirep.retrieve(tmp_path / "g.faiss", queries)


def test_an_encoder_that_changed_since_is_refused(tmp_path):
    features, labels = _clusters(10, dim=3 * 8 * 8)
    gallery = _write(tmp_path / "g.h5", features, labels, encoder_spec="pixels:8", layers=(("features", 192),))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises((DataError, PluginError), match=r"pixels:8.*is not the one that made the file: .*'toy'|'toy'.*pixels"):
        galirep.retrieve(gallery, tmp_path / "a.png", k=1, num_workers=0)


_KILL_ME = """
import os, shutil, signal, sys
import galirep
from galirep.retrieval import build_index  # imported once, for three children

def child(folder, deadly):
    replace, count = os.replace, [0]
    def counting(*args):
        count[0] += 1
        if count[0] == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*args)
    os.replace = counting
    build_index("second.h5", f"{folder}/g.faiss", factory="IVF8,Flat", overwrite=True)

for deadly in (1, 2, 3):
    shutil.copytree("old", f"killed{deadly}")
    pid = os.fork()
    if pid == 0:
        child(f"killed{deadly}", deadly)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
"""


def test_a_kill_while_indexing_leaves_the_old_index_or_one_that_is_refused(tmp_path):
    """Killed before the rows, the index, or the side-car take their names."""
    first, second = (_write(tmp_path / f"{name}.h5", *_clusters(200, seed=seed)) for seed, name in enumerate(("first", "second")))
    (tmp_path / "old").mkdir()
    galirep.build_index(first, tmp_path / "old" / "g.faiss")
    expected = galirep.retrieve(first, second, k=3).neighbors
    done = subprocess.run([sys.executable, "-c", _KILL_ME], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(galirep.retrieve(tmp_path / "killed1" / "g.faiss", second, k=3).neighbors, expected)
    for folder in (tmp_path / "killed2", tmp_path / "killed3"):
        with pytest.raises(DataError, match=r"is not the file that g\.faiss\.json was written for: .* cut off; build it again"):
            galirep.retrieve(folder / "g.faiss", second, k=3)
        galirep.build_index(first, folder / "g.faiss", overwrite=True)
        np.testing.assert_array_equal(galirep.retrieve(folder / "g.faiss", second, k=3).neighbors, expected)


# --- near-duplicates and outliers


def test_near_duplicates_are_pairs_and_groups_of_pairs(tmp_path):
    features, labels = _clusters(50)
    features[[10, 30]] = features[4] * 2  # the same direction: a group of three
    features[20] = features[6] + 0.01
    path = _write(tmp_path / "g.h5", features, labels)
    value = galirep.retrieve(path, duplicates=0.9999).summary()["duplicates"]
    name = "g/{:04d}.png".format
    three = {(p["query"], p["gallery"]) for p in value["pairs"][:3]}
    assert three == {(name(4), name(10)), (name(4), name(30)), (name(10), name(30))}
    assert value["n_pairs"] == 4 and (value["pairs"][3]["query"], value["pairs"][3]["gallery"]) == (name(6), name(20))
    assert value["groups"] == [[name(4), name(10), name(30)], [name(6), name(20)]]
    assert [p["similarity"] for p in value["pairs"]] == sorted((p["similarity"] for p in value["pairs"]), reverse=True)
    cosines = _cosines(path)[0][np.triu_indices(50, 1)]
    assert galirep.retrieve(path, duplicates=0.6).summary()["duplicates"]["n_pairs"] == (cosines >= 0.6).sum()


def test_near_duplicates_across_files_are_pairs_of_a_query_and_a_row(files, tmp_path):
    gallery, _ = files
    features, labels = _clusters(400)
    queries = _write(tmp_path / "leak.h5", features[100:103], labels[100:103])
    value = galirep.retrieve(gallery, queries, duplicates=1.0).summary()["duplicates"]
    assert sorted((p["query"], p["gallery"]) for p in value["pairs"]) == [(f"leak/000{i}.png", f"gallery/010{i}.png") for i in range(3)]
    near = galirep.retrieve(gallery, queries, metric="l2", duplicates=0.0).summary()["duplicates"]
    assert near["n_pairs"] == 3 and near["pairs"][0] == {"query": "leak/0000.png", "gallery": "gallery/0100.png", "distance": 0.0}


def test_too_many_pairs_are_refused(files, monkeypatch):
    monkeypatch.setattr("galirep.curation.MAX_PAIRS", 1000)
    with pytest.raises(DataError, match=r"more than 1,000 pairs are as near as -1\.0"):
        galirep.retrieve(files[0], duplicates=-1.0)


def test_outliers_are_the_rows_farthest_from_their_neighbours(tmp_path):
    r = np.random.default_rng(0)
    features = r.normal(size=(60, 16)).astype(np.float32) + 5
    features[[17, 40]] *= -1
    features[40] += r.normal(size=16)
    path = _write(tmp_path / "g.h5", features, np.zeros(60, int))
    found = galirep.retrieve(path, k=5, outliers=4)
    listed = found.summary()["outliers"]
    means = found.distances.mean(axis=1)
    assert {row["id"] for row in listed[:2]} == {"g/0017.png", "g/0040.png"}
    assert [row["id"] for row in listed] == [f"g/{i:04d}.png" for i in np.argsort(-means, kind="stable")[:4]]
    assert listed[0]["mean_distance"] == pytest.approx(means.max(), rel=1e-6) and listed[0]["label"] == "ant"


# --- the commands


def test_commands_print_the_keys_that_were_agreed(files, cli, tmp_path):
    gallery, queries = files
    result = cli("index", gallery, "--out", tmp_path / "g.faiss", "--factory", "IVF8,Flat", "--json")
    assert result.exit_code == 0, result.stderr
    value = json.loads(result.stdout)
    assert {"metric", "factory", "n", "dim", "nprobe", "recall_at_10", "embeddings", "versions"} <= value.keys()
    assert "recall@10" in result.stderr
    result = cli("retrieve", "--gallery", tmp_path / "g.faiss", "--queries", queries, "-k", 3, "--json")
    assert result.exit_code == 0, result.stderr
    value = json.loads(result.stdout)
    assert {"k", "metric", "n_queries", "precision_at_1", "recall_at_k", "map_at_r", "seconds", "index"} <= value.keys()
    assert (value["k"], value["metric"], value["n_queries"], value["index"]["factory"]) == (3, "cosine", 60, "IVF8,Flat")
    result = cli("retrieve", "--gallery", gallery, "--duplicates", "0.9", "--outliers", "2")
    assert result.exit_code == 0
    for part in ("near-duplicates at 0.9", "MAP@R", "each left out of its own neighbours", "outliers"):
        assert part in result.stdout


def test_commands_fail_in_one_line_and_write_nothing(files, cli, tmp_path):
    gallery, queries = files
    for arguments, message in (
        (("index", gallery, "--out", tmp_path / "x.faiss", "--metric", "cosin"), "did you mean 'cosine'"),
        (("index", gallery, "--out", tmp_path / "none" / "x.faiss"), "does not exist"),
        (("index", tmp_path / "none.h5", "--out", tmp_path / "x.faiss"), "no such file"),
        (("retrieve", "--gallery", gallery, "--queries", queries, "-k", 1000, "--out", tmp_path / "x.json"), "larger than the gallery"),
        (("retrieve", "--gallery", gallery, "--queries", tmp_path / "none"), "none"),
    ):
        result = cli(*arguments)
        assert result.exit_code == 1 and result.stdout == "" and len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("galirep: error: ") and message in result.stderr
    assert not list(tmp_path.glob("*x.*"))
