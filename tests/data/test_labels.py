"""Labels as people write them."""

import decimal

import numpy as np
import pytest

from galirep.data.labels import as_read, number_of, read_labels
from galirep.errors import DataError

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        (np.array([3, -1, 0], np.int8), [3, -1, 0], ()),
        (np.array([[3], [0], [1]]), [3, 0, 1], ()),
        (np.array([2.0, NAN, 0.0], np.float32), [2, -1, 0], ()),
        (np.array([True, False, True]), [1, 0, 1], ()),
        (["2", " 1.0 ", ""], [2, 1, -1], ()),
        (["-1", "nan", "07"], [-1, -1, 7], ()),
        ([1, None, NAN], [1, -1, -1], ()),
        ([decimal.Decimal(4), np.float32(5), np.int64(6)], [4, 5, 6], ()),
        (["dog", " cat", "dog "], [1, 0, 1], ("cat", "dog")),
        (["dog", None, "NaN"], [0, -1, -1], ("dog",)),
        (np.array([b"dog", "caf\u00e9".encode(), b""]), [1, 0, -1], ("caf\u00e9", "dog")),
        (np.array(["dog", NAN, None], dtype=object), [0, -1, -1], ("dog",)),
        (["cafe\u0301", "caf\u00e9", "tea"], [0, 0, 1], ("caf\u00e9", "tea")),
        (["1", "--1", "-1"], [1, -1 + 1, -1], ("--1", "1")),
        ([None, NAN, ""], [-1, -1, -1], ()),
    ],
)
def test_what_labels_become(values, labels, names):
    column = read_labels("labels", values, 3)
    assert column.labels.tolist() == labels and column.labels.dtype == np.int64 and column.names == names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.25, 0.5], "labels are classes, whole numbers or names, but that of row 0 is 0.25"),
        (np.array([1, 0.5]), "but that of row 1 is 0.5"),
        (["1", "0.5"], "but that of row 1 is 0.5"),
        (["1", "1e400"], "but that of row 1 is 1e400"),
        ([0.0, float("inf")], "but that of row 1 is inf"),
        ([0, -7], "labels go down to -7: a label is 0 or more, or -1 for none"),
        (["0", "-7"], "labels go down to -7"),
        ([0, 2**63], "9223372036854775808"),
        (np.array([0, 2**64 - 1], np.uint64), "labels go up to 18446744073709551615"),
        (np.array([1e300, 0]), "1e[+]300"),
        ([0, 1, 2], r"labels are object of shape \(3,\): expected 2, one for each image"),
        ([[1, 0], [0, 1]], r"labels are int64 of shape \(2, 2\): expected 2"),
        ([0, object()], "that of row 1 is a object"),
        (np.array([0, 1j]), "labels are complex128"),
        ([b"\xff", b"a"], "is not UTF-8"),
    ],
)
def test_what_is_no_label(values, message):
    with pytest.raises(DataError, match=message):
        read_labels("labels", values, 2)


def test_what_is_assumed_is_noted():
    notes = read_labels("labels", ["1", "other", "-1", "NaN", "Other"], 5).notes
    assert notes == (
        "1 labels are 'NaN' and count as no label",
        "labels are taken as names, because 'other', 'Other' is no number; so the class '1' is a name too",
        "1 labels are '-1' and count as no label",
        "classes that differ in upper and lower case alone are kept apart: 'Other' and 'other'",
        "2 of 5 rows have no label",
    )
    assert read_labels("labels", ["1.0", "2"], 2).notes == ("labels written as 1.0 are read as whole numbers",)


@pytest.mark.parametrize("values", [np.array([1, -1]), np.array([NAN, 2.0]), ["dog", ""], [None, 1], [b"", b"1"]])
def test_rows_without_a_label_are_told_from_any_source(values):
    assert "1 of 2 rows have no label" in read_labels("labels", values, 2).notes
    assert read_labels("labels", [None, None], 2).notes == read_labels("labels", [1, 0], 2).notes == ()


def test_booleans_are_numbers_in_arrays_and_names_in_text():
    for values in (np.array([True, False]), [True, False], np.array([True, False], dtype=object)):
        column = read_labels("labels", values, 2)
        assert column.labels.tolist() == [1, 0] and column.names == ()
        assert column.notes == ("labels that are booleans are read as 0 and 1",)
    assert read_labels("labels", ["true", "false"], 2).names == ("false", "true")


def test_numbers_in_names():
    names = ("7", " 07 ", "7.0", "7.", "7 - seven", "7 - 8", "-7", "7.5", "7a", "\u0667", "", "9" * 30)
    assert [number_of(name) for name in names] == [7, 7, 7, 7, 7, *[None] * 7]
    assert as_read("\u00a0cafe\u0301\t") == "caf\u00e9"
