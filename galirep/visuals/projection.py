"""Project feature vectors to points in a plane."""

import numpy as np
from numpy.typing import NDArray

from galirep.errors import ConfigError, unknown

PROJECTIONS = ("pca", "tsne", "umap")


def require_projection(method: str) -> None:
    """Raise if a projection method is unknown or not installed.

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
                f"the projection 'umap' needs umap-learn ({err}): pip install umap-learn, or use pca or tsne"
            ) from err


def project(vectors: NDArray[np.float32], method: str, seed: int) -> NDArray[np.float64]:
    """Project (N, D) vectors to (N, 2) points in [0, 1], with one scale for both axes.

    All points are at (0.5, 0.5) if the vectors do not differ or there are fewer than 3.
    """
    if len(vectors) < 3 or np.ptp(vectors, axis=0).max() == 0:
        return np.full((len(vectors), 2), 0.5)
    points = _fit(vectors, method, seed)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - (low + high) / 2) / (high - low).max() + 0.5)


def _fit(vectors: NDArray[np.float32], method: str, seed: int) -> NDArray[np.float64]:
    n = len(vectors)
    if method == "tsne":
        from sklearn.manifold import TSNE

        tsne = TSNE(init="pca", perplexity=min(30.0, (n - 1) / 3), random_state=seed)
        points = tsne.fit_transform(vectors)
    elif method == "umap":
        import umap

        points = umap.UMAP(n_neighbors=min(15, n - 1), random_state=seed, n_jobs=1).fit_transform(vectors)
    else:
        from sklearn.decomposition import PCA

        points = PCA(min(2, vectors.shape[1]), random_state=seed).fit_transform(vectors)
        # vectors of one column give one component
        points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return np.asarray(points, dtype=np.float64)
