"""`galirep retrieve`."""

from typing import TYPE_CHECKING, Any

import click

from .common import emit, layers_option, shared

if TYPE_CHECKING:
    from galirep.retrieval.result import Retrieval

_EPILOG = """\b
Examples:
  galirep retrieve --gallery train.h5 --queries test.h5 -k 10 --report report.html
  galirep retrieve --gallery train.faiss --queries photo.jpg --out neighbours.json
  galirep retrieve --gallery train.h5 --duplicates 0.98 --outliers 20"""

# near-duplicates listed in the text
_MAX_PAIRS = 20
# queries listed in the text if there are no measures, and neighbours of each
_MAX_LISTED = 5


@click.command("retrieve", epilog=_EPILOG)
@click.option("--gallery", required=True, type=click.Path(), help="FILE.h5, searched exactly, or FILE.faiss.")
@click.option(
    "--queries",
    multiple=True,
    type=click.Path(),
    help="FILE.h5, an image (repeatable), or a data set, embedded with the gallery's encoder.  "
    "[default: the gallery itself]",
)
@click.option("-k", "k", type=click.IntRange(1), default=10, show_default=True, help="Neighbours of each query.")
@click.option("--metric", default=None, help="cosine, l2 or ip.  [default: cosine, or the index's]")
@layers_option("Layers to compare, by name, separated by commas.  [default: all]")
@click.option("--split", default=None, help="Split of a data set given as queries.")
@click.option("--out", default=None, type=click.Path(), help="Write the neighbours as .h5 or .json.")
@click.option(
    "--duplicates",
    type=float,
    metavar="THRESHOLD",
    help="List pairs at least this similar (cosine, ip) or at most this far apart (l2).",
)
@click.option(
    "--outliers", type=int, metavar="N", help="List the N queries with the largest mean distance to their k neighbours."
)
@click.option(
    "--backend", default="auto", show_default=True, help="auto, faiss or torch; both give the same neighbours."
)
@click.option(
    "--encoder",
    metavar="RUN|EXTRACTOR",
    help="The gallery's encoder, for queries that are images.  [default: the one that the gallery names]",
)
@click.option("--nprobe", type=int, default=None, help="Lists to search in an inverted file.  [default: the index's]")
@click.option(
    "--report",
    default=None,
    type=click.Path(),
    metavar="FILE.html",
    help="Write one page to look at; it needs no network.",
)
@click.option(
    "--report-queries", type=int, default=200, show_default=True, help="Queries on the page, drawn with --seed."
)
@click.option(
    "--projection", default="pca", show_default=True, help="Map of the page: pca, tsne or umap (if installed)."
)
@click.option(
    "--data", default=None, help="Where the gallery's pictures are.  [default: where they were embedded from]"
)
@click.option(
    "--query-data", default=None, help="Where the queries' pictures are.  [default: where they were embedded from]"
)
@shared("seed", "device", "workers", "splits", "data-root", "download", "trust-encoder", "max-pixels", "overwrite")
def retrieve_command(queries: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Find the nearest rows of a gallery for each query.

    Where queries are the gallery's own rows, each is left out of its own neighbours. Where both sides have labels,
    precision@1, recall@k, MAP@R and MRR are measured.
    """
    from tqdm import tqdm

    from galirep.retrieval.retrieve import retrieve

    with tqdm(unit=" queries", disable=None, leave=False) as bar:
        result = retrieve(queries=queries or None, progress=bar.update, **options)
    summary = result.to_dict()
    emit(as_json, summary, _lines(result, summary))


def _lines(result: "Retrieval", summary: dict[str, Any]) -> list[str]:
    lines = [_search_line(result, summary)]
    lines += _measure_lines(summary) if result.measured else _neighbor_lines(result)
    if summary["duplicates"] is not None:
        lines += _duplicate_lines(summary["duplicates"])
    if summary["outliers"] is not None:
        lines.append(f"outliers, by mean distance to {result.k} neighbours:")
        lines += [f"  {row['mean_distance']:.4f}  {row['id']}" for row in summary["outliers"]]
    return lines + [f"note: {note}" for note in result.notes]


def _search_line(result: "Retrieval", summary: dict[str, Any]) -> str:
    index = summary["index"]
    accuracy = "exact" if index["exact"] else f"recall@10 {index['recall_at_10']}"
    rate = summary["n_queries"] / max(result.seconds, 1e-9)
    parts = [
        f"{summary['n_queries']} queries in {summary['n_gallery']} rows",
        summary["metric"],
        f"{index['factory']} ({accuracy})",
        index["backend"],
        f"{rate:.0f} queries/s",
    ]
    if result.leave_one_out:
        parts.append("each left out of its own neighbours")
    return ", ".join(parts)


def _measure_lines(summary: dict[str, Any]) -> list[str]:
    k = summary["k"]
    names = {
        "precision_at_1": "precision@1",
        "recall_at_k": f"recall@{k}",
        "map_at_r": "MAP@R",
        "mrr": f"MRR@{k}",
    }
    lines = ["  ".join(f"{name} {summary[key]:.4f}" for key, name in names.items() if summary[key] is not None)]
    n_unmeasured = summary["queries_unlabelled"] + summary["queries_without_relevant"]
    if n_unmeasured:
        lines.append(
            f"not measured: {n_unmeasured} queries without a label or without a row of their class in the gallery"
        )
    return lines


def _neighbor_lines(result: "Retrieval") -> list[str]:
    rows = [result.row(i) for i in range(min(_MAX_LISTED, len(result.query_ids)))]
    return [f"{row['id']}: {', '.join(neighbor['id'] for neighbor in row['neighbors'][:_MAX_LISTED])}" for row in rows]


def _duplicate_lines(duplicates: dict[str, Any]) -> list[str]:
    groups = f", groups: {len(duplicates['groups'])}" if duplicates["groups"] else ""
    lines = [f"near-duplicates at {duplicates['threshold']}, pairs: {duplicates['n_pairs']}{groups}"]
    for pair in duplicates["pairs"][:_MAX_PAIRS]:
        value = pair["similarity"] if "similarity" in pair else pair["distance"]
        lines.append(f"  {value:.4f}  {pair['query']}  {pair['gallery']}")
    if duplicates["n_pairs"] > _MAX_PAIRS:
        lines.append("  ... (all of them: --json, --out FILE.json)")
    return lines
