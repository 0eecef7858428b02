"""Reading and writing embedding files: any order and number of rows; damaged or foreign files and full disks."""

import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import StoreMeta, partial_path
from galirep.embeddings.writer import EmbeddingWriter
from galirep.errors import ConfigError, DataError

ROWS = 300


def meta(**changes):
    known = {"encoder": "toy", "layers": (("hidden", 5), ("mu", 3)), "n_expected": ROWS, "label_names": ("cat", "dög")}
    return StoreMeta(**{**known, "encoder_sha256": "12ab", "preprocessing": {"size": 8}, "fingerprint": "f", **changes})


IDS = [f"dög/{i:03d}.png" for i in range(ROWS)]
LABELS = np.arange(ROWS) % 3 - 1
FEATURES = np.random.default_rng(0).standard_normal((ROWS, 8)).astype(np.float32)
BAD = {7: "empty", 150: "ß" * 500}


def write(path, upto=ROWS, errors=None, about=None, **options):
    with EmbeddingWriter.create(path, about or meta(), IDS, LABELS, **options) as writer:
        for start in range(0, upto, 40):
            block = range(start, min(start + 40, upto))
            writer.append(FEATURES[block], {i - start: why for i, why in (errors or {}).items() if i in block})
        if upto == ROWS:
            writer.finish()
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "x.h5", errors=BAD)


def test_everything_written_is_read(path):
    good = np.setdiff1d(np.arange(ROWS), list(BAD))
    with load_embeddings(path) as embeddings:
        assert len(embeddings) == len(good) and embeddings.dim == 8 and embeddings.complete
        assert embeddings.layers == {"hidden": slice(0, 5), "mu": slice(5, 8)}
        assert embeddings.label_names == ("cat", "dög") and embeddings.meta == meta()
        assert embeddings.ids.tolist() == [IDS[i] for i in good] and embeddings.labels.tolist() == LABELS[good].tolist()
        assert np.array_equal(np.asarray(embeddings.features), FEATURES[good])
        assert embeddings.errors == [(IDS[7], "empty"), (IDS[150], "ß" * 128)]
        assert embeddings.attributes["n_written"] == ROWS and embeddings.attributes["schema_version"] == 2
    with load_embeddings(path, valid_only=False) as embeddings:
        assert embeddings.ids.tolist() == IDS and not embeddings.features[[7, 150]].any()


@pytest.mark.parametrize(
    "index",
    [slice(None), slice(3, 9), slice(None, None, -7), 5, -1, [250, 3, 3, 9], np.arange(298) % 5 == 0, slice(9, 9)],
    ids=str,
)
def test_features_index_like_an_array(path, index):
    whole = np.delete(FEATURES, list(BAD), axis=0)
    with load_embeddings(path) as embeddings:
        assert np.array_equal(embeddings.features[index], whole[index])
        assert np.array_equal(
            embeddings.select(["mu", "hidden"]).features[index], whole[:, [5, 6, 7, 0, 1, 2, 3, 4]][index]
        )


def test_rows_and_blocks_of_chosen_layers(path):
    with load_embeddings(path, layers=["mu"], valid_only=False) as embeddings:
        assert embeddings.features.shape == (ROWS, 3) and embeddings.layers == {"mu": slice(0, 3)}
        assert np.array_equal(embeddings.rows(10, 20), FEATURES[10:20, 5:])  # the rows 10 to 19 are all valid
        assert np.array_equal(embeddings.rows(10, 20, ["hidden"]), FEATURES[10:20, :5])
        rows, blocks = zip(*embeddings.blocks(64), strict=True)
        assert [r.start for r in rows] == [0, 64, 128, 192, 256] and rows[-1].stop == ROWS
        assert np.concatenate(blocks).shape == (ROWS, 3)
        with pytest.raises(DataError, match="unknown layer 'm': did you mean 'mu'"):
            embeddings.select(["m"])
    with pytest.raises(ConfigError, match=r"x\.h5: layers mu, mu: name each layer once, of hidden, mu"):
        load_embeddings(path, layers=["mu", "mu"])


def test_rows_across_chunks(tmp_path):
    """Rows are so wide that a chunk has few of them; many more are read, shuffled and with gaps."""
    wide = np.random.default_rng(1).standard_normal((200, 4096)).astype(np.float32)
    with EmbeddingWriter.create(
        tmp_path / "w.h5", meta(layers=(("f", 4096),), n_expected=200), [str(i) for i in range(200)]
    ) as writer:
        writer.append(wide)
        writer.finish()
    order = np.random.default_rng(2).permutation(200)[:90]
    with load_embeddings(tmp_path / "w.h5") as embeddings:
        assert np.array_equal(embeddings.features[order], wide[order])


