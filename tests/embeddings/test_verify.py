"""`verify`: problems, warnings and exit codes, for good and for faulty files."""

import json

import h5py
import numpy as np
import pytest

from galirep.embeddings.embed import embed
from galirep.embeddings.schema import partial_path
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
    with h5py.File(path, "r+") as file:
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
        ("label_names", slice(0, 2), "x", "label names repeat"),
        ("features", slice(None), np.arange(192), "rows are equal"),
    ],
)
def test_what_is_wrong_is_named(path, cli, column, row, value, text):
    with h5py.File(path, "r+") as file:
        file[column][row] = value
        name = file["ids"].asstr()[3]
    done = cli("verify", path)
    if not text:
        assert done.exit_code == 0
        return
    assert done.exit_code == 1 and "not fit for use" in done.stdout
    assert f"problem: {text}" in done.stdout.replace("problem: all 445 ", "problem: ")
    assert name in done.stdout or column == "label_names" or isinstance(row, slice)


def test_what_deserves_a_look_is_a_warning(path, cli):
    with h5py.File(path, "r+") as file:
        file["features"][5] = file["features"][9]
        file["labels"][7] = -1
        file["valid"][11] = False
        file["errors"].resize((1,))
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
        file.attrs["n_written"], file.attrs["complete"] = 100, False
    path = path.rename(partial_path(path))
    done = cli("verify", path)
    assert done.exit_code == 1 and "problem: not complete: 100 of 445 rows" in done.stdout


def test_no_embedding_file(tmp_path, cli):
    assert cli("verify", tmp_path / "none.h5").exit_code == 1
    (tmp_path / "x.h5").write_text("text")
    done = cli("verify", tmp_path / "x.h5")
    assert done.exit_code == 1 and "not an HDF5 file" in done.stderr and done.stderr.count("\n") == 1
