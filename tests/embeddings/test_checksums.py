"""Schema 2: each row and the outline have checksums, which verify, --resume, merge and check=True compare."""

import hashlib
import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

import galirep
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import ERROR, StoreMeta, partial_path
from galirep.embeddings.verify import verify
from galirep.embeddings.writer import EmbeddingWriter
from galirep.errors import DataError

OLD = Path(__file__).parents[1] / "fixtures" / "written_by_04408f9" / "digits.h5"
ROWS = 90
IDS = [f"dög/{i:03d}.png" for i in range(ROWS)]
LABELS = np.arange(ROWS) % 3 - 1
FEATURES = np.random.default_rng(0).standard_normal((ROWS, 8)).astype(np.float32)
BAD = {7: "empty", 50: "ß" * 500}
META = StoreMeta(
    "toy", (("hidden", 5), ("mu", 3)), ROWS, encoder_sha256="12ab", fingerprint="f", label_names=("cat", "dög")
)


def write(path, upto=ROWS, errors=BAD, meta=META):
    with EmbeddingWriter.create(path, meta, IDS, LABELS) as writer:
        for start in range(0, upto, 16):
            block = range(start, min(start + 16, upto))
            writer.append(FEATURES[block], {row - start: why for row, why in errors.items() if row in block})
        if upto == ROWS:
            writer.finish()
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "x.h5")


def change(path, name, row, value):
    with h5py.File(path, "r+") as file:
        file[name][row] = value


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_checksums_are_those_that_the_docs_state(tmp_path, dtype):
    """Written from docs/embeddings.md, with h5py and the standard library alone."""
    path = write(tmp_path / "x.h5", meta=StoreMeta(**{**vars(META), "dtype": dtype}))
    with h5py.File(path) as file:
        reasons = {row: reason for row, reason in file["errors"][:].tolist() if row >= 0}
        assert sorted(reasons) == [7, 50]
        for row in range(ROWS):
            label = int(file["labels"][row]).to_bytes(8, "little", signed=True)
            beside = file["ids"][row] + label + bytes([int(file["valid"][row])]) + reasons.get(row, b"")
            assert file["checksums"][row].tolist() == [
                zlib.crc32(file["features"][row].tobytes()),
                zlib.crc32(beside),
            ]
        attributes = {name: value for name, value in file.attrs.items() if name != "outline"}
        plain = {name: v.decode() if isinstance(v, bytes) else v.item() for name, v in attributes.items()}
        datasets = {}
        for name, dataset in file.items():
            text = h5py.check_string_dtype(dataset.dtype)
            shape = [0] if name == "errors" else list(dataset.shape)
            datasets[name] = [shape, [str(dataset.dtype), text.encoding if text else None]]
        content = b"".join(file[name][:].tobytes() for name in ("ids", "label_names", "labels"))
        outline = json.dumps([plain, datasets], sort_keys=True).encode() + content
        assert hashlib.sha256(outline).hexdigest() == file.attrs["outline"].decode()
        assert file["progress"][:].tolist() == [ROWS, 1]


def test_a_file_has_no_strings_of_variable_length(path):
    with h5py.File(path) as file:
        kinds = [file[name].dtype for name in file] + [file.attrs.get_id(name).dtype for name in file.attrs]
    assert not any(kind.hasobject for kind in kinds)
    # the signature of HDF5's global heap
    assert b"GCOL" not in path.read_bytes()


@pytest.mark.parametrize(
    ("name", "row", "value", "what"),
    [
        ("features", (3, 2), 0.5, "row"),
        ("labels", 3, 1, "both"),
        ("ids", 3, b"other.png", "both"),
        ("valid", 3, False, "row"),
        ("errors", 0, np.array((7, b"else"), ERROR), "row"),
        ("checksums", (3, 0), 1, "row"),
        ("label_names", 0, b"cow", "outline"),
        ("layers", None, '{"hidden": [0, 4], "mu": [4, 8]}', "outline"),
        ("encoder_sha256", None, "34cd", "outline"),
        ("source_fingerprint", None, "g", "outline"),
        ("outline", None, "0" * 64, "outline"),
    ],
)
def test_every_value_that_changed_is_noticed(path, name, row, value, what, cli):
    if row is None:
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value
    else:
        change(path, name, row, value)
    problems = verify(path).problems
    changed = "dög/007.png" if name == "errors" else "other.png" if name == "ids" else "dög/003.png"
    assert (f"rows that do not have their checksums (1): {changed}" in problems) == (what != "outline")
    outline = "the metadata, ids, labels or label names are not those that were written"
    assert (outline in problems) == (what != "row")
    assert cli("verify", path).exit_code == 1
    with pytest.raises(DataError, match=r"x\.h5 is damaged: .* make it again or copy it again"):
        load_embeddings(path, check=True)
    load_embeddings(path).close()


