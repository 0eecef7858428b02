"""`retrieve --report`: one page that needs no server and no network: queries with their neighbours, classes, a map, near-duplicates,
outliers."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from galirep.data.catalog import open_data
from galirep.data.sources import ImageSource
from galirep.embeddings.schema import StoreMeta
from galirep.errors import DataError
from galirep.metrics.arrays import Ints
from galirep.retrieval.curation import nearness
from galirep.retrieval.queries import Queries
from galirep.retrieval.result import Retrieval
from galirep.search.distances import prepare_vectors
from galirep.search.gallery import Gallery
from galirep.system.files import write_text
from galirep.version import __version__
from galirep.visuals.page import render_page
from galirep.visuals.projection import project
from galirep.visuals.thumbnails import COLUMNS, ROWS, sheets

NEIGHBORS = 10  # of each query on the page
_PAIRS = 24  # near-duplicates on the page
_POINTS = 1000  # on the map
_PICTURE_BYTES = 3_400_000  # of WebP; as base64 a third more, so that the page stays under 5 MB


def write_report(
    path: Path,
    found: Retrieval,
    gallery: Gallery,
    queries: Queries,
    *,
    n_queries: int = 200,
    projection: str = "pca",
    data: str | None = None,
    query_data: str | None = None,
    data_root: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write the page for `n_queries` of the queries, drawn at random with `seed`.

    Pictures come from `data` and `query_data`, or from where the embedding files say their images were; without them the page has none and
    says so.

    Raises:
        ConfigError: an output that exists.
        DataError: `data` or `query_data` cannot be opened, or has other images.
    """
    items = _Items(found)
    shown = _sample(len(queries), n_queries, seed)
    payload: dict[str, Any] = {
        "facts": _facts(found, gallery, queries, len(shown), projection),
        "summary": {key: value for key, value in found.summary().items() if key not in ("duplicates", "outliers")},
        "queries": [items.query(int(i)) for i in shown],
        "pairs": items.pairs(),
        "threshold": found.duplicates.threshold if found.duplicates else None,
        "outliers": items.outliers(),
        "map": _map(items, found, gallery, queries, shown, projection, seed),
        "labels": list(found.label_names),
    }
    pictures, note = _pictures(items, gallery, queries, data, query_data, data_root)
    payload |= {
        "items": items.rows(),
        "pictures": pictures and {k: v for k, v in pictures.items() if k != "uris"},
        "note": note,
    }
    title = f"Retrieval: {Path(queries.name).name} in {gallery.path.name}"
    write_text(path, render_page(title, payload, pictures["uris"] if pictures else []), overwrite)


class _Items:
    """The images on the page, each once: rows of the gallery and, unless they are the same rows, of the queries."""

    def __init__(self, found: Retrieval) -> None:
        self._found, self._same = found, found.leave_one_out
        self._place: dict[tuple[bool, int], int] = {}

    def of_gallery(self, row: int) -> int:
        return self._place.setdefault((False, row), len(self._place))

    def of_query(self, row: int) -> int:
        return self._place.setdefault((not self._same, row), len(self._place))

    def query(self, i: int) -> dict[str, Any]:
        found = self._found
        own = found.query_labels[i] if found.query_labels is not None else -1
        neighbors = []
        for row, distance in zip(
            found.neighbors[i, :NEIGHBORS].tolist(), found.distances[i, :NEIGHBORS].tolist(), strict=True
        ):
            if row >= 0:
                other = found.gallery_labels[row] if found.gallery_labels is not None else -1
                hit = int(own == other) if own >= 0 and other >= 0 else -1
                neighbors.append([self.of_gallery(row), _shown(distance, found.metric), hit])
        precision = found.measured.map_at_r[i] if found.measured else np.nan
        return {
            "item": self.of_query(i),
            "score": None if np.isnan(precision) else round(float(precision), 4),
            "neighbors": neighbors,
        }

    def pairs(self) -> list[list[Any]]:
        """The near-duplicates that were asked for, or else the nearest pairs of a query and its first neighbour."""
        found = self._found
        if found.duplicates is not None:
            near = found.duplicates
            columns: Iterable[Any] = zip(
                near.queries.tolist(), near.rows.tolist(), near.distances.tolist(), strict=True
            )
        else:
            order = np.argsort(found.distances[:, 0], kind="stable")[: 2 * _PAIRS]
            columns = [
                (int(i), int(found.neighbors[i, 0]), float(found.distances[i, 0]))
                for i in order
                if found.neighbors[i, 0] >= 0
            ]
        seen: dict[tuple[int, int], list[Any]] = {}
        for query, row, distance in columns:
            key = (min(query, row), max(query, row)) if self._same else (query, row)
            if len(seen) < _PAIRS and key not in seen:
                seen[key] = [self.of_query(query), self.of_gallery(row), _shown(distance, found.metric)]
        return list(seen.values())

    def outliers(self) -> list[list[Any]]:
        if self._found.outliers is None:
            return []
        return [
            [self.of_query(row), score] for row, score in zip(*(a.tolist() for a in self._found.outliers), strict=True)
        ]

    def rows(self) -> list[list[Any]]:
        """[id, label, 1 if a query of another file] of each item."""
        found = self._found
        sides = {False: (found.gallery_ids, found.gallery_labels), True: (found.query_ids, found.query_labels)}

        def row_of(side: bool, row: int) -> list[Any]:
            ids, labels = sides[side]
            return [str(ids[row]), -1 if labels is None else int(labels[row]), int(side)]

        return [row_of(*place) for place in self._place]

    def places(self) -> list[tuple[bool, int]]:
        return list(self._place)