def test_no_labels(tmp_path):
    with EmbeddingWriter.create(tmp_path / "x.h5", meta(label_names=()), IDS) as writer:
        writer.append(FEATURES)
        writer.finish()
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        assert embeddings.labels is None and embeddings.label_names == ()


def test_float16(tmp_path):
    write(tmp_path / "x.h5", about=meta(dtype="float16"))
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        assert embeddings.meta.dtype == "float16"
        assert embeddings.features[:].dtype == np.float32 and np.array_equal(
            embeddings.features[:], FEATURES.astype(np.float16).astype(np.float32)
        )
    with EmbeddingWriter.create(tmp_path / "y.h5", meta(dtype="float16"), IDS) as writer:
        with pytest.raises(DataError, match=r"too large for float16 .* 1 of 300 images: dög/004.png"):
            writer.append(np.where(np.arange(ROWS)[:, None] == 4, 70000, FEATURES))
        assert writer.n_written == 0
    with pytest.raises(ConfigError, match="unknown dtype 'float61': did you mean 'float16'"):
        EmbeddingWriter.create(tmp_path / "z.h5", meta(dtype="float61"), IDS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_errors_about_nan_and_infinity_name_the_images(tmp_path, value):
    features = FEATURES.copy()
    features[[3, 9], 2] = value
    with EmbeddingWriter.create(tmp_path / "x.h5", meta(), IDS) as writer:
        with pytest.raises(DataError, match=r"NaN or infinite for 2 of 300 images: dög/003\.png, dög/009\.png"):
            writer.append(features)
        writer.append(features, {3: "broken", 9: "broken"})  # rows of unreadable images are not looked at
        assert writer.n_written == ROWS


def test_rows_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="300 rows are expected, not 2 ids"):
        EmbeddingWriter.create(tmp_path / "x.h5", meta(), ["a", "b"])
    assert not list(tmp_path.iterdir())
    with EmbeddingWriter.create(tmp_path / "x.h5", meta(), IDS) as writer:
        with pytest.raises(ValueError, match=r"features \(2, 7\) after 0 of 300 rows of 8 columns"):
            writer.append(np.zeros((2, 7)))
        with pytest.raises(ValueError, match="301"):
            writer.append(np.zeros((301, 8)))
        with pytest.raises(DataError, match="has 0 of 300 rows"):
            writer.finish()


def test_resume_goes_on_after_the_last_whole_batch(tmp_path):
    path = write(tmp_path / "x.h5", upto=130, errors={7: "empty", 125: "later"})
    assert not path.exists() and partial_path(path).exists()
    with pytest.raises(DataError, match=r"not complete: an interrupted run left x\.h5\.partial"):
        load_embeddings(path)
    with pytest.raises(DataError, match=r"not complete \(130 of 300 rows\)"):
        load_embeddings(partial_path(path))
    with load_embeddings(partial_path(path), incomplete=True, valid_only=False) as embeddings:
        assert len(embeddings) == 130 and not embeddings.complete
    with EmbeddingWriter.resume(path, meta(), multiple_of=32) as writer:
        assert writer.n_written == 128 and writer.errors == [(IDS[7], "empty"), (IDS[125], "later")]
        writer.append(FEATURES[128:], {2: "new"})
        writer.finish()
    assert not partial_path(path).exists()
    with load_embeddings(path) as embeddings:
        assert [name for name, _ in embeddings.errors] == [IDS[7], IDS[125], IDS[130]]
        assert np.array_equal(embeddings.features[:], np.delete(FEATURES, [7, 125, 130], axis=0))


def test_resume_lists_every_difference(tmp_path):
    path = write(tmp_path / "x.h5", upto=40)
    other = meta(encoder_sha256="34cd", preprocessing={"size": 9}, dtype="float16", fingerprint="g", precision="bf16")
    with pytest.raises(DataError) as caught:
        EmbeddingWriter.resume(path, other)
    for a, b in (
        ("'12ab'", "'34cd'"),
        ('{"size": 8}', '{"size": 9}'),
        ("'float32'", "'float16'"),
        ("'f'", "'g'"),
        ("'fp32'", "'bf16'"),
    ):
        assert f"{a} is not {b}" in str(caught.value)
    EmbeddingWriter.resume(path, meta(source="moved/elsewhere", encoder_spec="other/path", argv=("x",))).close()


