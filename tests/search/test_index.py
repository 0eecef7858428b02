"""`build_index` and search in an index: results, files, refused input, and a process killed while it builds."""

import json
import subprocess
import sys

import numpy as np
import pytest
from toy_galleries import clusters, write_embeddings

import galirep
from galirep.errors import ConfigError, DataError
from galirep.search.index_build import auto_factory
from galirep.search.index_file import read_info
from galirep.search.index_replacing import rows_path, sidecar_path

faiss = pytest.importorskip("faiss")


def test_an_index_is_searched_and_its_rows_named_without_the_embedding_file(galleries, tmp_path):
    gallery, queries = galleries
    info = galirep.build_index(gallery, tmp_path / "g.faiss")
    assert (info.factory, info.exact, info.recall_at_10) == ("Flat", True, 1.0)
    assert (info.n, info.dim, info.metric) == (400, 16, "cosine")
    assert read_info(tmp_path / "g.faiss") == info
    expected = galirep.retrieve(gallery, queries)
    itself = galirep.retrieve(gallery)
    moved = gallery.rename(tmp_path / "moved.h5")
    for backend in ("faiss", "torch"):
        result = galirep.retrieve(tmp_path / "g.faiss", queries, backend=backend)
        np.testing.assert_array_equal(result.neighbors, expected.neighbors)
        np.testing.assert_array_equal(result.distances, expected.distances)
        assert result.summary()["map_at_r"] == pytest.approx(expected.summary()["map_at_r"])
        assert result.gallery_ids[7] == "gallery/0007.png"
        left_out = galirep.retrieve(tmp_path / "g.faiss", moved, backend=backend)
        assert left_out.leave_one_out
        np.testing.assert_array_equal(left_out.neighbors, itself.neighbors)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_the_metric_of_an_index_is_stored_and_enforced(galleries, tmp_path, metric):
    gallery, queries = galleries
    galirep.build_index(gallery, tmp_path / "g.faiss", metric=metric)
    result = galirep.retrieve(tmp_path / "g.faiss", queries)
    assert result.metric == metric
    np.testing.assert_array_equal(result.neighbors, galirep.retrieve(gallery, queries, metric=metric).neighbors)
    with pytest.raises(ConfigError, match=f"was built for metric '{metric}', not 'cosine'"):
        galirep.retrieve(tmp_path / "g.faiss", queries, metric="cosine")


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,PQ8", "PQ4", "HNSW16", "PCAR8,IVF4,PQ4", "SQ8"])
def test_factories_report_the_recall_they_have(galleries, tmp_path, factory):
    gallery, queries = galleries
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
    retrieved = [[row for row in rows if row != i][:10] for i, rows in enumerate(index.search(x, 11)[1].tolist())]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(retrieved, true.tolist(), strict=True)])
    # recall_at_10 is measured on 128 of the 400 rows
    assert info.recall_at_10 == pytest.approx(recall, abs=0.05)
    result = galirep.retrieve(tmp_path / "g.faiss", queries, k=3)
    assert result.summary()["map_at_r"] is None and result.summary()["precision_at_1"] > 0.5
    assert json.loads(sidecar_path(tmp_path / "g.faiss").read_text())["recall_at_10"] == info.recall_at_10


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_file_that_is_read_in_blocks_gives_the_same_index_as_one_that_is_held(
    galleries, tmp_path, monkeypatch, metric
):
    gallery, _ = galleries
    held = galirep.build_index(gallery, tmp_path / "held.faiss", factory="IVF8,Flat", metric=metric)
    monkeypatch.setattr("galirep.search.vectors.MAX_HELD_BYTES", 0)
    # three blocks
    monkeypatch.setattr("galirep.embeddings.reader._BLOCK_BYTES", 4 * 16 * 150)
    counts = []
    read = galirep.build_index(
        gallery, tmp_path / "read.faiss", factory="IVF8,Flat", metric=metric, progress=counts.append
    )
    assert counts == [150, 150, 100]
    assert read.files["index"] == held.files["index"] and read.recall_at_10 == held.recall_at_10


def test_more_lists_searched_find_more(galleries, tmp_path):
    gallery, queries = galleries
    galirep.build_index(gallery, tmp_path / "g.faiss", factory="IVF16,Flat")
    exact = galirep.retrieve(gallery, queries)
    one_list, all_lists = (galirep.retrieve(tmp_path / "g.faiss", queries, nprobe=n) for n in (1, 16))
    np.testing.assert_array_equal(all_lists.neighbors, exact.neighbors)
    assert (
        (one_list.neighbors != exact.neighbors).any()
        and one_list.index["nprobe"] == 1
        and one_list.index["recall_at_10"] is None
    )
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


def test_a_large_index_is_mapped_and_finds_the_same(galleries, tmp_path, monkeypatch):
    gallery, queries = galleries
    expected = {}
    for factory in ("Flat", "IVF8,PQ8"):
        galirep.build_index(gallery, tmp_path / "g.faiss", factory=factory, overwrite=True)
        expected[factory] = galirep.retrieve(tmp_path / "g.faiss", queries)
        monkeypatch.setattr("galirep.search.index_file._MIN_MAPPED_BYTES", 1)
        np.testing.assert_array_equal(
            galirep.retrieve(tmp_path / "g.faiss", queries).neighbors, expected[factory].neighbors
        )
        monkeypatch.undo()


