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

_SHOWN = 20  # pairs of near-duplicates in the text


@click.command("retrieve", epilog=_EPILOG)
@click.option("--gallery", required=True, type=click.Path(), help="FILE.h5, searched exactly, or FILE.faiss.")
@click.option(
    "--queries",
    multiple=True,
    type=click.Path(),
    help="FILE.h5, an image (repeatable), or a data set, embedded with the gallery's encoder.  [default: the gallery itself]",
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
@shared("seed", "device", "workers", "data-root", "download", "overwrite")
def retrieve_command(queries: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Find the nearest rows of a gallery for each query.

    Where queries are the gallery's own rows, each is left out of its own neighbours. Where both sides have labels, precision@1, recall@k,
    MAP@R and MRR are measured.
    """
    from tqdm import tqdm

    from galirep.retrieval.retrieve import retrieve

    with tqdm(unit=" queries", disable=None, leave=False) as bar:
        found = retrieve(queries=queries or None, progress=bar.update, **options)
    emit(as_json, found.summary(), _text(found))


def _text(found: "Retrieval") -> str:
    summary = found.summary()
    index = summary["index"]
    exact = "exact" if index["exact"] else f"recall@10 {index['recall_at_10']}"
    rate = summary["n_queries"] / max(found.seconds, 1e-9)
    itself = ", each left out of its own neighbours" if found.leave_one_out else ""
    how = f"{summary['metric']}, {index['factory']} ({exact}), {index['backend']}, {rate:.0f} queries/s{itself}"
    lines = [f"{summary['n_queries']} queries in {summary['n_gallery']} rows, {how}"]
    if found.measured:
        k = found.k
        shown = (
            ("precision@1", "precision_at_1"),
            (f"recall@{k}", "recall_at_k"),
            ("MAP@R", "map_at_r"),
            (f"MRR@{k}", "mrr"),
        )
        lines.append("  ".join(f"{name} {summary[key]:.4f}" for name, key in shown if summary[key] is not None))
        if left := summary["queries_unlabelled"] + summary["queries_without_relevant"]:
            lines.append(f"not measured: {left} queries without a label or without a row of their class in the gallery")
    else:
        rows = map(found.row, range(min(5, len(found.query_ids))))
        lines += [f"{row['id']}: {', '.join(n['id'] for n in row['neighbors'][:5])}" for row in rows]
    if (pairs := summary["duplicates"]) is not None:
        groups = f", groups: {len(pairs['groups'])}" if pairs["groups"] else ""
        lines.append(f"near-duplicates at {pairs['threshold']}, pairs: {pairs['n_pairs']}{groups}")
        for pair in pairs["pairs"][:_SHOWN]:
            lines.append(f"  {pair.get('similarity', pair.get('distance')):.4f}  {pair['query']}  {pair['gallery']}")
        lines += ["  ... (all of them: --json, --out FILE.json)"] * (pairs["n_pairs"] > _SHOWN)
    if summary["outliers"] is not None:
        lines.append(f"outliers, by mean distance to {found.k} neighbours:")
        lines += [f"  {row['mean_distance']:.4f}  {row['id']}" for row in summary["outliers"]]
    return "\n".join(lines)
