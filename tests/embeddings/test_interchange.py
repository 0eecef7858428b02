"""The folder layout of clip-retrieval: embedding-reader reads what is exported, and it comes back the same."""

import json

import numpy as np
import pytest

from galirep.embeddings.interchange.npy_parquet import export_embeddings, import_embeddings
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
    note = "1 row of an unreadable image is not exported: dög/5.png"
    assert json.loads(done.stdout)["notes"] == [note]
    assert json.loads((tmp_path / "out" / "galirep.json").read_text(encoding="utf-8"))["notes"] == [note]
    back = cli("export", tmp_path / "out", "--format", "hdf5", "--out", tmp_path / "back.h5")
    assert back.exit_code == 0, back.stderr
    assert f"note: {note}" in back.stdout
    with load_embeddings(path) as old, load_embeddings(tmp_path / "back.h5") as new:
        assert np.array_equal(old.features[:], new.features[:]) and old.layers == new.layers
        assert old.ids.tolist() == new.ids.tolist() and old.labels.tolist() == new.labels.tolist()
        assert vars(new.meta) == {**vars(old.meta), "n_expected": ROWS - 1}


def test_rows_that_are_not_exported_are_named(tmp_path):
    meta = StoreMeta("toy", (("mu", 2),), 20)
    with EmbeddingWriter.create(tmp_path / "x.h5", meta, [f"{i}.png" for i in range(20)], None) as writer:
        writer.append(np.ones((20, 2), np.float32), dict.fromkeys(range(12), "broken"))
        writer.finish()
    result = export_embeddings(tmp_path / "x.h5", tmp_path / "out")
    note = "12 rows of unreadable images are not exported: 0.png, 1.png, 2.png, 3.png, 4.png and 7 more"
    assert result.rows == 8 and result.notes == (note,)
    assert import_embeddings(tmp_path / "out", tmp_path / "back.h5").notes == (note,)


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


def _folder(path, columns, header=None):
    """Write a folder with one pair of files for each table in `columns`."""
    import pyarrow
    import pyarrow.parquet

    rows = 0
    for name in ("img_emb", "metadata"):
        (path / name).mkdir(parents=True)
    for i, table in enumerate(columns):
        n = len(next(iter(table.values())))
        np.save(path / "img_emb" / f"img_emb_{i}.npy", np.eye(n, 4, dtype=np.float32))
        ids = {} if "image_path" in table else {"image_path": [f"{rows + k}.png" for k in range(n)]}
        pyarrow.parquet.write_table(pyarrow.table({**ids, **table}), path / "metadata" / f"metadata_{i}.parquet")
        rows += n
    return path


