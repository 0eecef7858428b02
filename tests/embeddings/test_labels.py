"""Matching the classes of two files by name, or by the number that a name is."""

import numpy as np
import pytest

from galirep.embeddings.labels import renumber_labels
from galirep.errors import DataError


def test_classes_are_matched_by_name():
    labels, names = renumber_labels(np.array([0, 1, 2, -1]), ("bird", "dog", "cat"), ("cat", "dog"))
    assert names == ("cat", "dog", "bird")
    assert labels.tolist() == [2, 1, 0, -1]


def test_classes_without_names_are_matched_by_number():
    labels, names = renumber_labels(np.array([1, 0, -1]), (), ())
    assert labels.tolist() == [1, 0, -1] and names == ()


def test_names_that_are_numbers_are_matched_with_numbers():
    folders = tuple(sorted(str(k) for k in range(1, 13)))
    labels, names = renumber_labels(np.array([1, 2, 12, -1, 13]), (), folders)
    assert [names[k] if k >= 0 else "" for k in labels] == ["1", "2", "12", "", "13"] and names == (*folders, "13")
    labels, names = renumber_labels(np.array([0, 1, 2, -1]), ("1.0", "10", "0 - zero"), ())
    assert labels.tolist() == [1, 10, 0, -1] and names == ()
    labels, names = renumber_labels(np.array([0, 1]), ("02", "1.0"), ("1", "2"))
    assert labels.tolist() == [1, 0] and names == ("1", "2")


def test_names_are_compared_as_a_reader_sees_them():
    labels, names = renumber_labels(np.array([0, 1, 2]), ("cafe\u0301", "tea ", "\u00a0milk"), ("tea", "caf\u00e9"))
    assert labels.tolist() == [1, 0, 2] and names == ("tea", "caf\u00e9", "\u00a0milk")
    # two folders that look alike are not joined
    labels, _ = renumber_labels(np.array([0, 1]), ("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9"))
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("names", "reference", "alike"),
    [
        (("b", "b "), ("a", "b"), r"'b' and 'b ' of x\.h5"),
        (("b",), ("b", "b "), r"'b' and 'b ' of y\.h5"),
        (("caf\u00e9", "cafe\u0301", "tea"), ("caf\u00e9", "tea"), r"'caf\\xe9' and 'cafe\\u0301' of x\.h5"),
        (("1", "01"), ("1", "2"), r"'1' and '01' of x\.h5"),
    ],
)
def test_rows_of_one_class_are_never_counted_as_another(names, reference, alike):
    with pytest.raises(DataError, match=f"the classes {alike} are equal as a reader sees them"):
        renumber_labels(np.arange(len(names)), names, reference, side="x.h5", other="y.h5")


def test_numbers_and_words_are_refused_either_way():
    message = "the labels of b.h5 are numbers without names, but classes of a.h5 are called 'ant', 'bee': .* Give both"
    with pytest.raises(DataError, match=message):
        renumber_labels(np.array([1, 0]), ("ant", "bee"), (), side="a.h5", other="b.h5")
    with pytest.raises(DataError, match=message):
        renumber_labels(np.array([1, 0]), (), ("ant", "bee"), side="b.h5", other="a.h5")
    with pytest.raises(DataError, match="'1' and '01' of one side are the same number"):
        renumber_labels(np.array([1, 0]), ("1", "01"), ())


def test_a_side_without_labels_contradicts_nothing():
    labels, names = renumber_labels(np.array([-1, -1]), (), ("ant",))
    assert labels.tolist() == [-1, -1] and names == ("ant",)
