"""Compare GALI-PT with GALI-4 and with the same knowledge as a penalty on features, at equal updates.

All runs have the same seeds and settings. For each variant and seed: train, then on held-out images measure the
pixel-MSE (images in [0, 1], z = mu), the feature-MSE under a judge network that is not M (another classifier, trained
from another seed; its features standardised as M's are in training), and the error of linear-svm/v1 probes on
hidden + mu from `--labels-n` labelled training images (with `--labels` and `--test-labels`, CSV files of binary
attributes, the mean over the attributes' probes).
Finished runs are kept in `--workdir` and not repeated; an interrupted run is resumed.

    galirep train-classifier --data mnist.tar --out m     --image-size 16 --seed 0
    galirep train-classifier --data mnist.tar --out judge --image-size 16 --seed 1
    python benchmarks/learned_knowledge.py --data mnist.tar --test-split test --image-size 16 --m classifier:m
        --judge classifier:judge --workdir runs/pt-mnist

Machine: 2 CPU cores, one thread; about 4 minutes a run at the default settings.
Expected by the paper: GALI-PT best in every column. benchmarks/RESULTS.md has the measurements.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import galirep
from galirep.data.catalog import open_data
from galirep.data.memory import Images, load_images
from galirep.data.tensors import ImageFunction, image_blocks
from galirep.evaluation.few_labels import attribute_labels, compute_features, few_label_error
from galirep.evaluation.tables import FILE, format_table
from galirep.features.gali import build_run
from galirep.features.registry import load_extractor
from galirep.metrics.intervals import format_interval, mean_interval
from galirep.metrics.reconstruction import feature_mse, pixel_mse
from galirep.networks.saved import load_autoencoder
from galirep.system.settings import parse_assignments

VARIANTS = ("gali-4", "gali-pt", "gali-4-l2-features", "gali-4-l1-features")
METRICS = ("pixel_mse", "feature_mse", "probe_error")


COMMON = {
    "networks": "compact",
    "width": 16,
    "batch_size": 32,
    "d_regularizer": "r1r2",
    "r1_gamma": 0.1,
    "lr": 5e-4,
    "lr_d": 1e-3,
    "beta2": 0.99,
    "schedule": "cosine",
    "log_every": 200,
    "sample_every": 0,
    "checkpoint_every": 500,
}
Targets = dict[str, tuple[np.ndarray, np.ndarray]]


def evaluate(
    run: Path, train: Images, test: Images, targets: Targets, judge: ImageFunction, args: argparse.Namespace
) -> dict[str, float]:
    encoder, generator, _ = load_autoencoder(run)

    def rebuild(x: torch.Tensor) -> torch.Tensor:
        return generator(encoder(x)[0])

    extract = build_run(str(run))
    test_features = compute_features(extract, test.pixels)
    errors = [
        few_label_error(
            lambda rows: compute_features(extract, train.pixels[rows]),
            train_labels,
            (test_features, test_labels),
            args.labels_n,
            args.draws,
        )
        for train_labels, test_labels in targets.values()
    ]
    with torch.inference_mode():
        error = pixel_mse((x, rebuild(x)) for x in image_blocks(test.pixels))
    judge_features = compute_features(judge, test.pixels)
    rebuilt_features = compute_features(lambda x: judge(rebuild(x)), test.pixels)
    return {
        "pixel_mse": error,
        "feature_mse": feature_mse(judge_features, rebuilt_features),
        "probe_error": float(np.mean(errors)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--test-split", default="test")
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--m", required=True, help="extractor that is M")
    parser.add_argument("--judge", required=True, help="extractor of the feature-MSE")
    parser.add_argument(
        "--labels", type=Path, help="CSV file of binary attributes of the training images, probed in place of classes"
    )
    parser.add_argument("--test-labels", type=Path)
    parser.add_argument("--variants", default=",".join(VARIANTS[:3]))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--labels-n", type=int, default=1000)
    parser.add_argument(
        "--draws", type=int, default=1, help="random choices of the labelled images that the probe error averages"
    )
    parser.add_argument("--test-n", type=int, default=2000, help="held-out images, evenly spread over the split")
    parser.add_argument("--set", action="append", default=[], help="key=value for TrainConfig, for every run")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = load_images(open_data(args.data), args.image_size)
    held_out = open_data(args.data, args.test_split)
    test_rows = np.linspace(0, len(held_out) - 1, args.test_n).round().astype(int)
    test = load_images(held_out.subset(test_rows), args.image_size)
    if args.labels:
        train_labels = attribute_labels(args.labels, train.ids)
        test_labels = attribute_labels(args.test_labels, held_out.ids)
        targets = {name: (train_labels[name], test_labels[name][test_rows]) for name in train_labels}
    else:
        assert train.labels is not None and test.labels is not None
        targets = {"class": (train.labels, test.labels)}
    judge = load_extractor(args.judge)
    args.workdir.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, float]]] = {}
    for seed in map(int, args.seeds.split(",")):
        for variant in args.variants.split(","):
            run = args.workdir / f"{variant}-{args.steps}-{seed}"
            done = run / FILE
            if not done.exists():
                galirep.train(config_of(args, variant, seed), train, out=run, resume=run.exists())
                done.write_text(json.dumps(evaluate(run, train, test, targets, judge, args)))
            results.setdefault(variant, []).append(json.loads(done.read_text()))
    if args.json:
        print(json.dumps({"rows": [summary(args, variant, runs) for variant, runs in results.items()]}))
        return
    rows = [{"variant": variant, **run} for variant, runs in results.items() for run in runs]
    print(format_table(rows, group_by=["variant"], columns=dict.fromkeys(METRICS, 4)))


def config_of(args: argparse.Namespace, variant: str, seed: int) -> galirep.TrainConfig:
    settings = {
        "data": args.data,
        "image_size": args.image_size,
        "variant": variant,
        "adapter": args.m if galirep.get_variant(variant).needs_features else None,
        "steps": args.steps,
        "seed": seed,
    }
    return galirep.TrainConfig.from_dict({**settings, **COMMON, **parse_assignments(args.set)})


def summary(args: argparse.Namespace, variant: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    intervals = {name: format_interval(mean_interval([run[name] for run in runs])) for name in METRICS}
    return {"variant": variant, "seeds": args.seeds, "steps": args.steps, **intervals, "runs": runs}


if __name__ == "__main__":
    main()
