"""Compare training recipes at equal CPU time on one data set: presets, and presets with other settings.

A recipe is a preset, or a preset with settings: `paper`, `small`, `small:objective=relativistic,r1_gamma=0.2`. Each run
gets `--minutes` of CPU time on one thread: the number of updates is derived from the measured cost of one, so that
schedules end with the run. Measured on the split `--test-split`, which no training or choice of a checkpoint sees:
pixel-MSE (images in [0, 1], z = mu), the Fréchet distance of 10,000 (or as many as there are test images) samples in
the features of `--extractor`, and the error of linear-svm/v1 with `--labels-n` labels (mean of `--draws` draws) on the
default layers (hidden + mu) and on mu alone. For a set without classes, `--attribute smiling --labels train.csv
--test-labels val.csv` probes a binary attribute.

    galirep train-classifier --data mnist.tar --out m --image-size 16
    python benchmarks/recipes.py --name mnist-16 --data mnist.tar --image-size 16 --extractor classifier:m
        --recipes paper,small --minutes 10,30 --seeds 0,1 --baselines --workdir runs/recipes

Every finished run is kept in `--workdir`; an interrupted run is resumed, and runs of other calls with the same --name
and --workdir are part of the table. `--results benchmarks/RESULTS.md` writes the table between the marks
`<!-- recipes NAME -->` and `<!-- end recipes NAME -->` of that file.
Machine: one core for each call; two calls may share the work of one --workdir.
Expected: `small` reconstructs at less than half the error of `paper` at every budget (benchmarks/RESULTS.md has the
measurements).
"""

import argparse
import fcntl
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import galirep
from galirep.data.catalog import open_data
from galirep.data.memory import Images, load_images
from galirep.data.tensors import BLOCK, ImageFunction, image_blocks
from galirep.errors import ConfigError, GalirepError
from galirep.evaluation.baselines import fit_pca, mean_image, raw_pixels, train_autoencoder, untrained
from galirep.evaluation.few_labels import attribute_labels, compute_features, few_label_error
from galirep.evaluation.tables import FILE, collect_evaluations, format_table, write_between
from galirep.features.gali import GaliEncoder
from galirep.features.registry import load_extractor
from galirep.metrics.frechet import frechet_distance
from galirep.metrics.reconstruction import pixel_mse
from galirep.networks.families import NETWORKS, family
from galirep.networks.parts import Encoder, Generator, Shapes
from galirep.networks.saved import load_autoencoder
from galirep.system.settings import parse_assignments

COLUMNS = {"updates": 0, "cpu_minutes": 1, "pixel_mse": 4, "fid": 2, "error": 4, "error_mu": 4}
COMMON = {"networks": "compact", "sample_every": 0, "log_every": 500, "evaluate_every": 2000, "checkpoint_every": 1000}
UNTRAINED, AUTOENCODER = "untrained ", "autoencoder"
TRAINING_FREE = ("mean image", "raw pixels", "PCA")
COST_UPDATES = (20, 120)  # lengths of two runs; the difference in CPU time is that of 100 updates


