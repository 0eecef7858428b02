"""Projections of feature vectors to a plane."""

import numpy as np
import pytest

from galirep.visuals.projection import project


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_projections_keep_groups_together(method):
    r = np.random.default_rng(0)
    group = np.repeat([0, 1], 20)
    points = project((r.normal(size=(40, 6)) + 30 * group[:, None]).astype(np.float32), method, 0)
    assert points.shape == (40, 2) and points.min() >= 0 and points.max() <= 1
    centres = np.stack([points[group == g].mean(axis=0) for g in (0, 1)])
    assert (np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1) == group).all()


def test_projections_of_nothing_to_tell_apart():
    np.testing.assert_array_equal(project(np.ones((5, 3), np.float32), "pca", 0), np.full((5, 2), 0.5))
    assert np.isfinite(project(np.arange(4, dtype=np.float32)[:, None], "pca", 0)).all()
