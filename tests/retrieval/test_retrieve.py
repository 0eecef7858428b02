"""`retrieve` on real files: neighbours, measures, written results, refused input."""

import json
import sys

import h5py
import numpy as np
import pytest
from PIL import Image
from toy_galleries import NAMES, clusters, cosines_of, write_embeddings

import galirep
from galirep.errors import ConfigError, DataError, PluginError

pytest.importorskip("faiss")


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_retrieve_finds_and_measures_what_a_full_sort_does(galleries, backend):
    gallery, queries = galleries
    result = galirep.retrieve(gallery, queries, k=5, backend=backend)
    cosines, query_labels, gallery_labels = cosines_of(queries, gallery)
    order = np.argsort(-cosines, axis=1)
    np.testing.assert_array_equal(result.neighbors, order[:, :5])
    np.testing.assert_allclose(result.distances, 1 - np.take_along_axis(cosines, order[:, :5], 1), atol=1e-6)
    hits = gallery_labels[order] == query_labels[:, None]
    counts = hits.sum(axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, 401)
    map_at_r = np.mean([(precision[i] * hits[i])[:r].sum() / r for i, r in enumerate(counts)])
    summary = result.summary()
    assert summary == result.to_dict()
    assert summary["precision_at_1"] == pytest.approx(hits[:, 0].mean())
    assert summary["recall_at_k"] == pytest.approx(hits[:, :5].any(axis=1).mean())
    assert summary["map_at_r"] == pytest.approx(map_at_r, abs=1e-6)
    assert summary["index"]["exact"] and backend in summary["index"]["backend"] and not result.leave_one_out


def test_a_file_searched_in_itself_leaves_each_query_out(galleries):
    gallery, _ = galleries
    result = galirep.retrieve(gallery, k=3)
    assert result.leave_one_out and (result.neighbors != np.arange(400)[:, None]).all()
    cosines, labels, _ = cosines_of(gallery)
    np.fill_diagonal(cosines, -np.inf)
    np.testing.assert_array_equal(result.neighbors[:, 0], cosines.argmax(axis=1))
    assert result.summary()["precision_at_1"] == pytest.approx((labels[cosines.argmax(axis=1)] == labels).mean())


def test_the_same_images_embedded_twice_are_the_same_rows_and_other_images_are_not(galleries, tmp_path):
    gallery, _ = galleries
    features, labels = clusters(400)
    ids = [f"gallery/{i:04d}.png" for i in range(400)]
    same_images = write_embeddings(tmp_path / "again.h5", features, labels, ids=ids, fingerprint="gallery")
    other = write_embeddings(tmp_path / "other.h5", features, labels, ids=ids, fingerprint="other")
    assert galirep.retrieve(gallery, same_images, k=1).leave_one_out
    result = galirep.retrieve(gallery, other, k=1)
    assert not result.leave_one_out and (result.neighbors[:, 0] == np.arange(400)).all()


def test_layers_are_compared_by_name(galleries):
    gallery, queries = galleries
    whole, part = (galirep.retrieve(gallery, queries, k=1, layers=layers) for layers in (None, ["mu"]))
    with galirep.load_embeddings(gallery, ["mu"]) as g, galirep.load_embeddings(queries, ["mu"]) as q:
        vectors = np.asarray(g.features)
        cosines = np.asarray(q.features) @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    assert (part.neighbors[:, 0] == cosines.argmax(axis=1)).all() and (part.neighbors != whole.neighbors).any()


def test_classes_are_matched_by_name_and_those_the_gallery_lacks_are_counted(tmp_path):
    features, labels = clusters(80)
    gallery = write_embeddings(tmp_path / "g.h5", features, labels)
    # the same classes in another order, and one more
    new_number = np.array([3, 2, 0, 1])
    renumbered = new_number[labels]
    renumbered[:3] = 4
    queries = write_embeddings(tmp_path / "q.h5", features, renumbered, names=("cat", "dog", "bee", "ant", "eel"))
    summary = galirep.retrieve(gallery, queries, k=1).summary()
    assert summary["precision_at_1"] == 1.0 and summary["queries_without_relevant"] == 3
    counts = {name: int((renumbered == i).sum()) for i, name in enumerate(["cat", "dog", "bee", "ant"])}
    assert {row["name"]: row["n"] for row in summary["classes"]} == counts


def test_without_labels_there_are_neighbours_and_no_measures(galleries, tmp_path):
    gallery, _ = galleries
    unlabelled = write_embeddings(tmp_path / "bare.h5", clusters(9)[0], names=())
    summary = galirep.retrieve(gallery, unlabelled, k=2).summary()
    assert summary["precision_at_1"] is summary["recall_at_k"] is summary["map_at_r"] is summary["mrr"] is None
    assert summary["classes"] == []


