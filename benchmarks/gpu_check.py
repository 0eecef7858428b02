"""Prove or refute what the code says about CUDA, on one card in less than eight minutes.

    PYTHONPATH=. python benchmarks/gpu_check.py [--device cuda] [--quick] [--out FILE.json] [--only GROUP[,GROUP]]

It needs no installation of galirep: torch 2.6 or newer, numpy, h5py, PyYAML, Pillow, scikit-learn and click are enough.
What else is installed (torchvision, safetensors, tqdm, timm, faiss) is used, and what is not is skipped with a word.
Each check has its own time limit and its own try, in a child process that is killed if it hangs; the others run all the
same. Expected: no FAIL; the exit code is 1 if there is one, 2 if the device is not there. Groups: right, arithmetic,
waiting, state, features, speed (docs/gpu.md). `--device cpu --quick` makes the smallest version of what a CPU can do,
in about a minute on an idle core; the test suite runs it.
"""

import argparse
import sys
import time
from pathlib import Path

from gpu_checks.harness.report import closing, summary_of, table_line, write_json
from gpu_checks.harness.runner import NoDevice, Options, run_groups

GROUPS = {name: f"gpu_checks.{name}" for name in ("right", "arithmetic", "waiting", "state", "features", "speed")}
BUDGET = 470.0
"""Seconds for everything: what is left then is skipped."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="smallest networks, two updates")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"groups to run (default: {','.join(GROUPS)})")
    args = parser.parse_args()
    chosen = args.only.split(",")
    if unknown := [name for name in chosen if name not in GROUPS]:
        parser.error(f"--only {unknown[0]!r} is no group: {', '.join(GROUPS)}")
    if args.out is not None and not args.out.resolve().parent.is_dir():
        parser.error(f"--out {args.out}: its folder does not exist")

    begun = time.monotonic()
    print(f"at most {BUDGET:.0f} seconds", flush=True)
    try:
        results, environment = run_groups(
            {name: GROUPS[name] for name in chosen},
            Options(args.device, args.quick, BUDGET),
            lambda result: print(table_line(result), flush=True),
        )
    except NoDevice as err:
        print(f"gpu_check: {err}", file=sys.stderr)
        return 2
    summary = summary_of(results, time.monotonic() - begun)
    print(closing(environment, summary, BUDGET))
    if args.out is not None:
        write_json(args.out, results, environment, summary)
    return 1 if summary["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
