"""Find the nearest rows of a gallery for each query, and measure how often they are of the query's class."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from galirep.embeddings.labels import renumber_labels
from galirep.errors import ConfigError, DataError
from galirep.features.protocol import FeatureExtractor
from galirep.metrics.arrays import F32, Ints
from galirep.retrieval import curation
from galirep.retrieval.measures import concatenate, measure
from galirep.retrieval.notes import find_equal, list_notes
from galirep.retrieval.queries import Queries, QueryOptions, open_queries
from galirep.retrieval.report import write_report
from galirep.retrieval.report_options import ReportOptions
from galirep.retrieval.result import Retrieval, require_result_suffix
from galirep.search.distances import prepare_vectors
from galirep.search.gallery import Gallery, open_gallery
from galirep.search.vectors import no_progress
from galirep.system.files import require_free
from galirep.system.outputs.holding import locks_outputs
from galirep.visuals.projection import require_projection

# queries searched at a time
_BATCH = 4096


@locks_outputs("out", "report", inputs=("gallery", "queries", "encoder", "data", "query_data"))
def retrieve(  # noqa: PLR0913
    gallery: str | Path,
    queries: str | Path | Sequence[str | Path] | None = None,
    *,
    k: int = 10,
    metric: str | None = None,
    layers: Sequence[str] | None = None,
    split: str | None = None,
    splits: str | Sequence[str] | None = "auto",
    backend: str = "auto",
    device: str = "auto",
    nprobe: int | None = None,
    encoder: str | FeatureExtractor | None = None,
    trust_encoder: bool = False,
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
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    progress: Callable[[int], object] = no_progress,
) -> Retrieval:
    """Find the k nearest rows of `gallery` for each of `queries`; measure by class if both have labels.

    `gallery` is an embedding file (searched exactly) or an index. `queries` is an embedding file, image files, or a
    data set whose `split` (and `splits`, see `open_data`) is embedded with the gallery's own encoder; None takes the
    gallery's own embedding file. If the queries are the gallery's own rows (the same images in the same order), each is
    left out of its own neighbours. `metric` defaults to that of the index, or cosine. Classes are matched by name. The
    measures are defined in `metrics.ranking`: precision@1, recall@k, MRR@k, and MAP@R, which ranks whole classes and
    needs an exact search.

    `duplicates` is a threshold: every pair of a query and a row at least as near is listed
    (`curation.near_duplicates`). `outliers` is the number of queries to list that are farthest from their k neighbours
    (`curation.outliers`).

    The gallery's encoder is built from the spec in the gallery, or is `encoder` if that is the same one; code that the
    file names (`module:function`) is run only if `trust_encoder` is true.

    `out` is a file for the result (`Retrieval.save`), `report` one for an HTML page (`report.write_report`);
    `report_queries`, `projection`, `data`, `query_data` and `seed` are explained at `ReportOptions`.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        ConfigError: k < 1, k larger than the gallery, an output that exists, options that do not fit together.
        DataError: files that cannot be read or compared, NaN, zero vectors under cosine.
    """
    _require_positive("k", k)
    _require_positive("outliers", outliers)
    if out is not None:
        require_result_suffix(Path(out))
    for path in (out, report):
        if path is not None:
            require_free(Path(path), overwrite)
    require_projection(projection)
    _require_positive("report queries", report_queries)
    opened = open_gallery(Path(gallery), metric=metric, layers=layers, backend=backend, device=device, nprobe=nprobe)
    if duplicates is not None:
        _require_duplicates_possible(opened, duplicates)
    if queries is None:
        _require_embedding_file(opened)
        queries = gallery
    query_options = QueryOptions(
        split=split,
        splits=splits,
        device=device,
        num_workers=num_workers,
        data_root=data_root,
        download=download,
        encoder=encoder,
        trust_encoder=trust_encoder,
    )
    with open_queries(queries, opened, query_options) as opened_queries:
        result = _search(opened, opened_queries, k, progress)
        if duplicates is not None:
            batches = _prepare_batches(opened, opened_queries)
            pairs = curation.near_duplicates(
                opened.search, batches, duplicates, opened.metric, leave_one_out=result.leave_one_out
            )
            result = replace(result, duplicates=pairs)
        if outliers is not None:
            result = replace(result, outliers=curation.outliers(result.distances, outliers))
        if report is not None:
            report_options = ReportOptions(
                n_queries=report_queries,
                projection=projection,
                data=data,
                query_data=query_data,
                data_root=data_root,
                seed=seed,
            )
            write_report(Path(report), result, opened, opened_queries, report_options, overwrite=overwrite)
    if out is not None:
        result.save(out, overwrite=overwrite)
    return result


def _require_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"{name} must be at least 1, not {value}")


def _require_duplicates_possible(gallery: Gallery, threshold: float) -> None:
    curation.threshold_to_radius(threshold, gallery.metric)
    if not gallery.search.exact:
        raise ConfigError(
            f"near-duplicates need exact vectors; {gallery.path} has factory {gallery.info.factory}: "
            "pass the embedding file it was built from"
        )


def _require_embedding_file(gallery: Gallery) -> None:
    if gallery.path.suffix not in (".h5", ".hdf5"):
        raise ConfigError(
            f"{gallery.path} is an index: pass the queries, for instance the embedding file it was built from"
        )


def _prepare_batches(gallery: Gallery, queries: Queries) -> Iterator[tuple[slice, F32]]:
    """Yield the prepared queries in order, as (their positions, their vectors)."""
    for rows, block in queries.rows.blocks():
        ids = queries.ids[rows]
        vectors = prepare_vectors(block, gallery.metric, ids.__getitem__, queries.name)
        for start in range(0, len(vectors), _BATCH):
            batch = vectors[start : start + _BATCH]
            yield slice(rows.start + start, rows.start + start + len(batch)), batch


def _search(gallery: Gallery, queries: Queries, k: int, progress: Callable[[int], object]) -> Retrieval:
    leave_one_out = queries.are_rows_of(gallery)
    _require_enough_rows(gallery, queries, k, leave_one_out)
    labels, label_names = _number_as_gallery(gallery, queries)
    # a row of the gallery with the vector of each query, -1 for none
    equal = np.full(len(queries), -1, np.int64)
    neighbors = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float32)
    measures = []
    seconds = 0.0
    for rows, vectors in _prepare_batches(gallery, queries):
        exclude = np.arange(rows.start, rows.stop) if leave_one_out else None
        start = time.perf_counter()
        distances[rows], neighbors[rows] = gallery.search(vectors, k, exclude)
        seconds += time.perf_counter() - start
        if not leave_one_out:
            equal[rows] = find_equal(gallery, vectors, neighbors[rows, 0], distances[rows, 0])
        if labels is not None and gallery.labels is not None:
            measures.append(measure(gallery.search, vectors, neighbors[rows], labels[rows], gallery.labels, exclude))
        progress(len(vectors))
    measured = concatenate(measures) if measures else None
    return Retrieval(
        k=k,
        metric=gallery.metric,
        leave_one_out=leave_one_out,
        neighbors=neighbors,
        distances=distances,
        query_ids=queries.ids,
        gallery_ids=gallery.ids,
        query_labels=labels,
        gallery_labels=gallery.labels,
        label_names=label_names,
        measured=measured,
        seconds=seconds,
        index=gallery.info.to_dict(),
        gallery=str(gallery.path),
        queries=queries.name,
        notes=list_notes(gallery, queries, measured, None if leave_one_out else equal),
    )


def _number_as_gallery(gallery: Gallery, queries: Queries) -> tuple[Ints | None, tuple[str, ...]]:
    """Return the queries' labels in the numbers of the gallery, and the names of both."""
    if queries.labels is None:
        return None, gallery.meta.label_names
    if gallery.labels is None:
        return queries.labels, queries.meta.label_names
    return renumber_labels(
        queries.labels,
        queries.meta.label_names,
        gallery.meta.label_names,
        side=queries.name,
        other=str(gallery.path),
    )


def _require_enough_rows(gallery: Gallery, queries: Queries, k: int, leave_one_out: bool) -> None:
    n = len(gallery) - leave_one_out
    if k > n:
        suffix = " besides the query itself" if leave_one_out else ""
        raise ConfigError(f"k {k} is larger than the gallery: {gallery.path} has {n} rows{suffix}")
    if len(queries) == 0:
        raise DataError(f"{queries.name} has no rows to search for")
