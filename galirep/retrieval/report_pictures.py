"""Thumbnails of the images on a retrieval report, from wherever the embedded images still are."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galirep.data.catalog import open_data, path_of
from galirep.data.sources import ImageSource, PathSource
from galirep.embeddings.schema import StoreMeta
from galirep.errors import DataError
from galirep.retrieval.queries import Queries
from galirep.retrieval.report_items import PageItems
from galirep.retrieval.report_options import ReportOptions
from galirep.search.gallery import Gallery
from galirep.system.files import below
from galirep.visuals.thumbnails import COLUMNS, ROWS, make_sheets

_log = logging.getLogger(__name__)

# of WebP; base64 adds a third, so that the page stays under 5 MB
_MAX_SHEET_BYTES = 3_400_000


@dataclass(frozen=True)
class Pictures:
    """The thumbnails of a page: `uris` of the sheets and the page's `layout` of them, None without any picture.

    `note` says which pictures are missing and why.
    """

    uris: list[str]
    layout: dict[str, Any] | None
    note: str


@dataclass(frozen=True)
class _OpenSource:
    """A source of images and the position of each id in it."""

    source: ImageSource
    index_of: dict[str, int]


def find_pictures(items: PageItems, gallery: Gallery, queries: Queries, options: ReportOptions) -> Pictures:
    """Read the images of a page and pack them into sheets of thumbnails.

    Raises:
        DataError: `data` or `query_data` was given, and cannot be opened or has other images.
    """
    opened: dict[bool, _OpenSource] = {}
    notes = []
    for is_query in (False, True):
        ids = [items.id_of(image) for image in items.images if image.is_query == is_query]
        if not ids:
            continue
        spec = options.query_data if is_query else options.data
        try:
            if is_query and queries.source is not None:
                opened[is_query] = _OpenSource(queries.source, _index_by_id(queries.source, ids))
            else:
                meta, file = (queries.meta, Path(queries.name)) if is_query else (gallery.meta, gallery.path)
                opened[is_query] = _open_source(spec, meta, file, ids, options.data_root)
        except DataError as err:
            if spec is not None:
                raise
            side, option = ("queries", "--query-data") if is_query else ("gallery", "--data")
            notes.append(f"The pictures of the {side} were not found ({err}); {option} says where they are.")
            _log.warning("%s", notes[-1])
    return _make_thumbnails(items, opened, " ".join(notes))


def _make_thumbnails(items: PageItems, opened: dict[bool, _OpenSource], note: str) -> Pictures:
    with_source = [(number, image) for number, image in enumerate(items.images) if image.is_query in opened]
    if not with_source:
        return Pictures([], None, note)
    pictures = []
    for _, image in with_source:
        side = opened[image.is_query]
        pictures.append((side.source, side.index_of[items.id_of(image)]))
    sheets = make_sheets(pictures, _MAX_SHEET_BYTES)
    unreadable = set(sheets.missing)
    thumbnail_of = [-1] * len(items.images)
    for thumbnail, (number, _) in enumerate(with_source):
        if thumbnail not in unreadable:
            thumbnail_of[number] = thumbnail
    return Pictures(sheets.uris, {"cell": sheets.cell, "columns": COLUMNS, "rows": ROWS, "of": thumbnail_of}, note)


def _open_source(
    spec: str | None, meta: StoreMeta, file: Path, ids: list[str], data_root: str | Path | None
) -> _OpenSource:
    """Open the images `spec`, or those that an embedding file says were embedded, if they are under its folder.

    Elsewhere the page would show what the writer of the file chose among all that its reader may read.

    Raises:
        DataError: the images cannot be opened or are others; the file does not say where, or names another place.
    """
    if not (spec or meta.source):
        raise DataError("the embedding file does not say where")
    # None for a set that has no place of its own, such as sklearn:digits
    path = None if spec else path_of(meta.source)
    outside = f"is not under the folder of {file.name}, from where alone a file's own pictures are taken"
    if path is not None and not below(path, file.parent):
        raise DataError(f"{meta.source} {outside}")
    source = open_data(spec or meta.source, meta.split, splits=meta.splits, root=data_root)
    index_of = _index_by_id(source, ids)
    if path is not None and isinstance(source, PathSource):
        # a list may name other folders, and a link may be one
        for name in ids:
            if not below(source.path(index_of[name]), file.parent):
                raise DataError(f"{name} of {meta.source} {outside}")
    return _OpenSource(source, index_of)


def _index_by_id(source: ImageSource, ids: list[str]) -> dict[str, int]:
    index_of = {name: i for i, name in enumerate(source.ids)}
    missing = [name for name in ids if name not in index_of]
    if missing:
        raise DataError(f"{source.spec} has no image {missing[0]!r} ({len(missing)} of {len(ids)} are missing)")
    return index_of
