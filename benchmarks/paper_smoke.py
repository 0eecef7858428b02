"""Train every row of every table at the paper's scale for some updates, on small synthetic sets of the same shape.

    OMP_NUM_THREADS=1 python benchmarks/paper_smoke.py [--updates 20] [--batch-size 10] [--out DIR] [--set svhn]

The scale is `paper`: its networks, schedules, splits and rows; SVHN is read through torchvision from files of its
format (train, extra and test; without the checksums of the real files), CelebA from a folder of 64 x 64 JPEGs and CSV
files of attributes. Prints the tables, and ends with an error if a row could not be made or has no figure; the figures
mean nothing. Runs are kept in DIR and gone on with.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image
from scipy.io import savemat

import galirep
from galirep.evaluation.reproduction.catalog import TABLES, load_study

ATTRIBUTES = ("bangs", "smiling")


def draw(random: np.random.Generator, label: int, size: int) -> np.ndarray:
    """Return a picture (size, size, 3), uint8: waves whose number tells the label, with noise."""
    y, x = np.mgrid[:size, :size] / size
    waves = 2 * np.pi * (x * (1 + label % 3) + y * (1 + label // 3))
    colours = [np.sin(waves + shift) * 60 + 128 for shift in random.uniform(0, 6, 3)]
    noisy = np.stack(colours, -1) + random.normal(0, 8, (size, size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def make_svhn(folder: Path, random: np.random.Generator) -> None:
    """Write SVHN's three files with few images; the digit 0 is stored as 10, as there."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, a_class in (("train", 20), ("extra", 110), ("test", 60)):
        labels = np.tile(np.arange(10), a_class)
        images = np.stack([draw(random, label, 32) for label in labels])
        stored = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": stored})


def make_celeba(folder: Path, random: np.random.Generator) -> None:
    """Write a folder of faces' size with the splits train and test, and a CSV file of attributes beside each."""
    for split, count in (("train", 1100), ("test", 600)):
        (folder / "celeba" / split).mkdir(parents=True, exist_ok=True)
        lines = ["id," + ",".join(ATTRIBUTES)]
        for i in range(count):
            label = int(random.integers(4))
            Image.fromarray(draw(random, label, 64)).save(folder / "celeba" / split / f"{split}{i:05}.jpg")
            lines.append(f"{split}{i:05}.jpg,{label % 2},{label // 2}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=10, help="images (the paper's 100 take hours on a CPU)")
    parser.add_argument("--out", type=Path, help="folder of runs and results (default: a temporary one)")
    parser.add_argument("--set", action="append", choices=("svhn", "celeba"), dest="sets")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        random = np.random.default_rng(0)
        if not (out / "svhn").exists():
            make_svhn(out / "svhn", random)
            make_celeba(out, random)
        os.environ["GALIREP_DATA"] = str(out / "svhn")
        data = {"svhn": "torchvision:svhn", "celeba": str(out / "celeba")}
        data |= {"celeba-labels": str(out / "train.csv"), "celeba-test-labels": str(out / "test.csv")}
        empty = []
        for table in TABLES:
            study = load_study(table, "paper")
            sets = []
            for image_set in study.sets:
                rows = {
                    row: {name: value for name, value in settings.items() if name != "batch_size"}
                    for row, settings in image_set.row_settings.items()
                }
                settings = {**image_set.settings, "batch_size": args.batch_size}
                sets.append(replace(image_set, settings=settings, row_settings=rows, probe_labels=200, probe_draws=1))
            with patch("torchvision.datasets.svhn.check_integrity", lambda path, *_: Path(path).is_file()):
                made = galirep.reproduce(
                    replace(study, sets=tuple(sets)),
                    out=out / "runs",
                    data=data,
                    sets=args.sets or (),
                    updates=args.updates,
                    say=lambda line: print(line, file=sys.stderr, flush=True),
                )
            print(made.text, flush=True)
            # a row without any figure of its table was not measured
            for result in made.results:
                if all(result.get(column) is None for column in study.columns):
                    empty.append(f"{table}: {result['row']} on {result['set']}")
    print("\n".join(f"no figure: {row}" for row in empty) or "every row was made and measured")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