class Task:
    """One data set and how encoders and generators are measured on it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.train = load_images(open_data(args.data), args.image_size)
        self.test = load_images(open_data(args.data, args.test_split), args.image_size)
        self.extractor = load_extractor(args.extractor)
        self.reference = compute_features(self.extractor, self.test.pixels)
        self.train_labels = self.labels_of(self.train, args.labels)
        self.test_labels = self.labels_of(self.test, args.test_labels)

    def labels_of(self, images: Images, file: Path | None) -> NDArray[np.int64] | None:
        if file is None:
            return images.labels
        attributes = attribute_labels(file, images.ids)
        if self.args.attribute not in attributes:
            raise ConfigError(f"--attribute {self.args.attribute}: {file} has {', '.join(attributes)}")
        return attributes[self.args.attribute]

    def probe_error(self, extract: ImageFunction, columns: slice = slice(None)) -> float | None:
        if self.train_labels is None or self.test_labels is None:
            return None
        test = compute_features(extract, self.test.pixels)[:, columns]
        return few_label_error(
            lambda rows: compute_features(extract, self.train.pixels[rows])[:, columns],
            self.train_labels,
            (test, self.test_labels),
            self.args.labels_n,
            self.args.draws,
        )

    def pixel_mse(self, rebuild: ImageFunction) -> float:
        with torch.inference_mode():
            return pixel_mse((x, rebuild(x)) for x in image_blocks(self.test.pixels))

    def frechet_distance(self, generator: Generator, latent: int) -> float:
        z = torch.randn(min(10_000, len(self.test)), latent, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            samples = torch.cat([self.extractor(generator(part)) for part in z.split(BLOCK)]).numpy()
        return frechet_distance(samples, self.reference)

    def measure(self, encoder: Encoder, generator: Generator, latent: int) -> dict[str, float | None]:
        _, channels, size, _ = self.train.pixels.shape
        extract = GaliEncoder(encoder, Shapes(size=size, channels=channels, latent=latent), name="E")
        return {
            "pixel_mse": self.pixel_mse(lambda x: generator(encoder(x)[0])),
            "fid": self.frechet_distance(generator, latent),
            "error": self.probe_error(extract),
            "error_mu": self.probe_error(extract, slice(-latent, None)),
        }


def config_of(args: argparse.Namespace, recipe: str, **more: Any) -> galirep.TrainConfig:
    preset, _, text = recipe.partition(":")
    settings = {"preset": preset, **parse_assignments(filter(None, text.split(",")))}
    common = {"data": args.data, "image_size": args.image_size, "steps": None, "epochs": None, **COMMON}
    return galirep.TrainConfig.from_dict({**common, **settings, **parse_assignments(args.set), **more})


def measure_update_cost(args: argparse.Namespace, recipe: str, train: Images, folder: Path) -> float:
    """Return the CPU seconds of one update."""
    spent = []
    # the first run is a warm-up
    for steps in (COST_UPDATES[0], *COST_UPDATES):
        before = time.process_time()
        config = config_of(args, recipe, steps=steps, holdout=0, evaluate_every=0)
        galirep.train(config, train, out=folder / "cost", overwrite=True)
        spent.append(time.process_time() - before)
    return (spent[2] - spent[1]) / (COST_UPDATES[1] - COST_UPDATES[0])


def train_and_measure(
    args: argparse.Namespace, task: Task, recipe: str, minutes: float, seed: int, folder: Path
) -> dict[str, Any]:
    # the plan is kept, so that a resumed run has the same number of updates
    plan = folder / "plan.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not plan.exists():
        cost = measure_update_cost(args, recipe, task.train, folder)
        plan.write_text(json.dumps({"steps": max(1, round(minutes * 60 / cost))}))
    steps = json.loads(plan.read_text())["steps"]
    run = folder / "run"
    resumed = run.exists()
    start = time.process_time()
    galirep.train(config_of(args, recipe, steps=steps, seed=seed), task.train, out=run, resume=resumed)
    cpu_minutes = None if resumed else (time.process_time() - start) / 60
    encoder, generator, header = load_autoencoder(run)
    measures = task.measure(encoder, generator, header["shapes"]["latent"])
    return {"updates": steps, "cpu_minutes": cpu_minutes, **measures}


def measure_baseline(task: Task, name: str, minutes: float, seed: int) -> dict[str, Any]:
    pixels = task.train.pixels
    _, channels, size, _ = pixels.shape
    if name == "mean image":
        return {"pixel_mse": task.pixel_mse(mean_image(pixels).rebuild)}
    if name == "raw pixels":
        return {"error": task.probe_error(raw_pixels().extract)}
    if name == "PCA":
        pca = fit_pca(pixels, NETWORKS["compact"].latent)
        return {"pixel_mse": task.pixel_mse(pca.rebuild), "error": task.probe_error(pca.extract)}
    if name == AUTOENCODER:
        trained = train_autoencoder(pixels, minutes=minutes, seed=seed)
        measures = task.measure(trained.encoder, trained.generator, trained.encoder.latent)
        return {"updates": trained.updates, "cpu_minutes": minutes, **measures, "fid": None}
    networks = name.removeprefix(UNTRAINED)
    return {
        "error": task.probe_error(untrained(networks, size, channels, seed=seed)),
        "error_mu": task.probe_error(untrained(networks, size, channels, seed=seed, layers=["mu"])),
    }


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Lock a folder; yield False if another call works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def table(folder: Path) -> str:
    """Format all finished runs in a folder, one line a recipe and budget."""
    rows = sorted(collect_evaluations(folder), key=lambda row: (row["minutes"], row["recipe"]))
    return format_table(rows, group_by=("minutes", "recipe"), listed={"seed": "seeds"}, columns=COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", required=True, help="of the data set and size, e.g. mnist-16: a folder in --workdir")
    parser.add_argument("--data", required=True)
    parser.add_argument("--test-split", default="test")
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--extractor", required=True, help="network of the Fréchet distance, e.g. classifier:DIR")
    parser.add_argument("--recipes", default="paper,small", help="e.g. paper,small:networks=resnet,width=16,default")
    parser.add_argument("--minutes", default="10", help="CPU minutes a run, e.g. 10,30,90")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--attribute", help="column of --labels and --test-labels to probe, for a set without classes")
    parser.add_argument("--labels", type=Path, help="CSV file of binary attributes, as for train-classifier --labels")
    parser.add_argument("--test-labels", type=Path)
    parser.add_argument("--labels-n", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--baselines", action="store_true", help="mean image, pixels, PCA, untrained, autoencoder")
    parser.add_argument("--set", action="append", default=[], help="key=value for every recipe")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="file that the table is written into")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipes = re.split(r"[;,](?!\w+=)", args.recipes)
    try:
        run_all(args, recipes)
    except GalirepError as error:
        parser.error(str(error))


def run_all(args: argparse.Namespace, recipes: list[str]) -> None:
    # raises for a recipe that cannot be trained, before hours of work
    networks = {family(config_of(args, recipe, steps=1).networks, args.image_size)[0] for recipe in recipes}
    baselines = [*TRAINING_FREE, *(UNTRAINED + name for name in sorted(networks))] if args.baselines else []
    trained = [*recipes, AUTOENCODER] if args.baselines else recipes
    task, root = Task(args), args.workdir / args.name
    budgets = [float(m) for m in args.minutes.split(",")]
    seeds = [int(s) for s in args.seeds.split(",")]
    work = [(name, 0.0, 0) for name in baselines]
    work += [(name, minutes, seed) for minutes in budgets for seed in seeds for name in trained]
    for name, minutes, seed in work:
        folder = root / f"{name}-{minutes:g}-{seed}".replace(" ", "_").replace("/", "_")
        done = folder / FILE
        with claimed(folder) as free:
            if not free or done.exists():
                continue
            if name in recipes:
                measures = train_and_measure(args, task, name, minutes, seed, folder)
            else:
                measures = measure_baseline(task, name, minutes, seed)
            done.write_text(json.dumps({"recipe": name, "minutes": minutes, "seed": seed, **measures}))
            print(done.read_text(), flush=True)
    text = table(root)
    print(text)
    if args.results:
        write_between(args.results, f"<!-- recipes {args.name} -->", f"<!-- end recipes {args.name} -->", text)


if __name__ == "__main__":
    main()
