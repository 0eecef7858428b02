"""Compare galirep's search and index with plain faiss, and measure the memory of `galirep index` on a large file.

    python benchmarks/search_speed.py                     everything; the large file is 4 GB, in the temporary folder
    python benchmarks/search_speed.py --rows 200000       with a smaller one
    python benchmarks/search_speed.py --part search --json > speed.json

Search: queries per second of `Gallery.search` over those of `faiss.Index.search` on the same index, batch, threads and
nprobe, by turns; target: at least 0.95. galirep's flat search also orders ties and recomputes the distances.

Build: the time of plain h5py and faiss over that of `build_index`, to a new file each time; target: at least 0.9. The
plain script reads all features at once with h5py, normalises in place, trains on as many rows, adds, and calls
`faiss.write_index`; a second one also copies ids and labels to an HDF5 file, without which a neighbour has no name. The
time of `build_index` includes the check for NaN, a checksum of each file and, for an inexact index, its recall. Neither
waits for the disk.

Memory: the largest resident set of `galirep index --factory IVF1024,PQ64` on a synthetic file of --rows x --dim;
target: under 1 GB.

Machine and figures of the last run: benchmarks/RESULTS.md.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import torch

import faiss  # isort: skip
from galirep.embeddings.schema import StoreMeta
from galirep.embeddings.writer import EmbeddingWriter
from galirep.search.distances import prepare_vectors
from galirep.search.gallery import open_gallery
from galirep.search.index_build import build_index

FACTORIES = ("Flat", "IVF256,Flat", "IVF256,PQ32")


def write_features(path: Path, rows: int, dim: int, seed: int) -> None:
    """Write an embedding file of rows around 1,000 centres, a block at a time."""
    r = np.random.default_rng(seed)
    centres = r.normal(size=(1000, dim)).astype(np.float32)
    meta = StoreMeta("synthetic", (("features", dim),), rows, fingerprint=f"synthetic-{seed}")
    writer = EmbeddingWriter.create(path, meta, [f"{i:09d}" for i in range(rows)])
    for start in range(0, rows, 20_000):
        n = min(20_000, rows - start)
        writer.append(centres[r.integers(0, 1000, n)] + r.standard_normal((n, dim), dtype=np.float32))
    writer.finish()


def build_with_faiss(path: Path, out: Path, factory: str, training: int, with_ids: bool) -> None:
    """Build the index with h5py and faiss alone."""
    with h5py.File(path) as file:
        x = file["features"][:]
        if with_ids:
            with h5py.File(out.with_suffix(".ids.h5"), "w") as ids_file:
                ids_file.create_dataset("ids", data=file["ids"].asstr()[:], dtype=h5py.string_dtype())
                ids_file["labels"] = file["labels"][:]
    faiss.normalize_L2(x)
    index = faiss.index_factory(x.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if hasattr(index, "do_polysemous_training"):
        index.do_polysemous_training = False
    if not index.is_trained:
        index.train(x[np.sort(np.random.default_rng(0).choice(len(x), min(training, len(x)), replace=False))])
    index.add(x)
    faiss.write_index(index, str(out))


def seconds(call: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(
    calls: Sequence[Callable[[], Any]], repeats: int, before: Callable[[], Any] = lambda: None
) -> list[list[float]]:
    """Return each call's seconds per round, a first one left out; `before` runs before each call and is not timed."""
    rounds = []
    for _ in range(repeats + 1):
        taken = []
        for call in calls:
            before()
            taken.append(seconds(call))
        rounds.append(taken)
    return [list(column) for column in zip(*rounds[1:], strict=True)]


def ratio(galirep_seconds: Sequence[float], faiss_seconds: Sequence[float]) -> float:
    """Return the median over the rounds of faiss's time over galirep's."""
    return statistics.median(b / a for a, b in zip(galirep_seconds, faiss_seconds, strict=True))


