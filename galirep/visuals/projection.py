"""Feature vectors drawn as points in a plane."""

import numpy as np
from numpy.typing import NDArray

from galirep.errors import ConfigError, unknown

PROJECTIONS = ("pca", "tsne", "umap")


def require_projection(method: str) -> None:
    """Refuse a method that is unknown or not installed.

    Raises:
        ConfigError: see above.
    """
    if method not in PROJECTIONS:
        raise ConfigError(unknown("projection", method, PROJECTIONS))
    if method == "umap":
        try:
            import umap  # noqa: F401
        except ImportError as err:
            raise ConfigError(
                f"the projection 'umap' needs umap-learn ({err}): pip install umap-learn, or take pca or tsne"
            ) from err


def project(vectors: NDArray[np.float32], method: str, seed: int) -> NDArray[np.float64]:
    """(N, D) -> (N, 2) in [0, 1], one scale for both axes; all at (0.5, 0.5) where the vectors do not differ."""
    if len(vectors) < 3 or np.ptp(vectors, axis=0).max() == 0:
        return np.full((len(vectors), 2), 0.5)
    if method == "tsne":
        from sklearn.manifold import TSNE

        points = TSNE(init="pca", perplexity=min(30.0, (len(vectors) - 1) / 3), random_state=seed).fit_transform(
            vectors
        )
    elif method == "umap":
        import umap

        points = umap.UMAP(n_neighbors=min(15, len(vectors) - 1), random_state=seed, n_jobs=1).fit_transform(vectors)
    else:
        from sklearn.decomposition import PCA

        points = PCA(min(2, vectors.shape[1]), random_state=seed).fit_transform(vectors)
        points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    points = np.asarray(points, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - (low + high) / 2) / (high - low).max() + 0.5)
