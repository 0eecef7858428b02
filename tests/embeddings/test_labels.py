"""Matching the classes of two files by name."""

import numpy as np

from galirep.embeddings.labels import renumber_labels


def test_classes_are_matched_by_name():
    labels, names = renumber_labels(np.array([0, 1, 2, -1]), ("bird", "dog", "cat"), ("cat", "dog"))
    assert names == ("cat", "dog", "bird")
    assert labels.tolist() == [2, 1, 0, -1]


def test_classes_without_names_are_matched_by_number():
    labels, names = renumber_labels(np.array([1, 0]), ("a", "b"), ())
    assert labels.tolist() == [1, 0] and names == ("a", "b")
