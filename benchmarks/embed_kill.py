"""Kill `galirep embed` at random moments, resume it, and compare the file with an uninterrupted one; likewise others.

Command:  python benchmarks/embed_kill.py [--images 10000] [--kills 30] [--encoder random:compact,size=32]
          [--data SPEC] [--json]
Machine:  any; about 5 minutes on 2 cores (each start of galirep takes seconds).
Expected: the line "equal: True" for features, ids, labels, validity and errors; after every kill the .partial opens and
          has correct rows, at least as many as before; `merge` and `index`, killed too, leave either the old file or a
          complete new one. Exit code 1 otherwise.

SIGKILL comes at a random moment of the run: a fifth of the kills while galirep starts, the others while rows are
written.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import partial_path


def make_images(folder: Path, count: int) -> None:
    """Write PNGs of noise into ten class folders; every thousandth is truncated."""
    generator = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"class-{i % 10}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        if i % 1000 == 999:
            path.write_bytes(path.read_bytes()[:500])


def galirep(*args: object) -> list[str]:
    return [str(Path(sys.executable).with_name("galirep")), *map(str, args)]


def run_quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def rows_written(path: Path) -> int:
    """Return the rows of the .partial that another process writes; -1 while it is missing or being flushed."""
    try:
        with h5py.File(partial_path(path), "r", locking=False) as file:
            return int(file["progress"][0])
    except (OSError, KeyError):
        return -1


def run_and_kill(command: list[str], path: Path, start: int, delay: float, until: int) -> bool:
    """Kill the command `delay` seconds after it wrote `until` more rows than `start` (-1: after its start).

    Return whether it ended before.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while until >= 0 and process.poll() is None and rows_written(path) < start + until:
        time.sleep(0.005)
    try:
        _, err = process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{err}")
    return True


def columns(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in ("features", "ids", "labels", "valid", "errors")}


def equal(a: Path, b: Path) -> dict[str, bool]:
    first, second = columns(a), columns(b)
    return {
        name: first[name].dtype == second[name].dtype and np.array_equal(first[name], second[name]) for name in first
    }


def kill_embed(
    work: Path, encoder: str, data: str, split: str | None, kills: int, generator: random.Random
) -> dict[str, Any]:
    splits = ["--split", split] if split else []
    options = ["--encoder", encoder, "--data", data, *splits, "--on-error", "skip", "--batch-size", 64]
    whole, out = work / "whole.h5", work / "killed.h5"
    run_quietly(galirep("embed", *options, "--out", whole))
    reference = columns(whole)
    total, start = len(reference["ids"]), 0
    history = []
    for kill in range(kills):
        early = kill % 5 == 4
        if early:
            until, delay = -1, generator.uniform(0, 6)
        else:
            # so that rows are left for every kill
            limit = max((total - start) // (kills - kill), 1)
            until, delay = generator.randrange(limit), generator.uniform(0, 0.05)
        if run_and_kill(galirep("embed", *options, "--out", out, "--resume"), out, start, delay, until):
            break
        if partial_path(out).exists():
            with load_embeddings(partial_path(out), valid_only=False, incomplete=True) as partial:
                written = len(partial)
                same = np.array_equal(partial.features[:], reference["features"][:written])
            right = same and written >= start // 64 * 64
            start = written
        else:
            right = start == 0
        history.append({"kill": kill + 1, "phase": "starting" if early else "writing", "rows": start, "right": right})
    started = time.perf_counter()
    run_quietly(galirep("embed", *options, "--out", out, "--resume"))
    return {
        "rows": total,
        "kills": history,
        "last_resume_seconds": round(time.perf_counter() - started, 1),
        "equal": equal(whole, out),
    }


def kill_atomic(command: list[str], out: Path, kills: int, generator: random.Random) -> dict[str, Any]:
    """Kill a command that replaces `out` in one step; count what it left: the old file, a new one, or a broken one."""
    run_quietly([*command, "--overwrite"])
    started = time.perf_counter()
    run_quietly([*command, "--overwrite"])
    seconds = time.perf_counter() - started
    is_hdf5 = out.suffix == ".h5"
    reference = columns(out) if is_hdf5 else {"bytes": out.read_bytes()}
    counts = {"old": 0, "new": 0, "broken": 0}
    for _ in range(kills):
        before = out.stat().st_mtime_ns
        run_and_kill([*command, "--overwrite"], out, 0, generator.uniform(0.3 * seconds, 1.05 * seconds), -1)
        if is_hdf5:
            content = columns(out)
            intact = all(np.array_equal(content[name], reference[name]) for name in content)
        else:
            intact = out.read_bytes() == reference["bytes"]
        if not intact:
            counts["broken"] += 1
        elif out.stat().st_mtime_ns == before:
            counts["old"] += 1
        else:
            counts["new"] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--encoder", default="random:compact,size=32")
    parser.add_argument("--data", help="a data set in place of the generated images")
    parser.add_argument("--split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    generator = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if args.data is None:
            make_images(work / "images", args.images)
        data = args.data or str(work / "images")
        result: dict[str, Any] = {"embed": kill_embed(work, args.encoder, data, args.split, args.kills, generator)}
        half = work / "half.h5"
        run_quietly(
            galirep("embed", "--encoder", args.encoder, "--data", "sklearn:digits", "--out", half, "--max-upscale", 4)
        )
        merged = work / "merged.h5"
        result["merge"] = kill_atomic(
            galirep("merge", work / "whole.h5", half, "--out", merged), merged, max(args.kills // 3, 1), generator
        )
        if find_spec("faiss"):
            index = work / "x.faiss"
            result["index"] = kill_atomic(
                galirep("index", work / "whole.h5", "--out", index), index, max(args.kills // 3, 1), generator
            )
    good = all(result["embed"]["equal"].values()) and all(kill["right"] for kill in result["embed"]["kills"])
    good = good and not any(result[name]["broken"] for name in ("merge", "index") if name in result)
    result["equal"] = good
    if args.json:
        print(json.dumps(result))
    else:
        for kill in result["embed"]["kills"]:
            verdict = "right" if kill["right"] else "WRONG"
            print(f"kill {kill['kill']:3}  {kill['phase']:8}  {kill['rows']:7} rows  {verdict}")
        print(f"resumed to {result['embed']['rows']} rows; the same as in one go: {result['embed']['equal']}")
        for name in ("merge", "index"):
            if name in result:
                print(f"{name} killed: {result[name]}")
        print(f"equal: {good}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
