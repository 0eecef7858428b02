"""Kill, damage, race and fill the disk under galirep, and print a table that must end in zeros.

    python benchmarks/soak.py [--part readers|kills|pairs|disks] [--inputs N] [--kills N] [--seed N] [--json]

The whole of it (10,000 inputs of each of 8 readers, 210 kills) takes some hours on one core; the seeds are fixed, so a
fault that the table names by its input is made again by the same command. The exit code is 1 if something is not zero.
docs/reliability.md has the table and what each column promises; the test suite runs a short form of each part.
"""

import argparse
import json
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path

from soak_parts.tally import COLUMNS, table

PARTS = ("readers", "kills", "pairs", "disks")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="one part (default: all); may be repeated")
    parser.add_argument("--inputs", type=int, default=10_000, help="mutated inputs of each reader (default: 10,000)")
    parser.add_argument("--kills", type=int, default=30, help="kills of each of seven commands (default: 30)")
    parser.add_argument("--only", action="append", default=[], help="one reader or command; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder to work in (default: a temporary one)")
    parser.add_argument("--json", action="store_true", help="print JSON, with the places of all faults")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    tallies = []
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        for part in args.part or PARTS:
            count = {"readers": args.inputs, "kills": args.kills}.get(part, 1)
            soak = getattr(import_module(f"soak_parts.{part}"), f"soak_{part}")
            for tally in soak(work, count, args.seed, args.only):
                tallies.append(tally)
                counts = ", ".join(f"{name} {tally.counts[name]}" for name in COLUMNS if tally.counts[name])
                print(f"{tally.part} {tally.subject}: {counts}", file=sys.stderr, flush=True)
                for place, number in tally.places.most_common(40):
                    print(f"  {number} x {place}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps([tally.to_dict() for tally in tallies], indent=2))
    else:
        print(table(tallies))
    return 0 if all(tally.clean for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
