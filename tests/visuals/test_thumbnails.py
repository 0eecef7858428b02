"""Thumbnails packed into sheets."""

import numpy as np

import galirep
from galirep.visuals.thumbnails import make_sheets


def test_thumbnails_shrink_until_they_fit_the_budget(tmp_path):
    """Noise compresses worst. The budget per picture is that of 200 queries, 10 neighbours each, 1,000 points."""
    r = np.random.default_rng(0)
    n, budget = 300, 300 * 3_400_000 // 3000
    noise = r.integers(0, 256, (n, 72, 72, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=noise)
    source = galirep.open_data(f"npz:{tmp_path / 'noise.npz'}")
    sheets = make_sheets([(source, i) for i in range(n)], budget)
    assert sum(map(len, sheets.uris)) < 1.36 * budget and 24 <= sheets.cell < 64 and len(sheets.uris) == 2
    assert make_sheets([(source, i) for i in range(n)], 10**9).cell == 64
