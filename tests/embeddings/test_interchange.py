"""The folder layout of clip-retrieval: embedding-reader reads what is exported, and it comes back the same."""

import json

import numpy as np
import pytest

from galirep.embeddings.interchange import export_embeddings, import_embeddings
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.embeddings.writer import EmbeddingWriter
from galirep.errors import DataError

pytest.importorskip("pyarrow")
ROWS = 57


@pytest.fixture(params=["float32", "float16"])
def path(tmp_path, request):
    layers = (("hidden", 6), ("mu", 4))
    meta = StoreMeta(
        "toy",
        layers,
        ROWS,
        preprocessing={"size": [8, 8]},
        dtype=request.param,
        fingerprint="f",
        label_names=("ant", "bee"),
    )
    features = np.random.default_rng(0).standard_normal((ROWS, 10)).astype(np.float32)
    labels = np.arange(ROWS) % 3 - 1
    with EmbeddingWriter.create(tmp_path / "x.h5", meta, [f"dög/{i}.png" for i in range(ROWS)], labels) as writer:
        writer.append(features, {5: "broken"})
        writer.finish()
    return tmp_path / "x.h5"


# warnings of embedding-reader and of the libraries that it imports
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_embedding_reader_reads_it(path, tmp_path):
    reader = pytest.importorskip("embedding_reader")
    result = export_embeddings(path, tmp_path / "out", rows_per_file=20)
    assert (result.rows, result.files) == (ROWS - 1, 3)
    folder = tmp_path / "out"
    assert sorted(p.name for p in folder.rglob("*.*")) == sorted(
        [*(f"img_emb_{i:04d}.npy" for i in range(3)), *(f"metadata_{i:04d}.parquet" for i in range(3)), "galirep.json"]
    )
    read = reader.EmbeddingReader(
        embeddings_folder=str(folder / "img_emb"),
        metadata_folder=str(folder / "metadata"),
        meta_columns=["image_path", "label", "label_name"],
        file_format="parquet_npy",
    )
    assert (read.count, read.dimension) == (ROWS - 1, 10)
    blocks = list(read(batch_size=25, show_progress=False))
    with load_embeddings(path) as embeddings:
        assert np.array_equal(
            np.concatenate([features for features, _ in blocks]).astype(np.float32), embeddings.features[:]
        )
        assert np.load(folder / "img_emb" / "img_emb_0000.npy").dtype == embeddings.meta.dtype
        assert [name for _, table in blocks for name in table["image_path"]] == embeddings.ids.tolist()
        names = [name for _, table in blocks for name in table["label_name"]]
        assert names == [embeddings.label_names[label] if label >= 0 else None for label in embeddings.labels]


def test_there_and_back(path, tmp_path, cli):
    done = cli("export", path, "--format", "npy-parquet", "--out", tmp_path / "out", "--rows-per-file", 25, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["files"] == 3
    back = cli("export", tmp_path / "out", "--format", "hdf5", "--out", tmp_path / "back.h5")
    assert back.exit_code == 0, back.stderr
    with load_embeddings(path) as old, load_embeddings(tmp_path / "back.h5") as new:
        assert np.array_equal(old.features[:], new.features[:]) and old.layers == new.layers
        assert old.ids.tolist() == new.ids.tolist() and old.labels.tolist() == new.labels.tolist()
        assert vars(new.meta) == {**vars(old.meta), "n_expected": ROWS - 1}


def test_layers_can_be_chosen(path, tmp_path):
    export_embeddings(path, tmp_path / "out", layers=["mu"])
    import_embeddings(tmp_path / "out", tmp_path / "back.h5")
    with load_embeddings(path, ["mu"]) as old, load_embeddings(tmp_path / "back.h5") as new:
        assert new.layers == {"mu": slice(0, 4)} and np.array_equal(old.features[:], new.features[:])


def test_a_folder_of_clip_retrieval(tmp_path):
    """As `clip-retrieval inference` leaves it: captions and paths, no galirep.json."""
    import pyarrow
    import pyarrow.parquet

    for name in ("img_emb", "text_emb", "metadata"):
        (tmp_path / "clip" / name).mkdir(parents=True)
    features = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float16)
    for i in range(2):
        np.save(tmp_path / "clip" / "img_emb" / f"img_emb_{i}.npy", features[3 * i : 3 * i + 3])
        table = pyarrow.table({"image_path": [f"{i}/{k}.jpg" for k in range(3)], "caption": ["a"] * 3})
        pyarrow.parquet.write_table(table, tmp_path / "clip" / "metadata" / f"metadata_{i}.parquet")
    import_embeddings(tmp_path / "clip", tmp_path / "x.h5")
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        assert embeddings.meta.encoder == "clip" and embeddings.meta.dtype == "float16" and embeddings.labels is None
        assert np.array_equal(embeddings.features[:], features.astype(np.float32))
        assert embeddings.ids.tolist() == [f"{i}/{k}.jpg" for i in range(2) for k in range(3)]
    pyarrow.parquet.write_table(table, tmp_path / "clip" / "metadata" / "metadata_0.parquet")
    with pytest.raises(DataError, match=r"more than once: 1/0\.jpg, 1/1\.jpg, 1/2\.jpg"):
        import_embeddings(tmp_path / "clip", tmp_path / "y.h5")
    pyarrow.parquet.write_table(table.slice(0, 2), tmp_path / "clip" / "metadata" / "metadata_0.parquet")
    with pytest.raises(DataError, match=r"do not fit together, or do not fit its \.parquet files of 2, 3 rows"):
        import_embeddings(tmp_path / "clip", tmp_path / "y.h5")
    pyarrow.parquet.write_table(table.drop(["image_path"]), tmp_path / "clip" / "metadata" / "metadata_0.parquet")
    with pytest.raises(DataError, match=r"no ids: expected a column image_path or key or url"):
        import_embeddings(tmp_path / "clip", tmp_path / "y.h5")
    (tmp_path / "clip" / "img_emb" / "img_emb_0.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"img_emb_0\.npy is not a readable \.npy file"):
        import_embeddings(tmp_path / "clip", tmp_path / "y.h5")
    assert not list(tmp_path.glob("*y.h5*"))


def test_formats_that_do_not_fit(path, tmp_path, cli):
    wrong = cli("export", path, "--format", "hdf5", "--out", tmp_path / "out")
    assert wrong.exit_code == 2 and "is exported as npy-parquet" in wrong.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli("export", empty, "--layers", "mu", "--out", tmp_path / "out").exit_code == 2
    assert cli("export", empty, "--out", tmp_path / "out").exit_code == 1
    (tmp_path / "text.h5").write_text("text")
    foreign = cli("export", tmp_path / "text.h5", "--out", tmp_path / "out")
    assert foreign.exit_code == 1 and "not an HDF5 file" in foreign.stderr
    assert cli("export", path, "--out", empty).exit_code == 1
    assert cli("export", path, "--out", empty, "--overwrite").exit_code == 0
    assert (empty / "img_emb").is_dir() and not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