def _shown(distance: float, metric: str) -> float:
    (value,) = nearness(distance, metric).values()
    return round(value, 4)


def _sample(n: int, wanted: int, seed: int) -> Ints:
    return np.random.default_rng(seed).choice(n, min(n, wanted), replace=False)


def _facts(found: Retrieval, gallery: Gallery, queries: Queries, shown: int, projection: str) -> list[list[str]]:
    meta = gallery.meta
    layers = ", ".join(f"{name} ({width})" for name, width in meta.layers)
    exact = "exact" if found.index["exact"] else f"recall@10 {found.index['recall_at_10']}"
    asked = f"{queries.name} · {len(queries)} rows · {_where(queries.meta)}"
    encoder = [meta.encoder, meta.encoder_tag, meta.encoder_sha256 and f"sha256 {meta.encoder_sha256[:12]}"]
    return [
        ["Gallery", f"{gallery.path} · {len(gallery)} rows · {_where(meta)}"],
        ["Queries", "the gallery itself, each left out of its own neighbours" if found.leave_one_out else asked],
        ["Shown here", f"{shown} queries drawn at random; the measures are over all {len(queries)}"],
        ["Encoder", " · ".join(filter(None, encoder))],
        ["Layers", layers],
        ["Search", f"{found.metric} · {found.index['factory']} · {exact} · {found.index['backend']}"],
        ["Made", f"galirep {__version__} · {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} · map by {projection}"],
    ]


def _where(meta: StoreMeta) -> str:
    return f"{meta.source or 'images of unknown origin'}{f' · {meta.split}' if meta.split else ''}"


def _map(
    items: _Items, found: Retrieval, gallery: Gallery, queries: Queries, shown: Ints, method: str, seed: int
) -> dict[str, Any]:
    asked = prepare_vectors(
        queries.rows.features[shown], gallery.metric, lambda i: str(queries.ids[shown[i]]), queries.name
    )
    places, vectors = [items.of_query(int(i)) for i in shown], [asked]
    if gallery.vectors is not None:
        rows = _sample(len(gallery), _POINTS - len(shown), seed + 1)
        rows = np.setdiff1d(rows, shown) if found.leave_one_out else rows
        places += [items.of_gallery(int(row)) for row in rows]
        vectors.append(gallery.vectors[rows])
    points = project(np.concatenate(vectors), method, seed)
    return {
        "method": method,
        "points": [[place, *xy] for place, xy in zip(places, points.round(4).tolist(), strict=True)],
    }


def _pictures(
    items: _Items,
    gallery: Gallery,
    queries: Queries,
    data: str | None,
    query_data: str | None,
    data_root: str | Path | None,
) -> tuple[dict[str, Any] | None, str]:
    """The sheets of thumbnails, and a note where some or all pictures are missing."""
    places = items.places()
    sides: dict[bool, tuple[ImageSource, dict[str, int]]] = {}
    notes = []
    for side, given, meta, ids in (
        (False, data, gallery.meta, gallery.ids),
        (True, query_data, queries.meta, queries.ids),
    ):
        if not any(place[0] == side for place in places):
            continue
        try:
            source = queries.source if side and queries.source is not None else _open(given, meta, data_root)
            sides[side] = source, _index(source, [str(ids[row]) for other, row in places if other == side])
        except DataError as err:
            if given is not None:
                raise
            option = "--query-data" if side else "--data"
            notes.append(
                f"The pictures of the {'queries' if side else 'gallery'} were not found ({err}); {option} says where they are."
            )
    wanted = [(i, sides[side]) for i, (side, _) in enumerate(places) if side in sides]
    if not wanted:
        return None, " ".join(notes)
    rows = items.rows()
    made = sheets([(source, index[rows[i][0]]) for i, (source, index) in wanted], _PICTURE_BYTES)
    lost = set(made.missing)
    places_of = [-1] * len(rows)
    for thumbnail, (i, _) in enumerate(wanted):
        places_of[i] = -1 if thumbnail in lost else thumbnail
    return {"uris": made.uris, "cell": made.cell, "columns": COLUMNS, "rows": ROWS, "of": places_of}, " ".join(notes)


def _open(given: str | None, meta: StoreMeta, data_root: str | Path | None) -> ImageSource:
    if not (given or meta.source):
        raise DataError("the embedding file does not say where")
    return open_data(given or meta.source, meta.split, root=data_root)


def _index(source: ImageSource, ids: list[str]) -> dict[str, int]:
    place = {name: i for i, name in enumerate(source.ids)}
    if lacking := [name for name in ids if name not in place]:
        raise DataError(f"{source.spec} has no image {lacking[0]!r} ({len(lacking)} of {len(ids)} are not there)")
    return place
