"""Training recipes at equal time on one data set: presets and overrides of them, by what their encoders and generators do.

A recipe is a preset, or a preset with settings: `paper`, `small`, `small:objective=relativistic,r1_gamma=0.2`. Each run gets `--minutes` of
CPU time on one thread: the number of updates is found from the measured cost of one, so that schedules end with the run. Measured on the
split `--test-split`, which no training or choice of a checkpoint sees: pixel-MSE (images in [0, 1], z = mu), the Fréchet distance of
10,000 (or as many as there are test images) samples in the features of `--extractor`, and the error of linear-svm/v1 with `--labels-n`
labels (mean of `--draws` draws) on the default layers (hidden + mu) and on mu alone. Of a set without classes, `--attribute smiling
--labels train.csv --test-labels val.csv` probes a binary attribute.

    galirep train-classifier --data mnist.tar --out m --image-size 16
    python benchmarks/recipes.py --name mnist-16 --data mnist.tar --image-size 16 --extractor classifier:m --recipes paper,small
        --minutes 10,30 --seeds 0,1 --baselines --workdir runs/recipes

Every finished run is kept in `--workdir`; a run that was cut off is resumed, and runs of other calls with the same --name and --workdir
are part of the table. `--results benchmarks/RESULTS.md` writes the table between the marks `<!-- recipes NAME -->` and
`<!-- end recipes NAME -->` of that file. Machine: one core for each call; two calls may share the work of one --workdir.
Expected: `small` reconstructs at less than half the error of `paper` at every budget (benchmarks/RESULTS.md has what was seen).
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
from measures import BLOCK, attributes, features, few_label_error, frechet_distance, interval, pixel_mse, unit
from numpy.typing import NDArray

import galirep
from galirep.data.catalog import open_data
from galirep.data.memory import Images, load_images
from galirep.errors import GalirepError
from galirep.features.gali import GaliEncoder
from galirep.features.registry import load_extractor
from galirep.networks.families import NETWORKS, family
from galirep.networks.parts import Shapes
from galirep.networks.saved import load_autoencoder
from galirep.system.settings import parse_assignments

COLUMNS = {"updates": 0, "cpu_minutes": 1, "pixel_mse": 4, "fid": 2, "error": 4, "error_mu": 4}
PIXELS, UNTRAINED, AUTOENCODER = ("mean image", "raw pixels", "PCA"), "untrained ", "autoencoder"  # the baselines
PROBE_UPDATES = (20, 120)  # runs whose difference in CPU time is the cost of an update


class Task:
    """One data set and how encoders and generators are measured on it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.train = load_images(open_data(args.data), args.image_size)
        self.test = load_images(open_data(args.data, args.test_split), args.image_size)
        self.extractor = load_extractor(args.extractor)
        self.reference = features(self.extractor, self.test.pixels)
        self.labels = [self.labels_of(self.train, args.labels), self.labels_of(self.test, args.test_labels)]

    def labels_of(self, images: Images, file: Path | None) -> NDArray[np.int64] | None:
        if file is None:
            return images.labels
        found = attributes(file, images.ids)
        if self.args.attribute not in found:
            raise SystemExit(f"--attribute {self.args.attribute}: {file} has {', '.join(found)}")
        return found[self.args.attribute]

    def probe(self, extract: Any, columns: slice = slice(None)) -> float | None:
        labels, test_labels = self.labels
        if labels is None or test_labels is None:
            return None
        pixels, test = self.train.pixels, features(extract, self.test.pixels)[:, columns]
        return few_label_error(
            lambda rows: features(extract, pixels[rows])[:, columns],
            labels,
            (test, test_labels),
            self.args.labels_n,
            self.args.draws,
        )

    def measure(self, encoder: Any, generator: Any, latent: int) -> dict[str, float | None]:
        noise = torch.randn(min(10_000, len(self.test)), latent, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            made = torch.cat([self.extractor(generator(z)) for z in noise.split(BLOCK)]).numpy()
        extract = GaliEncoder(encoder, Shapes(**self.shapes(latent)), name="E")
        return {
            "pixel_mse": pixel_mse(lambda x: generator(encoder(x)[0]), self.test.pixels),
            "fid": frechet_distance(made, self.reference),
            "error": self.probe(extract),
            "error_mu": self.probe(extract, slice(-latent, None)),
        }

    def shapes(self, latent: int) -> dict[str, int]:
        _, channels, size, _ = self.train.pixels.shape
        return {"size": size, "channels": channels, "latent": latent}


def config_of(args: argparse.Namespace, recipe: str, **more: Any) -> galirep.TrainConfig:
    preset, _, text = recipe.partition(":")
    settings = {"preset": preset, **parse_assignments(filter(None, text.split(",")))}
    common = {
        "data": args.data,
        "image_size": args.image_size,
        "networks": "compact",
        "sample_every": 0,
        "log_every": 500,
        "evaluate_every": 2000,
        "checkpoint_every": 1000,
    }
    return galirep.TrainConfig.from_dict(
        {**common, "steps": None, "epochs": None, **settings, **parse_assignments(args.set), **more}
    )


def update_cost(args: argparse.Namespace, recipe: str, train: Images, folder: Path) -> float:
    """CPU seconds of one update."""
    spent = []
    for steps in (PROBE_UPDATES[0], *PROBE_UPDATES):  # the first is a warm-up
        before = time.process_time()
        galirep.train(
            config_of(args, recipe, steps=steps, holdout=0, evaluate_every=0),
            train,
            out=folder / "cost",
            overwrite=True,
        )
        spent.append(time.process_time() - before)
    return (spent[2] - spent[1]) / (PROBE_UPDATES[1] - PROBE_UPDATES[0])


def train_and_measure(
    args: argparse.Namespace, task: Task, recipe: str, minutes: float, seed: int, folder: Path
) -> dict[str, Any]:
    plan = folder / "plan.json"  # kept, so that a run that is resumed keeps its number of updates
    folder.mkdir(parents=True, exist_ok=True)
    if not plan.exists():
        plan.write_text(
            json.dumps({"steps": max(1, round(minutes * 60 / update_cost(args, recipe, task.train, folder)))})
        )
    steps, run = json.loads(plan.read_text())["steps"], folder / "run"
    resumed, before = run.exists(), time.process_time()
    galirep.train(config_of(args, recipe, steps=steps, seed=seed), task.train, out=run, resume=resumed)
    spent = None if resumed else (time.process_time() - before) / 60
    encoder, generator, about = load_autoencoder(run)
    return {"updates": steps, "cpu_minutes": spent, **task.measure(encoder, generator, about["shapes"]["latent"])}


def autoencoder(task: Task, minutes: float, seed: int) -> dict[str, Any]:
    """The same E and G trained on squared error of G(mu(x)) alone: Adam 1e-3, batch 64, a cosine to 0 over the time given."""
    torch.manual_seed(seed)
    parts = NETWORKS["compact"].build(Shapes(**task.shapes(NETWORKS["compact"].latent)))
    parts.generator.start_from(torch.from_numpy(task.train.pixels).float().mean(0) / 127.5 - 1)
    weights = [*parts.encoder.parameters(), *parts.generator.parameters()]
    adam, random, began, updates = torch.optim.Adam(weights), np.random.default_rng(seed), time.process_time(), 0
    while (share := (time.process_time() - began) / (60 * minutes)) < 1:
        adam.param_groups[0]["lr"] = 5e-4 * (1 + np.cos(np.pi * share))
        x = unit(task.train.pixels[random.integers(0, len(task.train), 64)])
        loss = (parts.generator(parts.encoder(x)[0]) - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        updates += 1
    encoder, generator = parts.encoder.eval(), parts.generator.eval()
    return {"updates": updates, "cpu_minutes": minutes, **task.measure(encoder, generator, encoder.latent), "fid": None}


def baseline(task: Task, name: str, minutes: float, seed: int) -> dict[str, Any]:
    if name == AUTOENCODER:
        return autoencoder(task, minutes, seed)
    if name.startswith(UNTRAINED):
        _, channels, size, _ = task.train.pixels.shape
        spec = f"random:{name.removeprefix(UNTRAINED)},size={size},channels={channels},seed={seed}"
        return {"error": task.probe(load_extractor(spec)), "error_mu": task.probe(load_extractor(spec, layers=["mu"]))}
    if name == "mean image":
        mean = torch.from_numpy(task.train.pixels).float().mean(0) / 127.5 - 1
        return {"pixel_mse": pixel_mse(lambda x: mean.expand_as(x), task.test.pixels)}
    if name == "raw pixels":
        return {"error": task.probe(torch.nn.Identity())}
    assert name == "PCA"
    flat = unit(task.train.pixels[:: max(1, len(task.train) // 10_000)]).flatten(1)
    axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh[: NETWORKS["compact"].latent].T
    mean = flat.mean(0)
    rebuilt = pixel_mse(lambda x: ((x.flatten(1) - mean) @ axes @ axes.T + mean).view_as(x), task.test.pixels)
    return {"pixel_mse": rebuilt, "error": task.probe(lambda x: (x.flatten(1) - mean) @ axes)}


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may work in a folder that other calls may look at, too."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def table(folder: Path) -> str:
    """All finished runs in a folder, one row a recipe and budget."""
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*/evaluation.json")):
        found = json.loads(file.read_text())
        rows.setdefault((found["minutes"], found["recipe"]), []).append(found)
    lines = ["| minutes | recipe | seeds | " + " | ".join(COLUMNS) + " |", "|---" * (3 + len(COLUMNS)) + "|"]
    for (minutes, recipe), runs in sorted(rows.items(), key=lambda row: (row[0][0], row[0][1])):
        cells = []
        for column, digits in COLUMNS.items():
            values = [run[column] for run in runs if run.get(column) is not None]
            cells.append(interval(values, digits) if values else "")
        seeds = ", ".join(str(run["seed"]) for run in runs)
        lines.append(f"| {minutes:g} | {recipe} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def insert(path: Path, name: str, text: str) -> None:
    begin, end = f"<!-- recipes {name} -->", f"<!-- end recipes {name} -->"
    head, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path} has no lines {begin} and {end} to write the table between")
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", required=True, help="of the data set and size, e.g. mnist-16: a folder in --workdir")
    parser.add_argument("--data", required=True)
    parser.add_argument("--test-split", default="test")
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument(
        "--extractor", required=True, help="whose features the Fréchet distance is of, e.g. classifier:DIR"
    )
    parser.add_argument("--recipes", default="paper,small", help="e.g. paper,small:networks=resnet,width=16,default")
    parser.add_argument("--minutes", default="10", help="CPU minutes a run, e.g. 10,30,90")
    parser.add_argument("--seeds", default="0")
    parser.add_argument(
        "--attribute", help="what the probe learns of a set without classes: a column of --labels and --test-labels"
    )
    parser.add_argument(
        "--labels", type=Path, help="CSV file of binary attributes of the training images, as for train-classifier"
    )
    parser.add_argument("--test-labels", type=Path)
    parser.add_argument("--labels-n", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument(
        "--baselines", action="store_true", help="untrained networks, raw pixels, PCA, mean image; an autoencoder"
    )
    parser.add_argument("--set", action="append", default=[], help="key=value for every recipe")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="file that the table is written into")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipes = re.split(r"[;,](?!\w+=)", args.recipes)
    try:  # before hours of work
        networks = {family(config_of(args, recipe, steps=1).networks, args.image_size)[0] for recipe in recipes}
    except GalirepError as error:
        parser.error(str(error))
    without = [*PIXELS, *(UNTRAINED + name for name in sorted(networks))] if args.baselines else []
    recipes += [AUTOENCODER] * args.baselines
    task, root = Task(args), args.workdir / args.name
    budgets, seeds = [float(m) for m in args.minutes.split(",")], [int(s) for s in args.seeds.split(",")]
    work = [(name, 0.0, 0) for name in without]
    work += [(recipe, minutes, seed) for minutes in budgets for seed in seeds for recipe in recipes]
    for recipe, minutes, seed in work:
        folder = root / f"{recipe}-{minutes:g}-{seed}".replace(" ", "_").replace("/", "_")
        done = folder / "evaluation.json"
        with claimed(folder) as mine:
            if not mine or done.exists():
                continue
            make = (
                baseline(task, recipe, minutes, seed)
                if recipe in (*without, AUTOENCODER)
                else train_and_measure(args, task, recipe, minutes, seed, folder)
            )
            done.write_text(json.dumps({"recipe": recipe, "minutes": minutes, "seed": seed, **make}))
            print(done.read_text(), flush=True)
    text = table(root)
    print(text)
    if args.results:
        insert(args.results, args.name, text)


if __name__ == "__main__":
    main()
