"""Kill `galirep embed` at random moments, resume it, and compare the file with one made in one go; kill `merge` and `index`, too.

Command:  python benchmarks/embed_kill.py [--images 10000] [--kills 30] [--encoder random:compact,size=32] [--data SPEC] [--json]
Machine:  any; about 5 minutes on 2 cores (each start of galirep takes seconds).
Expected: the line "equal: True" for features, ids, labels, validity and errors; after every kill the .partial opens and holds right rows,
          at least as many as before; `merge` and `index` leave either what was there before or a whole new file. Exit code 1 otherwise.

SIGKILL comes at a random moment of the run: a fifth of the kills while galirep starts, the others while rows are written.
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
    """PNGs of noise in ten class folders; every thousandth is truncated."""
    generator = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"class-{i % 10}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        if i % 1000 == 999:
            path.write_bytes(path.read_bytes()[:500])


def galirep(*args: object) -> list[str]:
    return [str(Path(sys.executable).with_name("galirep")), *map(str, args)]


def quiet(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def rows_written(path: Path) -> int:
    """Rows of the .partial while another process writes it; -1 while it is not there or in the middle of a flush."""
    try:
        with h5py.File(partial_path(path), "r", locking=False) as file:
            return int(file.attrs["n_written"])
    except (OSError, KeyError):
        return -1


def run_and_kill(command: list[str], path: Path, start: int, moment: float, until: int) -> bool:
    """Kill the command after `moment` seconds, counted from when it wrote `until` rows (-1: from its start); True if it ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while until >= 0 and process.poll() is None and rows_written(path) < start + until:
        time.sleep(0.005)
    try:
        _, err = process.communicate(timeout=moment)
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
    ours, theirs = columns(a), columns(b)
    return {name: ours[name].dtype == theirs[name].dtype and np.array_equal(ours[name], theirs[name]) for name in ours}


def kill_embed(
    work: Path, encoder: str, data: str, split: str | None, kills: int, chance: random.Random
) -> dict[str, Any]:
    options = [
        "--encoder",
        encoder,
        "--data",
        data,
        *(["--split", split] if split else []),
        "--on-error",
        "skip",
        "--batch-size",
        64,
    ]
    whole, out = work / "whole.h5", work / "killed.h5"
    quiet(galirep("embed", *options, "--out", whole))
    reference = columns(whole)
    total, start, moments = len(reference["ids"]), 0, []
    for kill in range(kills):
        early = kill % 5 == 4
        room = max((total - start) // (kills - kill), 1)  # so that rows are left for every kill
        until, moment = (-1, chance.uniform(0, 6)) if early else (chance.randrange(room), chance.uniform(0, 0.05))
        if run_and_kill(galirep("embed", *options, "--out", out, "--resume"), out, start, moment, until):
            break
        if partial_path(out).exists():
            with load_embeddings(partial_path(out), valid_only=False, incomplete=True) as found:
                right = (
                    np.array_equal(found.features[:], reference["features"][: len(found)])
                    and len(found) >= start // 64 * 64
                )
                start = len(found)
        else:
            right = start == 0
        moments.append({"kill": kill + 1, "phase": "starting" if early else "writing", "rows": start, "right": right})
    began = time.perf_counter()
    quiet(galirep("embed", *options, "--out", out, "--resume"))
    return {
        "rows": total,
        "kills": moments,
        "last_resume_seconds": round(time.perf_counter() - began, 1),
        "equal": equal(whole, out),
    }


def kill_whole(command: list[str], out: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Kill a command that replaces `out` in one step; count what it left behind: the old file, or a new and whole one."""
    quiet([*command, "--overwrite"])
    began = time.perf_counter()
    quiet([*command, "--overwrite"])
    seconds, whole = time.perf_counter() - began, out.read_bytes() if out.suffix != ".h5" else b""
    reference = columns(out) if out.suffix == ".h5" else {}
    counts = {"old": 0, "new": 0, "broken": 0}
    for _ in range(kills):
        before = out.stat().st_mtime_ns
        run_and_kill([*command, "--overwrite"], out, 0, chance.uniform(0.3 * seconds, 1.05 * seconds), -1)
        if out.suffix == ".h5":
            now = columns(out)
            good = all(np.array_equal(now[name], reference[name]) for name in now)
        else:
            good = out.read_bytes() == whole
        counts["broken" if not good else "old" if out.stat().st_mtime_ns == before else "new"] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--encoder", default="random:compact,size=32")
    parser.add_argument("--data", help="a data set in place of the made images")
    parser.add_argument("--split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if args.data is None:
            make_images(work / "images", args.images)
        data = args.data or str(work / "images")
        result: dict[str, Any] = {"embed": kill_embed(work, args.encoder, data, args.split, args.kills, chance)}
        half = work / "half.h5"
        quiet(
            galirep("embed", "--encoder", args.encoder, "--data", "sklearn:digits", "--out", half, "--max-upscale", 4)
        )
        merged = work / "merged.h5"
        result["merge"] = kill_whole(
            galirep("merge", work / "whole.h5", half, "--out", merged), merged, max(args.kills // 3, 1), chance
        )
        if find_spec("faiss"):
            index = work / "x.faiss"
            result["index"] = kill_whole(
                galirep("index", work / "whole.h5", "--out", index), index, max(args.kills // 3, 1), chance
            )
    good = all(result["embed"]["equal"].values()) and all(kill["right"] for kill in result["embed"]["kills"])
    good = good and not any(result[name]["broken"] for name in ("merge", "index") if name in result)
    result["equal"] = good
    if args.json:
        print(json.dumps(result))
    else:
        for kill in result["embed"]["kills"]:
            print(
                f"kill {kill['kill']:3}  {kill['phase']:8}  {kill['rows']:7} rows  {'right' if kill['right'] else 'WRONG'}"
            )
        print(f"resumed to {result['embed']['rows']} rows; the same as in one go: {result['embed']['equal']}")
        for name in ("merge", "index"):
            if name in result:
                print(f"{name} killed: {result[name]}")
        print(f"equal: {good}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
