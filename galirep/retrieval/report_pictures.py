"""Thumbnails of the images on a retrieval report, from wherever the embedded images still are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galirep.data.catalog import open_data
from galirep.data.sources import ImageSource
from galirep.errors import DataError
from galirep.retrieval.queries import Queries
from galirep.retrieval.report_items import PageItems
from galirep.retrieval.report_options import ReportOptions
from galirep.search.gallery import Gallery
from galirep.visuals.thumbnails import COLUMNS, ROWS, make_sheets

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
                source = queries.source
            else:
                meta = queries.meta if is_query else gallery.meta
                source = _open_source(spec or meta.source, meta.split, meta.splits, options.data_root)
            opened[is_query] = _OpenSource(source, _index_by_id(source, ids))
        except DataError as err:
            if spec is not None:
                raise
            side, option = ("queries", "--query-data") if is_query else ("gallery", "--data")
            notes.append(f"The pictures of the {side} were not found ({err}); {option} says where they are.")
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


def _open_source(spec: str, split: str | None, splits: str, data_root: str | Path | None) -> ImageSource:
    if not spec:
        raise DataError("the embedding file does not say where")
    return open_data(spec, split, splits=splits, root=data_root)


def _index_by_id(source: ImageSource, ids: list[str]) -> dict[str, int]:
    index_of = {name: i for i, name in enumerate(source.ids)}
    missing = [name for name in ids if name not in index_of]
    if missing:
        raise DataError(f"{source.spec} has no image {missing[0]!r} ({len(missing)} of {len(ids)} are missing)")
    return index_of
