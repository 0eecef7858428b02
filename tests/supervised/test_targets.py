"""What a classifier learns: classes of a data set, attributes of a CSV file, and the report on them."""

import numpy as np
import pytest
import torch

from galirep.data.catalog import open_data
from galirep.errors import DataError
from galirep.supervised.targets import Targets, attribute_targets, class_targets


def _csv(folder, text):
    (folder / "a.csv").write_text(text)
    return folder / "a.csv"


@pytest.mark.parametrize("form", ["{}", "{}.png", "faces/{}", "faces/{}.png"])
def test_ids_may_leave_out_folders_and_extension(tmp_path, form):
    path = _csv(tmp_path, f"id,beard,smiling\n{form.format('two')},0,1\n{form.format('one')},1,1\n")
    targets = attribute_targets(path, ["faces/one.png", "faces/two.png"])
    assert targets.names == ("beard", "smiling") and targets.binary
    assert targets.values.tolist() == [[1, 1], [0, 1]]


def test_minus_one_is_no_in_a_column_of_minus_one_and_one(tmp_path):
    path = _csv(tmp_path, "image_id,a,b\n1.jpg,-1,0\n2.jpg,1,1\n")
    assert attribute_targets(path, ["1.jpg", "2.jpg"]).values.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,a\n1,0\n2,0.5\n", "a.csv, line 3: a is '0.5', but attributes are binary"),
        ("id,a\n1,0\n2,yes\n", "a.csv, line 3: a is 'yes', but attributes are binary"),
        ("id,a\n1,0\n2,\n", "a.csv, line 3: a is '', but attributes are binary"),
        ("id,a\n1,0\n2,-1\n", "a has 0 and -1, but attributes are binary"),
        ("id,a\n1,0\n2,1,1\n", "a.csv, line 3: 3 cells under 2 columns"),
        ("id,a\n1,0\n1,1\n2,1\n", "a.csv, line 3: the id '1' occurs twice"),
        ("id,a\n1,0\n", "has no row for 1 of 2 images, the first '2.png'"),
        ("id,a\n1,0\n2,1\n3,1\n", "has 1 ids that are not in the data, the first '3': is it the file of another split"),
        ("id\n1\n2\n", "must name an id column and one or more attributes"),
        ("id,a,a\n1,0,0\n2,0,0\n", "must name an id column and one or more attributes, each once"),
        ("", "must name an id column"),
        ("id,a\n", "has no rows"),
    ],
)
def test_tables_that_do_not_fit_the_images(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        attribute_targets(_csv(tmp_path, text), ["1.png", "2.png"])


def test_tables_as_people_save_them(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        "\ufeffid; beard ;smiling\r\n caf\u00e9.png;1.0; -1\r\n\r\ntwo ;-1;1\r\n;;\r\n".encode()
    )
    targets = attribute_targets(tmp_path / "a.csv", ["two.png", "cafe\u0301.png"])
    assert targets.names == ("beard", "smiling") and targets.values.tolist() == [[0, 1], [1, 0]]
    assert targets.notes == ("cells are separated by semicolons", "1 rows with empty cells only are ignored")


def test_an_id_that_fits_two_images(tmp_path):
    with pytest.raises(DataError, match=r"the id '1' fits several images, 'b/1.png' among them"):
        attribute_targets(_csv(tmp_path, "id,a\n1,0\n2,1\n"), ["a/1.png", "b/1.png"])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*missing.csv: No such file"):
        attribute_targets(tmp_path / "missing.csv", ["1"])
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as a CSV file of attributes"):
        attribute_targets(tmp_path / "b.csv", ["1"])


def test_the_attributes_of_a_test_file_are_those_of_training(tmp_path):
    with pytest.raises(DataError, match="its attributes are b, a, not a, b"):
        attribute_targets(_csv(tmp_path, "id,b,a\n1,0,0\n"), ["1"], ["a", "b"])


def _npz(folder, **arrays):
    np.savez(folder / "d.npz", images=np.zeros((6, 8, 8), np.uint8), **arrays)
    return open_data(f"npz:{folder / 'd.npz'}")


def test_a_set_without_labels_or_with_one_class_teaches_nothing(tmp_path):
    with pytest.raises(DataError, match="has no labels: name a CSV file of binary attributes with --labels"):
        class_targets(_npz(tmp_path))
    with pytest.raises(DataError, match="has images of one class only"):
        class_targets(_npz(tmp_path, labels=np.array([2, 2, -1, 2, 2, 2])))


def test_report_of_classes():
    targets = Targets(torch.tensor([0, 0, 0, 1, 2]), ("a", "b", "c", "d"))
    logits = torch.eye(4)[[0, 0, 1, 1, 0]]
    report = targets.report(logits, torch.arange(5))
    assert report == {"n": 5, "accuracy": 0.6, "commonest": 0.6, "classes": {"a": 2 / 3, "b": 1.0, "c": 0.0, "d": None}}


def test_report_of_attributes():
    targets = Targets(torch.tensor([[0.0, 1], [1, 1], [0, 1], [0, 0]]), ("a", "b"))
    logits = torch.tensor([[-1.0, 1], [1, 1], [1, -1], [-1, 1]])
    report = targets.report(logits, torch.tensor([0, 1, 2, 3]))
    assert report["attributes"] == {
        "a": {"accuracy": 0.75, "commonest": 0.75},
        "b": {"accuracy": 0.5, "commonest": 0.75},
    }
    assert (report["accuracy"], report["commonest"]) == (0.625, 0.75)