def test_resume_makes_damaged_rows_again(tmp_path):
    path = tmp_path / "x.h5"
    write(path, upto=64)
    change(partial_path(path), "features", (21, 3), 9.0)
    with EmbeddingWriter.resume(path, META, multiple_of=16) as writer:
        assert writer.n_written == 16
        assert writer.notes == (
            "x.h5.partial is damaged: 1 of 64 rows (21) do not have their checksums; rows from 16 on are made again",
        )
        for start in (16, 32, 48, 64):
            rows = range(start, min(start + 16, ROWS))
            writer.append(FEATURES[rows], {row - start: why for row, why in BAD.items() if row in rows})
        writer.append(FEATURES[80:])
        writer.finish()
    whole = write(tmp_path / "whole.h5")
    with h5py.File(path) as one, h5py.File(whole) as two:
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not verify(path).problems


@pytest.mark.parametrize("name", ["ids", "labels"])
def test_resume_refuses_ids_and_labels_that_changed(tmp_path, name):
    write(tmp_path / "x.h5", upto=64)
    # of a row that is not written yet
    change(partial_path(tmp_path / "x.h5"), name, 80, b"dog" if name == "ids" else 0)
    with pytest.raises(DataError, match="metadata, ids or labels are not those that were written; pass --overwrite"):
        EmbeddingWriter.resume(tmp_path / "x.h5", META)


def test_the_counter_is_written_after_the_rows(tmp_path):
    """A block that was written, but not counted, costs nothing: its rows are written again."""
    path = tmp_path / "x.h5"
    write(path, upto=64)
    change(partial_path(path), "progress", 0, 48)
    with EmbeddingWriter.resume(path, META) as writer:
        assert writer.n_written == 48 and not writer.notes
        assert [image_id for image_id, _ in writer.errors] == [IDS[7]]
    change(partial_path(path), "progress", 0, 80)
    with EmbeddingWriter.resume(path, META) as writer:
        assert writer.n_written == 64 and "16 of 80 rows" in writer.notes[0]


def test_embed_resumes_only_what_is_what_was_written(tmp_path, cli):
    out = tmp_path / "x.h5"
    args = ("--encoder", "pixels:4", "--data", "sklearn:digits", "--split", "test", "--out", out, "--device", "cpu")
    assert cli("embed", *args).exit_code == 0
    whole = out.read_bytes()
    change(out, "features", (40, 0), 9.0)
    done = cli("embed", *args, "--resume")
    assert done.exit_code == 1 and "x.h5 is damaged: 1 of 445 rows (40) do not have their checksums" in done.stderr
    change(out, "progress", 1, 0)
    out.rename(partial_path(out))
    done = cli("embed", *args, "--resume", "--json")
    assert done.exit_code == 0, done.stderr
    note = "x.h5.partial is damaged: 1 of 445 rows (40) do not have their checksums; rows from 0 on are made again"
    assert note in done.stderr and json.loads(done.stdout)["notes"] == [note]
    with h5py.File(out) as file:
        assert file["features"][:].tobytes() in whole
    assert not verify(out).problems


