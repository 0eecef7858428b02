"""`galirep index`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import emit, layers_option, shared

if TYPE_CHECKING:
    from galirep.search.index_info import IndexInfo

_EPILOG = """\b
Example:
  galirep embed --encoder runs/x --data mnist.tar --split train --out train.h5
  galirep index train.h5 --out train.faiss
  galirep retrieve --gallery train.faiss --queries test.h5"""


@click.command("index", epilog=_EPILOG)
@click.argument("source", metavar="FILE.h5", type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(), help="The index; FILE.json and FILE.rows.h5 are written beside it."
)
@click.option("--metric", default="cosine", show_default=True, help="cosine, l2 or ip (inner product).")
@click.option(
    "--factory",
    default="auto",
    show_default=True,
    help="A faiss factory string, or auto: Flat to 10^6 rows, IVF to 10^7, IVF-PQ beyond.",
)
@layers_option("Layers to index, by name, separated by commas.  [default: all in the file]")
@shared("seed", "device", "overwrite")
def index_command(
    source: str,
    out: str,
    metric: str,
    factory: str,
    layers: list[str] | None,
    seed: int,
    device: str,
    overwrite: bool,
    force_unlock: bool,
    as_json: bool,
) -> None:
    """Build a FAISS index of the embedding file FILE.h5.

    Its metric and encoder are stored beside it and enforced when it is searched. Unless it is Flat, its recall@10
    against exact search is measured on a sample and stored.
    """
    from tqdm import tqdm

    from galirep.search.index_build import build_index

    with tqdm(unit=" rows", disable=None, leave=False) as bar:
        info = build_index(
            source,
            out,
            metric=metric,
            factory=factory,
            layers=layers,
            device=device,
            seed=seed,
            overwrite=overwrite,
            force_unlock=force_unlock,
            progress=bar.update,
        )
    result = {"out": out, "bytes": Path(out).stat().st_size, **info.to_dict()}
    emit(as_json, result, f"{out}: {info.n} rows of {info.dim}, {info.metric}, {info.factory} ({_recall_text(info)})")


def _recall_text(info: "IndexInfo") -> str:
    if info.exact:
        return "exact"
    nprobe = f", {info.nprobe} lists searched" if info.nprobe else ""
    return f"recall@10 {info.recall_at_10:.3f} on {info.recall_queries} of its rows{nprobe}"
