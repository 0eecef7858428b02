"""`verify`: problems, warnings and exit codes, for good and for faulty files."""

import json

import h5py
import numpy as np
import pytest
from edited_files import edited

from galirep.embeddings.embed import embed
from galirep.embeddings.schema import partial_path
from galirep.embeddings.storage.layout import create_texts, write_attribute
from galirep.embeddings.verify import verify

SPEC = "pixels:8"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "good.h5"
    embed(SPEC, "sklearn:digits", path, split="test", device="cpu")
    return path


@pytest.fixture
def path(good, tmp_path):
    copy = tmp_path / "x.h5"
    copy.write_bytes(good.read_bytes())
    return copy


def test_a_good_file(good, cli):
    done = cli("verify", good, "--json")
    assert done.exit_code == 0 and "in order" in done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] and result["rows"] == result["valid"] > 400 and result["problems"] == result["warnings"] == []


def test_embeds_a_sample_again(good, cli):
    for args in (
        ("--data", "sklearn:digits"),
        ("--encoder", SPEC),
        ("--encoder", SPEC, "--data", "sklearn:digits", "--split", "test"),
    ):
        done = cli("verify", good, *args, "--sample", 20, "--device", "cpu", "--json")
        result = json.loads(done.stdout)
        assert (
            done.exit_code == 0 and result["compared"] == 20 and result["worst"] <= 1e-6 and result["tolerance"] == 1e-3
        )


def test_features_of_other_images_or_encoders(path, good, cli):
    with edited(path) as file:
        file["features"][:] = file["features"][:][::-1]
    result = verify(path, data="sklearn:digits", sample=10, device="cpu")
    assert len(result.problems) == 1 and result.worst > 0.1
    assert "of 10 images embedded again differ by more than 0.001" in result.problems[0]
    assert verify(path, data="sklearn:digits", sample=10, tolerance=10.0).problems == []
    result = verify(good, data="sklearn:digits", split="train", device="cpu")
    assert (
        "fingerprint differs" in result.warnings[0] and "does not have" in result.problems[0] and result.compared == 0
    )
    result = verify(good, encoder="pixels:9", device="cpu")
    assert "'pixels:9' is not the one that made the file: encoder 'pixels-8' is not 'pixels-9'" in result.problems[0]


@pytest.mark.parametrize(
    ("column", "row", "value", "text"),
    [
        ("features", 3, np.nan, "rows with NaN or infinity (1): "),
        ("features", 3, 0.25, "constant rows (1): "),
        ("ids", 3, "same", ""),
        ("ids", slice(3, 5), "same", "duplicate ids (1): same"),
        ("ids", 3, "", "empty ids (1)"),
        ("labels", 3, 10, "labels outside -1 to 9 (1): "),
        ("labels", 3, -2, "labels outside -1 to 9 (1): "),
        ("labels", slice(None), -5, "labels outside -1 to 9 (445): "),
        ("label_names", slice(0, 2), "x", "label names repeat"),
        ("label_names", 2, "", "a label name is empty"),
        ("features", slice(None), np.arange(192), "rows are equal"),
        ("progress", 0, 444, "marked as complete, but 444 of 445 rows are written"),
        ("progress", 1, 0, "not complete: 445 of 445 rows"),
        ("valid", 3, False, "rows that are not valid, without a reason (1): "),
        ("valid", 3, False, "rows that are not valid, but have features (1): "),
        ("errors", 0, (3, b"x"), "valid rows with a reason why they are not (1): "),
        ("errors", slice(0, 2), (3, b"x"), "errors names a row twice"),
    ],
)
def test_what_is_wrong_is_named(path, cli, column, row, value, text):
    """The checksums fit what was written wrongly, so that the invariant itself is what notices."""
    with edited(path) as file:
        file[column][row] = np.array(value, file[column].dtype) if column == "errors" else value
        name = file["ids"].asstr()[3]
    done = cli("verify", path)
    assert "checksums" not in done.stdout and "that were written" not in done.stdout
    if not text:
        assert done.exit_code == 0
        return
    assert done.exit_code == 1 and "not fit for use" in done.stdout
    assert f"problem: {text}" in done.stdout.replace("problem: all 445 ", "problem: ")
    assert name in done.stdout or column in ("label_names", "progress") or isinstance(row, slice)


def test_labels_below_no_label_without_names(path):
    """No label of the file is one, so that readers see none at all."""
    with edited(path) as file:
        file["labels"][:] = -7
        del file["label_names"]
        create_texts(file, "label_names", [])
    assert verify(path).problems[0].startswith("labels outside -1 to -1 (445): ")


@pytest.mark.parametrize(
    ("attribute", "value", "text"),
    [
        ("precision", "fp8", "the precision is 'fp8'"),
        ("encoder", "", "the name of the encoder is empty"),
        ("created", "now", "the time of creation is 'now'"),
        ("file_id", "", "it has no file_id"),
        ("n_expected", 446, "the dataset ids has 445 rows, not 446"),
    ],
)
def test_metadata_that_cannot_be(path, attribute, value, text):
    with edited(path) as file:
        del file.attrs[attribute]
        write_attribute(file, attribute, value)
    assert any(text in problem for problem in verify(path).problems)


def test_validity_that_is_no_truth_value(path):
    with h5py.File(path, "r") as file:
        place, name = file["valid"].id.get_offset(), file["ids"].asstr()[3]
    with path.open("r+b") as file:
        file.seek(place + 3)
        file.write(b"\7")
    assert f"validity that is neither true nor false (1): {name}" in verify(path).problems


def test_what_deserves_a_look_is_a_warning(path, cli):
    with edited(path) as file:
        file["features"][5] = file["features"][9]
        file["labels"][7] = -1
        file["valid"][11], file["features"][11] = False, 0
        file["errors"][0] = (11, b"broken")
        five, nine, bad = (file["ids"].asstr()[i] for i in (5, 9, 11))
    done = cli("verify", path)
    assert done.exit_code == 0 and done.stdout.count("warning: ") == 3 and "in order" in done.stdout
    for text in (
        f"rows equal to another one, as of equal images (1): {five} = {nine}",
        "have no label",
        f"{bad}: broken",
    ):
        assert text in done.stdout


def test_an_incomplete_file(path, cli):
    with h5py.File(path, "r+") as file:
        file["progress"][:] = (100, 0)
    path = path.rename(partial_path(path))
    done = cli("verify", path)
    assert done.exit_code == 1 and "problem: not complete: 100 of 445 rows" in done.stdout


def test_no_embedding_file(tmp_path, cli):
    assert cli("verify", tmp_path / "none.h5").exit_code == 1
    (tmp_path / "x.h5").write_text("text")
    done = cli("verify", tmp_path / "x.h5")
    assert done.exit_code == 1 and "not an HDF5 file" in done.stderr and done.stderr.count("\n") == 1
