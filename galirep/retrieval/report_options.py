"""The options of a retrieval report."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    `n_queries` of the queries are drawn at random with `seed`; `projection` (pca, tsne or umap) makes the map. Pictures
    come from `data` (gallery) and `query_data`, or from where the embedding files say that their images were
    (torchvision data sets in `data_root`). If they are not found, the page has none and says so.
    """

    n_queries: int = 200
    projection: str = "pca"
    data: str | None = None
    query_data: str | None = None
    data_root: str | Path | None = None
    seed: int = 0
