"""Write `retrieve --report`: one HTML file that needs no server and no network.

It shows queries with their neighbours, classes, a map of the embeddings, near-duplicates and outliers.
"""

import time
from pathlib import Path
from typing import Any

from galirep.embeddings.schema import StoreMeta
from galirep.retrieval.queries import Queries
from galirep.retrieval.report_items import PageItems
from galirep.retrieval.report_map import build_map, sample_rows
from galirep.retrieval.report_options import ReportOptions
from galirep.retrieval.report_pictures import find_pictures
from galirep.retrieval.result import Retrieval
from galirep.search.gallery import Gallery
from galirep.system.files import write_text
from galirep.version import __version__
from galirep.visuals.page import render_page


def write_report(
    path: Path,
    result: Retrieval,
    gallery: Gallery,
    queries: Queries,
    options: ReportOptions,
    overwrite: bool = False,
) -> None:
    """Write the page for a result.

    Raises:
        ConfigError: an output that exists.
        DataError: `data` or `query_data` cannot be opened, or has other images.
    """
    items = PageItems(result)
    shown = sample_rows(len(queries), options.n_queries, options.seed)
    summary = result.to_dict()
    # these have lists of their own on the page
    del summary["duplicates"], summary["outliers"]
    payload: dict[str, Any] = {
        "facts": _list_facts(result, gallery, queries, len(shown), options.projection),
        "summary": summary,
        "queries": [items.describe_query(int(i)) for i in shown],
        "pairs": items.list_pairs(),
        "threshold": result.duplicates.threshold if result.duplicates else None,
        "outliers": items.list_outliers(),
        "map": build_map(items, gallery, queries, shown, options),
        "labels": list(result.label_names),
    }
    # only now is it known which images are on the page
    pictures = find_pictures(items, gallery, queries, options)
    payload |= {"items": items.describe_images(), "pictures": pictures.layout, "note": pictures.note}
    title = f"Retrieval: {Path(queries.name).name} in {gallery.path.name}"
    write_text(path, render_page(title, payload, pictures.uris), overwrite)


def _list_facts(
    result: Retrieval, gallery: Gallery, queries: Queries, n_shown: int, projection: str
) -> list[list[str]]:
    """Return [name, text] of each line about what was searched and how."""
    meta = gallery.meta
    info = gallery.info
    if result.leave_one_out:
        queries_text = "the gallery itself, each left out of its own neighbours"
    else:
        queries_text = f"{queries.name} · {len(queries)} rows · {_describe_source(queries.meta)}"
    encoder = [meta.encoder, meta.encoder_tag, meta.encoder_sha256 and f"sha256 {meta.encoder_sha256[:12]}"]
    accuracy = "exact" if info.exact else f"recall@10 {info.recall_at_10}"
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return [
        ["Gallery", f"{gallery.path} · {len(gallery)} rows · {_describe_source(meta)}"],
        ["Queries", queries_text],
        ["Shown here", f"{n_shown} queries drawn at random; the measures are over all {len(queries)}"],
        ["Encoder", " · ".join(filter(None, encoder))],
        ["Layers", ", ".join(f"{name} ({width})" for name, width in meta.layers)],
        ["Search", f"{result.metric} · {info.factory} · {accuracy} · {info.backend}"],
        *(["Note", note] for note in result.notes),
        ["Made", f"galirep {__version__} · {made} · map by {projection}"],
    ]


def _describe_source(meta: StoreMeta) -> str:
    split = f" · {meta.split}" if meta.split else ""
    return f"{meta.source or 'images of unknown origin'}{split}"
