"""Run the main job end to end on an embedded data set: train an encoder, embed, probe, search.

`make demo` runs it; no network, no GPU, about two minutes on 2 cores.

    python benchmarks/demo.py [--out demo] [--steps N]

It runs the very commands that it prints, in one process, and ends with one table: the error of a linear probe and the
precision of the nearest neighbour for the trained encoder, an untrained one and raw pixels, on test images that none of
them has seen. Expected: the trained features beat raw pixels under the classifier, 2 to 9 of 445 images wrong against 9
(by plain cosine, raw pixels are the better neighbours on digits this small). It exits with an error if they are worse
by more than two standard errors.
"""

import argparse
import contextlib
import io
import json
import shlex
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

DATA = "sklearn:digits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    (point,) = entry_points(group="console_scripts", name="galirep")
    command, out = point.load(), args.out
    out.mkdir(exist_ok=True)

    def galirep(line: str, quiet: bool = False) -> dict[str, Any]:
        if not quiet:
            print(f"$ galirep {line}", flush=True)
        stdout, stderr = io.StringIO(), io.StringIO()
        # the progress bar of training stays visible
        visible = line.startswith("train")
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.nullcontext() if visible else contextlib.redirect_stderr(stderr),
        ):
            status = command.main([*shlex.split(line), "--json"], prog_name="galirep", standalone_mode=False)
        if status:
            raise SystemExit(stderr.getvalue() or status)
        result: dict[str, Any] = json.loads(stdout.getvalue())
        return result

    start = time.perf_counter()
    run = out / "run"
    galirep(f"train --preset small --data {DATA} --out {run} --steps {args.steps} --overwrite")
    encoders = {"trained": str(run), "untrained": f"random:{run}", "pixels": "pixels:8"}
    for name, spec in encoders.items():
        for split in ("train", "test"):
            galirep(
                f"embed --encoder {spec} --data {DATA} --split {split} --out {out / f'{name}-{split}.h5'} --overwrite"
            )
    galirep(f"index {out / 'trained-train.h5'} --out {out / 'trained-train.faiss'} --overwrite")
    rows = []
    for title, name, layers in (
        ("trained, hidden + mu", "trained", ""),
        ("trained, mu", "trained", " --layers mu"),
        ("untrained, hidden + mu", "untrained", ""),
        ("untrained, mu", "untrained", " --layers mu"),
        ("raw pixels", "pixels", ""),
    ):
        train, test = (out / f"{name}-{split}.h5" for split in ("train", "test"))
        probe = galirep(f"probe {train} --test {test}{layers}")
        gallery, columns = train, layers
        if title == "trained, hidden + mu":
            # the index has the layers that it was built from
            gallery, columns = out / "trained-train.faiss", ""
        retrieval = galirep(f"retrieve --gallery {gallery} --queries {test} -k 5{columns}")
        rows.append((title, probe, retrieval))
    galirep(f"sample {run} --out {out / 'samples.png'} --overwrite")
    pictures = galirep(f"reconstruct {run} --data {DATA} --split test --out {out / 'reconstructions.png'} --overwrite")
    print(f"\n| features of {DATA} | error of a linear SVM | precision at 1 |\n|---|---|---|")
    for title, probe, retrieval in rows:
        print(f"| {title} | {100 * probe['error_mean']:.2f}% | {100 * retrieval['precision_at_1']:.2f}% |")
    print(f"\nTest reconstructions: pixel-MSE {pictures['pixel_mse']:.4f}. All in {time.perf_counter() - start:.0f} s.")
    print(f"Pictures: {out / 'samples.png'}, {out / 'reconstructions.png'} and {run / 'samples'}.")
    print(f"Encoder: {run / 'export'}. Embeddings: {out}/*.h5. Index: {out / 'trained-train.faiss'}.")
    (_, trained, _), *_, (_, pixels, _) = rows
    if trained["error_mean"] > pixels["error_mean"] + 2 * pixels["error_stderr"]:
        raise SystemExit("the trained features are worse than raw pixels by more than two standard errors")


if __name__ == "__main__":
    main()
