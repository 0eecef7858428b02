"""`retrieve`: the nearest rows of a gallery for each query, and how often they are of its class."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from galirep.embeddings.labels import renumber_labels
from galirep.errors import ConfigError, DataError
from galirep.metrics.arrays import F32
from galirep.retrieval import curation
from galirep.retrieval.measured import joined, measure
from galirep.retrieval.queries import Queries, open_queries
from galirep.retrieval.report import write_report
from galirep.retrieval.result import Retrieval, require_kind
from galirep.search.distances import prepare_vectors
from galirep.search.gallery import Gallery, open_gallery
from galirep.system.files import require_free
from galirep.visuals.projection import require_projection

_ROWS = 4096  # queries searched at a time


def _no_progress(_: int) -> None: ...


def retrieve(
    gallery: str | Path,
    queries: str | Path | Sequence[str | Path] | None = None,
    *,
    k: int = 10,
    metric: str | None = None,
    layers: Sequence[str] | None = None,
    split: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    nprobe: int | None = None,
    duplicates: float | None = None,
    outliers: int | None = None,
    num_workers: int | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    out: str | Path | None = None,
    report: str | Path | None = None,
    report_queries: int = 200,
    projection: str = "pca",
    data: str | None = None,
    query_data: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int], object] = _no_progress,
) -> Retrieval:
    """Find the k nearest rows of `gallery` for each of `queries`; measure by class where both have labels.

    `gallery` is an embedding file (searched exactly) or an index; `queries` an embedding file, image files, or a data set whose `split` is
    embedded with the gallery's own encoder; None: the gallery's own embedding file. Where queries are the gallery's own rows (the same
    images in the same order), each is left out of its own neighbours. `metric` defaults to the index's, or cosine. Classes are matched by
    name. The measures are defined in `ranking`: precision@1, recall@k, MRR@k, and, of an exact search, MAP@R, for which whole classes are
    ranked.

    `duplicates` is a threshold: every pair of a query and a row at least as near is found too (`curation.near_duplicates`). `outliers` is a
    number: as many queries are listed that lie farthest from their k neighbours (`curation.outliers`).

    `out` takes the result (`Retrieval.save`), `report` a page to look at it (`report.write_report`, where `report_queries`, `projection`,
    `data`, `query_data` and `seed` are explained).

    Raises:
        ConfigError: k < 1, k larger than the gallery, an output that exists, options that do not fit.
        DataError: files that cannot be read or compared, NaN, vectors of zeros under cosine.
    """
    if k < 1:
        raise ConfigError(f"k {k}: ask for at least one neighbour")
    if outliers is not None and outliers < 1:
        raise ConfigError(f"outliers {outliers}: ask for at least one")
    if out is not None:
        require_kind(Path(out))
    for path in (out, report):
        if path is not None:
            require_free(Path(path), overwrite)
    require_projection(projection)
    if report_queries < 1:
        raise ConfigError(f"report queries {report_queries}: show at least one")
    opened = open_gallery(Path(gallery), metric=metric, layers=layers, backend=backend, device=device, nprobe=nprobe)
    if duplicates is not None:
        curation.radius_of(duplicates, opened.metric)
        if not opened.search.exact:
            factory = opened.about["factory"]
            raise ConfigError(
                f"near-duplicates need exact vectors; {gallery} is {factory}: name the embedding file it was built from"
            )
    options: dict[str, Any] = {
        "split": split,
        "device": device,
        "num_workers": num_workers,
        "data_root": data_root,
        "download": download,
    }
    with open_queries(_own(gallery, opened) if queries is None else queries, opened, **options) as asked:
        found = _search(opened, asked, k, progress)
        if duplicates is not None:
            blocks = _prepared(opened, asked)
            found.duplicates = curation.near_duplicates(
                opened.search, blocks, duplicates, opened.metric, itself=found.leave_one_out
            )
        if outliers is not None:
            found.outliers = curation.outliers(found.distances, outliers)
        if report is not None:
            pictures: dict[str, Any] = {"data": data, "query_data": query_data, "data_root": data_root}
            shown: dict[str, Any] = {"n_queries": report_queries, "projection": projection, "seed": seed}
            write_report(Path(report), found, opened, asked, **shown, **pictures, overwrite=overwrite)
    if out is not None:
        found.save(out, overwrite=overwrite)
    return found


def _own(gallery: str | Path, opened: Gallery) -> str | Path:
    if opened.path.suffix in (".h5", ".hdf5"):
        return gallery
    raise ConfigError(f"{gallery} is an index: name the queries, for instance the embedding file it was built from")


def _prepared(gallery: Gallery, queries: Queries) -> Iterator[tuple[slice, F32]]:
    for rows, block in queries.rows.blocks():
        ids = queries.ids[rows]
        vectors = prepare_vectors(block, gallery.metric, ids.__getitem__, queries.name)
        for start in range(0, len(vectors), _ROWS):
            part = vectors[start : start + _ROWS]
            yield slice(rows.start + start, rows.start + start + len(part)), part


def _search(gallery: Gallery, queries: Queries, k: int, progress: Callable[[int], object]) -> Retrieval:
    itself = queries.same_as(gallery)
    if k > len(gallery) - itself:
        left = " besides the query itself" if itself else ""
        raise ConfigError(f"k {k} is larger than the gallery: {gallery.path} has {len(gallery) - itself} rows{left}")
    if len(queries) == 0:
        raise DataError(f"{queries.name} has no rows to search for")
    names, labels = gallery.meta.label_names, queries.labels
    if labels is not None:
        labels, names = renumber_labels(labels, queries.meta.label_names, names)
    neighbors, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    measured, seconds = [], 0.0
    for rows, vectors in _prepared(gallery, queries):
        exclude = np.arange(rows.start, rows.stop) if itself else None
        start = time.perf_counter()
        distances[rows], neighbors[rows] = gallery.search(vectors, k, exclude)
        seconds += time.perf_counter() - start
        if labels is not None and gallery.labels is not None:
            measured.append(measure(gallery.search, vectors, neighbors[rows], labels[rows], gallery.labels, exclude))
        progress(len(vectors))
    return Retrieval(
        k=k,
        metric=gallery.metric,
        leave_one_out=itself,
        neighbors=neighbors,
        distances=distances,
        query_ids=queries.ids,
        gallery_ids=gallery.ids,
        query_labels=labels,
        gallery_labels=gallery.labels,
        label_names=names,
        measured=joined(measured) if measured else None,
        seconds=seconds,
        index=gallery.about,
        gallery=str(gallery.path),
        queries=queries.name,
    )