def test_results_are_written_in_the_keys_of_ann_benchmarks_and_as_json(galleries, tmp_path):
    gallery, queries = galleries
    result = galirep.retrieve(gallery, queries, k=4, out=tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["neighbors"][:], result.neighbors)
        np.testing.assert_array_equal(file["distances"][:], result.distances)
        assert file.attrs["distance"] == "angular"
        assert file["neighbor_ids"].asstr()[0, 0] == f"gallery/{result.neighbors[0, 0]:04d}.png"
        assert file["query_ids"].asstr()[1] == "queries/0001.png"
    result.save(tmp_path / "out.json")
    value = json.loads((tmp_path / "out.json").read_text())
    first = value["results"][0]["neighbors"][0]
    assert value["k"] == 4 and len(value["results"]) == 60
    assert first["row"] == result.neighbors[0, 0] and first["label"] in NAMES
    assert first["id"] == f"gallery/{first['row']:04d}.png"
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
        result = galirep.retrieve(gallery, [picture, picture], k=2, num_workers=0)
        assert result.gallery_ids[result.neighbors[:, 0]].tolist() == ["class1/5.png"] * 2
        assert result.distances[0, 0] < 1e-6
        result = galirep.retrieve(gallery, tmp_path / "set", split="test", k=2, num_workers=0)
        assert result.neighbors.shape == (3, 2) and result.summary()["precision_at_1"] is not None
        itself = galirep.retrieve(gallery, tmp_path / "set", split="train", k=2, num_workers=0)
        assert itself.leave_one_out and (itself.neighbors != np.arange(12)[:, None]).all()
        if gallery.suffix == ".h5":
            galirep.build_index(gallery, tmp_path / "g.faiss")
    picture.write_bytes(picture.read_bytes()[:40])
    with pytest.raises(DataError, match=r"1 of 1 query images cannot be read: .*5\.png"):
        galirep.retrieve(tmp_path / "g.h5", picture, k=1, num_workers=0)
    missing = [tmp_path / f"{i}.png" for i in range(12)]
    with pytest.raises(DataError, match=r"12 of 12 query images cannot be read: .*4\.png: [^;]* and 7 more$"):
        galirep.retrieve(tmp_path / "g.h5", missing, k=1, num_workers=0)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_pictures_on_both_sides_are_noted(galleries, tmp_path, metric, backend):
    gallery, queries = galleries
    features, labels = clusters(400)
    mixed = np.concatenate([clusters(20, seed=7)[0], features[5:10]])
    # embedded in another batch, an image differs by rounding; ip compares the very bytes
    mixed[20:22] *= 1 if metric == "ip" else np.float32(1 + 2e-7)
    mixed = np.concatenate([mixed, 1.001 * features[10:12]])
    file = write_embeddings(tmp_path / "mixed.h5", mixed, np.r_[labels[:20], labels[5:12]], source="set", split="test")
    result = galirep.retrieve(gallery, file, k=3, metric=metric, backend=backend)
    rows = 7 if metric == "cosine" else 5
    (note,) = result.notes
    assert note == (
        f"pictures that may be on both sides: {rows} of 27 rows of the queries have the vector of a row of the gallery "
        "('mixed/0020.png' and 'gallery/0005.png'): such a query finds itself, so measures are higher than for new "
        "pictures"
    )
    assert galirep.retrieve(gallery, queries, k=3, metric=metric, backend=backend).notes == ()
    assert galirep.retrieve(gallery, k=3, metric=metric, backend=backend).notes == ()