@pytest.mark.parametrize(
    ("tables", "labels", "names", "notes"),
    [
        ([{"label": ["dog", " cat", None]}], [1, 0, -1], ("cat", "dog"), "1 of 3 rows have no label"),
        ([{"label": [1.0, float("nan"), 0.0]}], [1, -1, 0], (), "1 of 3 rows have no label"),
        ([{"label": ["1.0", "NaN", "0"]}], [1, -1, 0], (), "'NaN' and count as no label"),
        (
            [{"label": [7, 9, None], "label_name": ["dog", "cat", None]}],
            [1, 0, -1],
            ("cat", "dog"),
            "1 of 3 rows have no label",
        ),
        ([{"label_name": ["dog", "cat", None]}], [1, 0, -1], ("cat", "dog"), "1 of 3 rows have no label"),
        ([{"label": [1, 0]}, {"caption": ["a"]}], [1, 0, -1], (), "1 of 2 files have no column label"),
        ([{"label": ["dog", "cat"]}, {"label": ["dog"]}], [1, 0, 1], ("cat", "dog"), ""),
        ([{"Label": ["dog", "cat"]}, {"label": ["dog"]}], [1, 0, 1], ("cat", "dog"), ""),
        ([{"label": [1, 0], "Label": [0, 1]}], [1, 0], (), "columns 'Label' are not read; ids are a column image_path"),
        ([{"label": [True, False]}], [1, 0], (), "booleans are read as 0 and 1"),
        ([{"class": [1, 0]}], [], (), "columns 'class' are not read"),
        (
            [{"url": ["x", "y"]}],
            [],
            (),
            "columns 'url' are not read; ids are a column image_path or key or url, here im",
        ),
    ],
)
def test_labels_of_other_tools(tmp_path, cli, tables, labels, names, notes):
    folder = _folder(tmp_path / "f", tables)
    done = cli("export", folder, "--out", tmp_path / "x.h5", "--json")
    assert done.exit_code == 0, done.stderr
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        assert ([] if embeddings.labels is None else embeddings.labels.tolist()) == labels
        assert embeddings.label_names == names
    told = json.loads(done.stdout)["notes"]
    assert bool(told) == bool(notes) and notes in "".join(told) and notes in done.stderr


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"label": [0.25, 0.5]}, "the labels are classes, whole numbers or names, but that of row 0 is 0.25"),
        ({"label": [0, -7]}, "the labels go down to -7"),
        ({"label": [[1, 2], [0, 1]]}, "the labels are .* of shape"),
        ({"label": [0, 0], "label_name": ["a", "b"]}, "label 0 has the label_name 'a' in one row and 'b' in another"),
        ({"label": [0, 1], "label_name": ["a", "a"]}, "2 numbers in the column label have fewer names"),
        ({"LABEL": [0, 1], "Label": [1, 0]}, r"has 2 columns 'label' \('LABEL', 'Label'\): keep one"),
        ({"image_path": ["a", None]}, "1 rows have no image_path, the first is row 1"),
    ],
)
def test_labels_that_are_refused(tmp_path, cli, table, message):
    with pytest.raises(DataError, match=message) as caught:
        import_embeddings(_folder(tmp_path / "f", [table]), tmp_path / "x.h5")
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*x.h5*"))


def test_labels_are_those_of_the_header_or_refused(path, tmp_path):
    import pyarrow.parquet

    export_embeddings(path, tmp_path / "out")
    file = tmp_path / "out" / "metadata" / "metadata_0000.parquet"
    table = pyarrow.parquet.read_table(file).drop(["label_name"])
    # the change is meant
    header = json.loads((tmp_path / "out" / "galirep.json").read_text(encoding="utf-8"))
    del header["files"], header["content_sha256"]
    (tmp_path / "out" / "galirep.json").write_text(json.dumps(header), encoding="utf-8")
    texts = ["bee" if k else "cow" for k in range(ROWS - 1)]
    pyarrow.parquet.write_table(table.drop(["label"]).append_column("label", [texts]), file)
    import_embeddings(tmp_path / "out", tmp_path / "z.h5")
    with load_embeddings(tmp_path / "z.h5") as embeddings:
        assert embeddings.label_names == ("ant", "bee", "cow") and embeddings.labels[:3].tolist() == [2, 1, 1]
    pyarrow.parquet.write_table(table.drop(["label"]).append_column("label", [[2] * (ROWS - 1)]), file)
    with pytest.raises(DataError, match="the labels go up to 2, but only 2 classes have names"):
        import_embeddings(tmp_path / "out", tmp_path / "y.h5")
    file.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"metadata_0000\.parquet is not a readable \.parquet file"):
        import_embeddings(tmp_path / "out", tmp_path / "y.h5")


def test_the_writer_takes_whole_numbers_only(tmp_path):
    meta = StoreMeta("toy", (("mu", 2),), 2)
    for labels, message in (([0.25, 0.5], "0.25"), ([0, -7], "go down to -7"), (["a", "b"], "the labels are names")):
        with pytest.raises(DataError, match=message):
            EmbeddingWriter.create(tmp_path / "x.h5", meta, ["1", "2"], labels)
    assert not list(tmp_path.iterdir())


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