def test_names_that_are_not_utf8_are_refused_at_the_start(tmp_path):
    with pytest.raises(DataError, match=r"not UTF-8 .* rename the files \(1\): 'ant\\udcff'"):
        EmbeddingWriter.create(tmp_path / "x.h5", meta(n_expected=2, source="folder\udcff"), ["ant\udcff", "bee"])
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_only_replaced_with_overwrite(path):
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="exists: choose another name or pass --overwrite"):
        write(path)
    write(path, upto=40, overwrite=True)
    assert path.read_bytes() == before  # until the new one is complete
    path.unlink()
    with pytest.raises(
        ConfigError, match="left by an interrupted run: --resume continues it, --overwrite starts again"
    ):
        write(path)
    write(path, overwrite=True)
    assert path.exists() and not partial_path(path).exists()


def test_no_space(path):
    """With a limit on the size of files in place of a full disk, the old file survives and nothing else is left."""
    before = path.read_bytes()
    code = """
        import resource, signal, sys
        from galirep.errors import DataError
        from galirep.embeddings.writer import EmbeddingWriter
        from galirep.embeddings.schema import StoreMeta
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        meta = StoreMeta("toy", (("f", 500),), n_expected=1000)
        try:
            EmbeddingWriter.create(sys.argv[1], meta, [str(i) for i in range(1000)], overwrite=True)
        except DataError as err:
            print(err)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), path], capture_output=True, text=True, check=True
    )
    assert f"no space left for {path}.partial: free some" in done.stdout
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    with pytest.raises(DataError, match=r"no space for .*y.h5: 1000000000000 rows of 8 columns need"):
        EmbeddingWriter.create(path.with_name("y.h5"), meta(n_expected=10**12), [])


def test_foreign_and_damaged_files(path, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_embeddings(tmp_path / "none.h5")
    with pytest.raises(DataError, match="is a directory"):
        load_embeddings(tmp_path)
    (tmp_path / "text.h5").write_text("not at all HDF5")
    with pytest.raises(DataError, match="is not an HDF5 file"):
        load_embeddings(tmp_path / "text.h5")
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(
        DataError, match=r"not an embedding file of galirep; to read images from it, --data hdf5:.*images.h5"
    ):
        load_embeddings(tmp_path / "images.h5")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="is truncated"):
        load_embeddings(tmp_path / "cut.h5")
    with h5py.File(path, "r+") as file:
        del file["labels"]
    with pytest.raises(DataError, match="is damaged"):
        load_embeddings(path)


def test_columns_that_do_not_fit_the_layers(path):
    with h5py.File(path, "r+") as file:
        file.attrs["layers"] = '{"mu": [0, 9]}'
    with pytest.raises(DataError, match="is damaged: its layers have 9 columns, its features 8"):
        load_embeddings(path)


def test_another_schema_version_names_the_galirep_that_reads_it(path):
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 7
        file.attrs["versions"] = '{"galirep": "9.2.0"}'
    with pytest.raises(
        DataError,
        match=r"schema version 7, galirep .* reads version 1 and 2: read it with galirep 9.2.0, which wrote it",
    ):
        load_embeddings(path)


def test_a_file_in_use_says_so(tmp_path):
    with EmbeddingWriter.create(tmp_path / "x.h5", meta(), IDS) as writer:
        writer.append(FEATURES[:10])
        code = (
            "import sys; from galirep.errors import GalirepError\n"
            "from galirep.embeddings.reader import load_embeddings\n"
            "from galirep.embeddings.schema import StoreMeta\n"
            "from galirep.embeddings.writer import EmbeddingWriter\n"
            "def attempt(call):\n"
            "    try: print('got', call())\n"
            "    except GalirepError as err: print(err)\n"
            "part, meta = sys.argv[1] + '.partial', StoreMeta('toy', (('f', 1),), n_expected=1)\n"
            "attempt(lambda: load_embeddings(part, incomplete=True))\n"
            "attempt(lambda: EmbeddingWriter.create(sys.argv[1], meta, ['a'], overwrite=True))\n"
            "attempt(lambda: len(load_embeddings(part, incomplete=True, locking=False)))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "x.h5"], capture_output=True, text=True, check=True
        )
    read, write_, unlocked = done.stdout.splitlines()
    assert "is locked: another process reads or writes it" in read and "HDF5_USE_FILE_LOCKING=FALSE" in read
    assert "x.h5 is in use: process" in write_
    assert unlocked == "got 10"


def test_a_long_command_line_is_kept_short(tmp_path):
    argv = ("galirep", *(f"part-{i:06d}.h5" for i in range(20_000)))
    write(tmp_path / "x.h5", about=meta(argv=argv))
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        kept = embeddings.meta.argv
    assert kept[:2] == argv[:2] and kept[-1] == f"... {len(argv) - len(kept) + 1} more" and 1000 < len(kept) < 5000
