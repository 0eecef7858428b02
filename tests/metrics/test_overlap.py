"""Equal rows by hash."""

import numpy as np

from galirep.metrics.overlap import hash_rows, match_rows


def test_equal_rows_are_found_whatever_their_blocks():
    rows = np.random.default_rng(0).normal(size=(5000, 300)).astype(np.float32)
    rows[7] = rows[3]
    rows[9, 0] = 0.0
    queries = rows[[9, 4, 7, 4999]].copy()
    queries[0, 0], queries[1, 1] = -0.0, queries[1, 1] + 1e-3
    found = match_rows(hash_rows([queries]), hash_rows([rows[:10], rows[10:]]))
    assert found.tolist() == [9, -1, 3, 4999]
    assert match_rows(hash_rows([queries]), hash_rows([])).tolist() == [-1] * 4
    assert match_rows(hash_rows([]), hash_rows([rows])).tolist() == []