def measure_search_and_build(folder: Path, rows: int, dim: int, queries: int, repeats: int) -> list[dict[str, Any]]:
    """Return the figures of each factory."""
    path = folder / "gallery.h5"
    write_features(path, rows, dim, 0)
    query_vectors = prepare_vectors(
        np.random.default_rng(1).normal(size=(queries, dim)).astype(np.float32) * 1.5, "cosine", str, "queries"
    )
    lines = []
    out = folder / "out"
    out.mkdir()

    def empty() -> None:
        for file in out.iterdir():
            file.unlink()

    for factory in FACTORIES:
        index_path = out / "galirep.faiss"
        builds = (
            partial(build_with_faiss, path, out / "faiss.faiss", factory, 1 << 15, with_ids=False),
            partial(build_with_faiss, path, out / "faiss.faiss", factory, 1 << 15, with_ids=True),
            partial(build_index, path, index_path, factory=factory, device="cpu"),
        )
        without_ids, with_ids, built = compare(builds, max(3, repeats // 2), before=empty)
        gallery, raw = open_gallery(index_path, device="cpu"), faiss.read_index(str(index_path))
        if gallery.info.nprobe:
            faiss.extract_index_ivf(raw).nprobe = gallery.info.nprobe
        searches = (
            lambda gallery=gallery: gallery.search(query_vectors, 10),
            lambda raw=raw: raw.search(query_vectors, 10),
        )
        search, faiss_search = compare(searches, repeats)
        lines.append(
            {
                "factory": factory,
                "rows": rows,
                "dim": dim,
                "nprobe": gallery.info.nprobe,
                "recall_at_10": gallery.info.recall_at_10,
                "queries_per_second": queries / statistics.median(search),
                "queries_per_second_faiss": queries / statistics.median(faiss_search),
                "search_ratio": ratio(search, faiss_search),
                "build_seconds": statistics.median(built),
                "build_seconds_faiss": statistics.median(without_ids),
                "build_ratio": ratio(built, without_ids),
                "build_ratio_with_ids": ratio(built, with_ids),
            }
        )
    return lines


def measure_memory(folder: Path, rows: int, dim: int) -> dict[str, Any]:
    """Return the largest resident set of the command, sampled every 20 ms."""
    path = folder / "large.h5"
    needed, free = 4 * rows * dim * 1.2, shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"{folder} has {free / 1e9:.1f} GB free, but the file needs {needed / 1e9:.1f}: "
            "pass a smaller --rows, or set another TMPDIR"
        )
    write_features(path, rows, dim, 2)
    program = Path(sys.executable).with_name("galirep")
    command = [program, "index", path, "--out", folder / "large.faiss", "--factory", "IVF1024,PQ64", "--json"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        watched = psutil.Process(process.pid)
        while not over.wait(0.02):
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    over.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return {
        "rows": rows,
        "dim": dim,
        "file_gb": path.stat().st_size / 1e9,
        "index_mb": json.loads(out)["bytes"] / 1e6,
        "recall_at_10": json.loads(out)["recall_at_10"],
        "seconds": time.perf_counter() - start,
        "peak_rss_mb": peak / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of the large file")
    parser.add_argument("--search-rows", type=int, default=100_000, help="rows of the gallery that is searched")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of faiss; galirep indexes and searches with the same")
    parser.add_argument("--part", choices=["all", "search", "memory"], default="all")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        lines, memory = [], None
        if arguments.part != "memory":
            lines = measure_search_and_build(
                Path(name), arguments.search_rows, arguments.dim, arguments.queries, arguments.repeats
            )
        if arguments.part != "search":
            memory = measure_memory(Path(name), arguments.rows, arguments.dim)
    stream = sys.stderr if arguments.json else sys.stdout
    if lines:
        print(
            "factory        nprobe  recall@10   queries/s   faiss's   ratio    build s   faiss's   ratio  with ids",
            file=stream,
        )
    for line in lines:
        print(
            f"{line['factory']:<14} {line['nprobe'] or '-':>6} {line['recall_at_10']:>10.3f} "
            f"{line['queries_per_second']:>11.0f} "
            f"{line['queries_per_second_faiss']:>9.0f} {line['search_ratio']:>7.2f} {line['build_seconds']:>10.2f} "
            f"{line['build_seconds_faiss']:>9.2f} {line['build_ratio']:>7.2f} {line['build_ratio_with_ids']:>9.2f}",
            file=stream,
        )
    if memory:
        size = f"{memory['rows']:,} x {memory['dim']} ({memory['file_gb']:.1f} GB)"
        took = f"{memory['seconds']:.0f} s, recall@10 {memory['recall_at_10']:.3f}"
        print(
            f"galirep index, IVF1024,PQ64, {size}: at most {memory['peak_rss_mb']:.0f} MB resident, {took}", file=stream
        )
    if arguments.json:
        print(json.dumps({"rows": lines, "memory": memory}))


if __name__ == "__main__":
    main()