def test_a_file_of_schema_one_is_resumed_as_what_it_is(tmp_path, cli, monkeypatch):
    monkeypatch.chdir(shutil.copytree(OLD.parent, tmp_path / "old"))
    args = ("embed", "--encoder", "run", "--data", "sklearn:digits", "--split", "test", "--layers", "mu")
    args = (*args, "--out", "digits.h5", "--device", "cpu", "--resume")
    done = cli(*args)
    assert "digits.h5 is of schema 1, which has no checksums: its rows are not checked" in done.stderr
    with h5py.File("digits.h5") as file:
        whole = file["features"][:]
    with h5py.File("digits.h5", "r+") as file:
        file.attrs["n_written"], file.attrs["complete"], file["features"][100:] = 100, False, 0
    Path("digits.h5").rename("digits.h5.partial")
    done = cli(*args)
    assert done.exit_code == 0 and "it is resumed as schema 1, and the rows that it has are not checked" in done.stderr
    with h5py.File("digits.h5") as file:
        assert file.attrs["schema_version"] == 1 and file.attrs["n_written"] == len(whole) and file.attrs["complete"]
        np.testing.assert_allclose(file["features"][:], whole, atol=1e-5)
    result = galirep.verify("digits.h5")
    assert not result.problems and "schema 1, which has no checksums" in result.warnings[0]


@pytest.mark.parametrize("virtual", [False, True])
def test_merge_writes_schema_two_and_certifies_nothing_damaged(tmp_path, path, virtual):
    shutil.copy(OLD, tmp_path / "old.h5")
    merged = galirep.merge([tmp_path / "old.h5"], tmp_path / "new.h5", virtual=virtual).path
    with load_embeddings(merged, check=True) as new, load_embeddings(OLD) as old:
        assert (new.schema_version, old.schema_version) == (2, 1)
        assert np.array_equal(new.features[:], old.features[:]) and new.ids.tolist() == old.ids.tolist()
    merged = galirep.merge([path], tmp_path / "all.h5", virtual=virtual, overwrite=True).path
    assert not verify(merged).problems
    change(path, "features", (21, 3), 9.0)
    if virtual:
        # the checksums of the merge are those of the part, so it is noticed afterwards
        assert "rows that do not have their checksums (1): dög/021.png" in verify(merged).problems
    else:
        with pytest.raises(DataError, match=r"x\.h5 is damaged: 1 of its rows .* the first is that of 'dög/021.png'"):
            galirep.merge([path], tmp_path / "all.h5", overwrite=True)
        assert not verify(merged).problems
    change(path, "valid", 4, False)
    with pytest.raises(DataError, match=r"x\.h5 is damaged"):
        galirep.merge([path], tmp_path / "all.h5", virtual=virtual, overwrite=True)


def test_more_unreadable_images_than_there_is_room_for_at_first(tmp_path):
    errors = {row: f"reason {row}" for row in range(85)}
    path = write(tmp_path / "x.h5", errors=errors)
    with load_embeddings(path, check=True) as embeddings:
        assert embeddings.errors == [(IDS[row], f"reason {row}") for row in range(85)]
    assert not verify(path).problems


def test_ids_with_a_zero_character(tmp_path):
    with pytest.raises(DataError, match=r"zero character\) cannot be ids, rename the files \(1\): 'a.x00'"):
        EmbeddingWriter.create(tmp_path / "x.h5", StoreMeta("toy", (("f", 1),), 1), ["a\0"])


FLIPS = """
import sys, random
import h5py, numpy as np
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.verify import verify
from galirep.errors import GalirepError

path, count = sys.argv[1], int(sys.argv[2])
def content():
    with load_embeddings(path, valid_only=False, incomplete=True) as e:
        values = [e.ids.tolist(), e.label_names, e.errors, e.complete, e.meta, sorted(e.attributes.items())]
        labels = None if e.labels is None else e.labels.tolist()
        return repr(values), labels, e.features[:].tobytes(), e.file["valid"][:].tobytes()
whole, noticed, harmless = bytearray(open(path, "rb").read()), 0, 0
right = content()
draw = random.Random(0)
for place in sorted(draw.sample(range(len(whole)), count)):
    changed = bytearray(whole)
    changed[place] ^= 1 << draw.randrange(8)
    open(path, "wb").write(changed)
    print(place, flush=True)
    try:
        if not verify(path).ok:
            noticed += 1
            continue
    except GalirepError as err:
        assert "\\n" not in str(err)
        noticed += 1
        continue
    # a byte that HDF5 does not use
    assert content() == right, f"byte {place} changed something unseen"
    harmless += 1
print(noticed, harmless)
"""


def test_no_flipped_bit_is_unseen(path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FLIPS, path, "120"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, (done.stdout[-20:], done.stderr[-2000:])
    noticed, harmless = map(int, done.stdout.splitlines()[-1].split())
    assert noticed + harmless == 120 and noticed > 30