def test_a_refused_build_leaves_the_old_index_whole(galleries, tmp_path):
    gallery, queries = galleries
    out = tmp_path / "g.faiss"
    galirep.build_index(gallery, out)
    with galirep.load_embeddings(gallery) as embeddings:
        ids, rows = list(embeddings.ids), np.asarray(embeddings.features)
    rows[7] = 0
    write_embeddings(tmp_path / "zero.h5", rows, ids=ids)
    for factory in ("Flat", "IVF8,Flat"):
        with pytest.raises(DataError, match="has zero vectors"):
            galirep.build_index(tmp_path / "zero.h5", out, factory=factory, overwrite=True)
        assert galirep.retrieve(out, queries, k=1).k == 1
    assert sorted(p.name for p in tmp_path.glob("*g.faiss*")) == ["g.faiss", "g.faiss.json", "g.faiss.rows.h5"]


def test_an_index_that_lacks_a_part_or_was_changed_is_refused(galleries, tmp_path):
    gallery, queries = galleries
    index = tmp_path / "g.faiss"
    galirep.build_index(gallery, index)
    whole = {path: path.read_bytes() for path in (index, rows_path(index), sidecar_path(index))}

    def refused(message):
        with pytest.raises(DataError, match=message):
            galirep.retrieve(index, queries)
        for path, data in whole.items():
            path.write_bytes(data)

    sidecar_path(index).unlink()
    refused(r"has no sidecar g\.faiss\.json beside it")
    rows_path(index).unlink()
    refused(r"has no list of ids g\.faiss\.rows\.h5 beside it")
    index.unlink()
    refused(r"the index file .*g\.faiss does not exist")
    index.write_bytes(whole[index][:-9])
    refused("is not the file that g.faiss.json was written for")
    flipped = bytearray(whole[index])
    flipped[-100] ^= 1
    index.write_bytes(flipped)
    refused("is not the file that g.faiss.json was written for")
    rows_path(index).write_bytes(whole[rows_path(index)] + b"x")
    refused(r"rows\.h5 is not the file")
    sidecar_path(index).write_text("{}")
    refused("is not the sidecar of an index")
    sidecar_path(index).write_text(
        sidecar_path(index).read_text().replace('"schema_version": 2', '"schema_version": 7')
    )
    refused("has schema version 7, not 1 or 2: read it with galirep")
    assert galirep.retrieve(index, queries).k == 10


def test_what_an_index_cannot_do_is_said(galleries, tmp_path):
    gallery, queries = galleries
    index = tmp_path / "g.faiss"
    refused_factories = (
        ("IVFQ", "could not parse"),
        ("IVF1000,Flat", "400.*1000"),
        ("PQ5", "multiple of the number"),
        ("IDMap,Flat", "add_with_ids"),
    )
    for factory, message in refused_factories:
        with pytest.raises(ConfigError, match=f"faiss cannot build the factory '{factory}': .*{message}"):
            galirep.build_index(gallery, index, factory=factory)
    assert not list(tmp_path.glob("*g.faiss*"))
    galirep.build_index(gallery, index, factory="IVF4,PQ4")
    with pytest.raises(ConfigError, match="is an index: pass the queries"):
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


_BUILD_AND_DIE = """
import os, shutil, signal, sys
from pathlib import Path
import galirep
from galirep import build_index  # imported once, for three children

def build_and_die(folder, fatal_rename):
    replace, count = Path.replace, [0]
    def counting(path, target):
        count[0] += 1
        if count[0] == fatal_rename:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(path, target)
    Path.replace = counting
    build_index("second.h5", f"{folder}/g.faiss", factory="IVF8,Flat", overwrite=True)

for fatal_rename in range(1, 6):
    shutil.copytree("old", f"killed{fatal_rename}")
    pid = os.fork()
    if pid == 0:
        build_and_die(f"killed{fatal_rename}", fatal_rename)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
"""


def test_a_kill_while_indexing_leaves_the_old_index_or_the_new_one(tmp_path):
    """The process is killed before each rename: the third is that of the sidecar, which makes the new index hold."""
    first, second = (
        write_embeddings(tmp_path / f"{name}.h5", *clusters(200, seed=seed))
        for seed, name in enumerate(("first", "second"))
    )
    (tmp_path / "old").mkdir()
    galirep.build_index(first, tmp_path / "old" / "g.faiss")
    process = subprocess.run(
        [sys.executable, "-c", _BUILD_AND_DIE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    for fatal_rename in range(1, 6):
        folder = tmp_path / f"killed{fatal_rename}"
        index = folder / "g.faiss"
        source = first if fatal_rename <= 3 else second
        assert read_info(index).source == source.name
        expected = galirep.retrieve(source, second, k=3).neighbors
        np.testing.assert_array_equal(galirep.retrieve(index, second, k=3, nprobe=None).neighbors, expected)
        galirep.build_index(first, index, overwrite=True)
        assert {path.name for path in folder.iterdir()} == {"g.faiss", "g.faiss.json", "g.faiss.rows.h5"}