def test_notes_are_in_text_json_files_and_report(galleries, cli, tmp_path):
    gallery, _ = galleries
    features, labels = clusters(400)
    part = write_embeddings(tmp_path / "part.h5", features[:9], labels[:9])
    files = ("--out", tmp_path / "out.json", "--report", tmp_path / "r.html")
    done = cli("retrieve", "--gallery", gallery, "--queries", part, "--json", *files)
    assert done.exit_code == 0, done.stderr
    (note,) = json.loads(done.stdout)["notes"]
    assert "9 of 9 rows of the queries have the vector of a row of the gallery" in note
    assert f"note: {note}" in done.stderr and json.loads((tmp_path / "out.json").read_text())["notes"] == [note]
    assert json.dumps(["Note", note])[1:-1] in (tmp_path / "r.html").read_text(encoding="utf-8").replace('","', '", "')
    galirep.retrieve(gallery, part, out=tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert json.loads(file.attrs["notes"]) == [note]


def test_ids_of_one_split_of_one_set_are_noted(tmp_path):
    features, labels = clusters(40)
    origin = {"ids": [f"{i}.png" for i in range(40)], "source": "set", "split": "train"}
    gallery = write_embeddings(tmp_path / "g.h5", features, labels, **origin)
    other = clusters(40, seed=5)[0]
    (note,) = galirep.retrieve(gallery, write_embeddings(tmp_path / "q.h5", other, labels, **origin)).notes
    assert "40 of 40 ids of the queries are in the gallery too ('0.png'), with other vectors" in note
    test = write_embeddings(tmp_path / "t.h5", other, labels, **{**origin, "split": "test"})
    assert galirep.retrieve(gallery, test).notes == ()


def test_numbers_and_names_of_classes(tmp_path):
    features, labels = clusters(80)
    gallery = write_embeddings(tmp_path / "g.h5", features, labels, names=("10", "2", "1.0", "3"))
    numbers = np.array([10, 2, 1, 3])[labels]
    queries = write_embeddings(tmp_path / "q.h5", features, numbers, names=())
    for pair in ((gallery, queries), (queries, gallery)):
        summary = galirep.retrieve(*pair, k=1).summary()
        assert summary["precision_at_1"] == 1 and summary["queries_without_relevant"] == 0
    words = write_embeddings(tmp_path / "words.h5", features, labels)
    for pair in ((words, queries), (queries, words)):
        with pytest.raises(DataError, match=r"labels of .*q\.h5 are numbers without names, but classes of .*words\.h5"):
            galirep.retrieve(*pair, k=1)
    bare = write_embeddings(tmp_path / "bare.h5", features, names=())
    for pair in ((words, bare), (bare, words), (queries, bare)):
        assert galirep.retrieve(*pair, k=1).measured is None
    notes = galirep.retrieve(gallery, words, k=1).notes
    assert notes[0] == "no labelled query is of a class that the gallery has: nothing is measured"


def test_how_a_list_of_queries_was_read_is_noted(tmp_path):
    r = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(r.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "g.csv").write_text("path,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(4)))
    (tmp_path / "q.csv").write_text("path;label;author\n4.png;1.0;x\n5.png;0;y\n")
    galirep.embed("pixels:8", f"csv:{tmp_path / 'g.csv'}", tmp_path / "g.h5", num_workers=0)
    result = galirep.retrieve(tmp_path / "g.h5", f"csv:{tmp_path / 'q.csv'}", k=1, num_workers=0)
    assert result.query_labels.tolist() == [1, 0] and result.notes == (
        "cells are separated by semicolons",
        "columns that are ignored: 'author'",
        "labels written as 1.0 are read as whole numbers",
    )


def _write_constant_row(path, value):
    features, labels = clusters(20)
    features[7] = value
    return write_embeddings(path, features, labels)


def test_rows_that_cannot_be_compared_are_refused_by_id_on_either_side(galleries, tmp_path):
    gallery, queries = galleries
    zeros = _write_constant_row(tmp_path / "zeros.h5", 0)
    out = tmp_path / "x.faiss"
    calls = (
        lambda: galirep.retrieve(zeros, queries),
        lambda: galirep.retrieve(gallery, zeros),
        lambda: galirep.build_index(zeros, out),
    )
    for call in calls:
        with pytest.raises(DataError, match=r"zero vectors.*'zeros/0007\.png'"):
            call()
    with h5py.File(queries, "r+") as file:
        file["features"][5, 2] = np.nan
    with pytest.raises(DataError, match=r"NaN or infinite.*'queries/0005\.png'"):
        galirep.retrieve(gallery, queries)
    # an index is made of rows with their checksums alone
    with pytest.raises(DataError, match=r"queries\.h5 is damaged: 1 of 60 rows \(5\) do not have their checksums"):
        galirep.build_index(queries, tmp_path / "x.faiss", metric="l2")
    assert not list(tmp_path.glob("*x.faiss*"))


def test_files_that_cannot_be_compared_are_refused_with_every_difference(galleries, tmp_path):
    gallery, _ = galleries
    features, labels = clusters(30)
    rival = {"encoder": "rival", "encoder_sha256": "ab", "layers": (("h", 12), ("z", 4)), "preprocessing": {"size": 64}}
    other = write_embeddings(tmp_path / "other.h5", features, labels, **rival)
    with pytest.raises(DataError) as raised:
        galirep.retrieve(gallery, other)
    for part in (
        "not comparable",
        "encoder 'rival' is not 'toy'",
        "encoder_sha256 'ab' is not ''",
        "preprocessing",
        "layer 'mu' is missing among h, z",
    ):
        assert part in str(raised.value)
    wide = write_embeddings(tmp_path / "wide.h5", clusters(30, dim=20)[0], labels)
    with pytest.raises(DataError, match="'h' has 16 columns, not 12"):
        galirep.retrieve(gallery, wide)


def test_numbers_that_do_not_fit_are_refused(galleries):
    gallery, queries = galleries
    for options, message in (
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"k": 401}, "k 401 is larger than the gallery: .* has 400 rows$"),
        ({"outliers": 0}, "outliers must be at least 1, not 0"),
        (
            {"duplicates": 1.5},
            "threshold 1.5 is out of range: for metric cosine it is a cosine similarity from -1 to 1",
        ),
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


def test_without_faiss_search_is_torchs_and_says_so(galleries, monkeypatch, tmp_path):
    gallery, queries = galleries
    expected = galirep.retrieve(gallery, queries)
    galirep.build_index(gallery, tmp_path / "g.faiss")
    from galirep.search import faiss_library

    faiss_library.load_faiss.cache_clear()
    monkeypatch.setattr(faiss_library, "PACKAGES", ())
    monkeypatch.setitem(sys.modules, "faiss", None)
    result = galirep.retrieve(gallery, queries)
    np.testing.assert_array_equal(result.neighbors, expected.neighbors)
    np.testing.assert_array_equal(result.distances, expected.distances)
    assert result.index["backend"] == "torch (faiss is not installed)"
    with pytest.raises(ConfigError, match=r"faiss cannot be imported .*install galirep\[cpu\]"):
        galirep.retrieve(tmp_path / "g.faiss", queries)


def test_an_encoder_that_changed_since_is_refused(tmp_path):
    features, labels = clusters(10, dim=3 * 8 * 8)
    gallery = write_embeddings(
        tmp_path / "g.h5", features, labels, encoder_spec="pixels:8", layers=(("features", 192),)
    )
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(
        (DataError, PluginError), match=r"pixels:8.*is not the one that made the file: .*'toy'|'toy'.*pixels"
    ):
        galirep.retrieve(gallery, tmp_path / "a.png", k=1, num_workers=0)


def test_commands_print_the_keys_that_were_agreed(galleries, cli, tmp_path):
    gallery, queries = galleries
    result = cli("index", gallery, "--out", tmp_path / "g.faiss", "--factory", "IVF8,Flat", "--json")
    assert result.exit_code == 0, result.stderr
    value = json.loads(result.stdout)
    assert {"metric", "factory", "n", "dim", "nprobe", "recall_at_10", "embeddings", "versions"} <= value.keys()
    assert "recall@10" in result.stderr
    result = cli("retrieve", "--gallery", tmp_path / "g.faiss", "--queries", queries, "-k", 3, "--json")
    assert result.exit_code == 0, result.stderr
    value = json.loads(result.stdout)
    assert {"k", "metric", "n_queries", "precision_at_1", "recall_at_k", "map_at_r", "seconds", "index"} <= value.keys()
    assert (value["k"], value["metric"], value["n_queries"]) == (3, "cosine", 60)
    assert value["index"]["factory"] == "IVF8,Flat"
    result = cli("retrieve", "--gallery", gallery, "--duplicates", "0.9", "--outliers", "2")
    assert result.exit_code == 0
    for part in ("near-duplicates at 0.9", "MAP@R", "each left out of its own neighbours", "outliers"):
        assert part in result.stdout


def test_commands_fail_in_one_line_and_write_nothing(galleries, cli, tmp_path):
    gallery, queries = galleries
    for arguments, message in (
        (("index", gallery, "--out", tmp_path / "x.faiss", "--metric", "cosin"), "did you mean 'cosine'"),
        (("index", gallery, "--out", tmp_path / "none" / "x.faiss"), "does not exist"),
        (("index", tmp_path / "none.h5", "--out", tmp_path / "x.faiss"), "no such file"),
        (
            ("retrieve", "--gallery", gallery, "--queries", queries, "-k", 1000, "--out", tmp_path / "x.json"),
            "larger than the gallery",
        ),
        (("retrieve", "--gallery", gallery, "--queries", tmp_path / "none"), "none"),
    ):
        result = cli(*arguments)
        assert result.exit_code == 1 and result.stdout == "" and len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("galirep: error: ") and message in result.stderr
    assert not list(tmp_path.glob("*x.*"))
