"""Merging embedding files: rows, ids, labels by name, clear errors, and virtual files whose parts are missing."""

import numpy as np
import pytest

from galirep.embeddings.merge import merge
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.embeddings.writer import EmbeddingWriter
from galirep.errors import ConfigError, DataError

META = StoreMeta(
    "toy", (("hidden", 3), ("mu", 2)), n_expected=4, encoder_sha256="12ab", fingerprint="f", label_names=("ant", "bee")
)


def part(path, ids, labels=None, errors=None, **changes):
    rows = len(ids)
    features = np.random.default_rng(len(path.name) + rows).standard_normal((rows, 5)).astype(np.float32)
    with EmbeddingWriter.create(
        path, StoreMeta(**{**vars(META), "n_expected": rows, **changes}), ids, labels
    ) as writer:
        writer.append(features, errors)
        writer.finish()
    return path


@pytest.fixture
def parts(tmp_path):
    return [
        part(tmp_path / "a.h5", ["1", "2", "3"], [0, 1, -1], {1: "broken"}),
        part(tmp_path / "bb.h5", ["4", "5"], [1, 0], label_names=("bee", "cow"), source="x", fingerprint="g"),
        part(tmp_path / "ccc.h5", ["6"], label_names=()),
    ]


@pytest.mark.parametrize("virtual", [False, True])
def test_rows_ids_labels_and_errors_of_all_parts(parts, tmp_path, virtual):
    result = merge(parts, tmp_path / "all.h5", virtual=virtual)
    assert (result.rows, result.virtual) == (6, virtual)
    with load_embeddings(tmp_path / "all.h5", valid_only=False) as embeddings:
        assert embeddings.ids.tolist() == ["1", "2", "3", "4", "5", "6"]
        assert embeddings.label_names == ("ant", "bee", "cow") and embeddings.labels.tolist() == [0, 1, -1, 2, 1, -1]
        assert embeddings.errors == [("2", "broken")]
        expected = np.concatenate([load_embeddings(p, valid_only=False).features[:] for p in parts])
        assert np.array_equal(embeddings.features[:], expected)
        assert np.array_equal(embeddings.select(["mu"]).features[[5, 0]], expected[[5, 0], 3:])
    with load_embeddings(tmp_path / "all.h5") as embeddings:
        assert embeddings.ids.tolist() == ["1", "3", "4", "5", "6"]


def test_a_virtual_file_is_small_moves_with_its_parts_and_notices_missing_ones(tmp_path):
    (tmp_path / "here").mkdir()
    big = [part(tmp_path / "here" / f"{'p' * n}.h5", [f"{n}/{i}" for i in range(20_000)]) for n in (1, 2)]
    merge(big, tmp_path / "here" / "all.h5", virtual=True)
    copied = merge(big, tmp_path / "copy.h5").path
    assert (tmp_path / "here" / "all.h5").stat().st_size < copied.stat().st_size - 2 * 20_000 * 5 * 4 + 10_000
    moved = (tmp_path / "here").rename(tmp_path / "there")
    with load_embeddings(moved / "all.h5") as embeddings, load_embeddings(copied) as same:
        assert np.array_equal(embeddings.features[:], same.features[:])
    part(tmp_path / "other.h5", [str(i) for i in range(20_000)]).replace(moved / "p.h5")
    with pytest.raises(DataError, match=r"points at .*p\.h5, which is another file now"):
        load_embeddings(moved / "all.h5")
    (moved / "p.h5").unlink()
    with pytest.raises(DataError, match=r"points at .*p\.h5, which cannot be read"):
        load_embeddings(moved / "all.h5")


@pytest.mark.parametrize("virtual", [False, True])
def test_refusals_leave_nothing_behind(parts, tmp_path, virtual):
    def refused(*paths, error=DataError):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(error) as caught:
            merge(paths, tmp_path / "all.h5", virtual=virtual)
        assert sorted(tmp_path.iterdir()) == before
        return str(caught.value)

    repeated = part(tmp_path / "again.h5", ["7", "5", "4"])
    text = refused(*parts, repeated)
    assert "ids occur in more than one row" in text and f"4 in {parts[1]} and {repeated}; 5 in" in text
    other = part(tmp_path / "other.h5", ["9"], encoder_sha256="34cd", preprocessing={"size": 1}, precision="bf16")
    assert all(
        name in refused(parts[0], other)
        for name in ("'12ab' is not '34cd'", 'is not {"size": 1}', "'fp32' is not 'bf16'")
    )
    assert "'float32' is not 'float16'" in refused(parts[0], part(tmp_path / "half.h5", ["9"], dtype="float16"))
    unnamed = part(tmp_path / "unnamed.h5", ["8"], [0], label_names=())
    assert "unnamed.h5 are numbers without names, but" in refused(parts[0], unnamed)
    assert "no such file" in refused(parts[0], tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("text")
    assert "not an HDF5 file" in refused(parts[0], tmp_path / "text.h5")
    assert "name the files" in refused(error=ConfigError)


def test_an_existing_file_is_only_replaced_with_overwrite(parts, tmp_path, cli):
    (tmp_path / "all.h5").write_text("mine")
    args = ("merge", *parts, "--out", tmp_path / "all.h5")
    refused = cli(*args)
    assert (
        refused.exit_code == 1
        and "exists: choose another name" in refused.stderr
        and (tmp_path / "all.h5").read_text() == "mine"
    )
    done = cli(*args, "--overwrite", "--json")
    assert done.exit_code == 0 and '"rows": 6' in done.stdout
    same = cli("merge", *parts, "--out", parts[1], "--overwrite")
    assert same.exit_code == 1 and "is one of the files to merge" in same.stderr
    twice = cli("merge", parts[0], *parts, "--out", tmp_path / "x.h5")
    assert twice.exit_code == 1 and f"{parts[0]} is named twice: name each file once" in twice.stderr
    assert cli("merge", "--out", tmp_path / "x.h5").exit_code == 2


def test_labels_without_names_are_kept(tmp_path):
    paths = [part(tmp_path / f"{'n' * n}.h5", [str(n)], [n], label_names=()) for n in (3, 5)]
    merge(paths, tmp_path / "all.h5")
    with load_embeddings(tmp_path / "all.h5") as embeddings:
        assert embeddings.labels.tolist() == [3, 5] and embeddings.label_names == ()


@pytest.mark.parametrize(("other", "kept"), [({"split": "test"}, None), ({"source": "elsewhere"}, None), ({}, "train")])
def test_the_split_is_kept_where_all_parts_are_of_one_split_of_one_set(tmp_path, other, kept):
    one = part(tmp_path / "one.h5", ["1"], source="set", split="train")
    two = part(tmp_path / "three.h5", ["2"], **{"source": "set", "split": "train", **other})
    assert load_embeddings(merge([one, two], tmp_path / "all.h5").path).meta.split == kept


def test_numbers_are_merged_with_names_that_are_numbers(tmp_path):
    named = part(tmp_path / "named.h5", ["1", "2"], [0, 1], label_names=("10", "9"))
    numbers = part(tmp_path / "numbers.h5", ["3", "4", "5"], [9, -1, 11], label_names=())
    for files in ([named, numbers], [numbers, named]):
        merge(files, tmp_path / "all.h5", overwrite=True)
        with load_embeddings(tmp_path / "all.h5") as embeddings:
            names = {
                i: embeddings.label_names[k] if k >= 0 else ""
                for i, k in zip(embeddings.ids, embeddings.labels, strict=True)
            }
        assert names == {"1": "10", "2": "9", "3": "9", "4": "", "5": "11"}
