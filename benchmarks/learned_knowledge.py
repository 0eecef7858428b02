"""GALI-PT against GALI-4 and against the same knowledge as a penalty on features: update-matched, same seeds, same settings.

For each variant and seed: train, then on held-out images the pixel-MSE (images in [0, 1], z = mu), the feature-MSE under a judge network
that is not M (another classifier, trained from another seed; its features standardised as M's are in training), and the error of
linear-svm/v1 probes on hidden + mu from `--labels-n` labelled training images (with `--labels` and `--test-labels`, CSV files of binary
attributes, the mean over the attributes' probes).
Finished runs are kept in `--workdir` and not made again; an interrupted run is resumed.

    galirep train-classifier --data mnist.tar --out m     --image-size 16 --seed 0
    galirep train-classifier --data mnist.tar --out judge --image-size 16 --seed 1
    python benchmarks/learned_knowledge.py --data mnist.tar --test-split test --image-size 16 --m classifier:m --judge classifier:judge
    --workdir runs/pt-mnist

Machine: 2 CPU cores, one thread; about 4 minutes a run at the default settings. Expected by the paper: GALI-PT best in every column.
benchmarks/RESULTS.md has what was seen.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measures import attributes, features, few_label_error, interval, pixel_mse

import galirep
from galirep.data.catalog import open_data
from galirep.data.memory import Images, load_images
from galirep.features.gali import build_run
from galirep.features.registry import load_extractor
from galirep.networks.saved import load_autoencoder

VARIANTS = ("gali-4", "gali-pt", "gali-4-l2-features", "gali-4-l1-features")
METRICS = ("pixel_mse", "feature_mse", "probe_error")


def evaluate(
    run: Path,
    train: Images,
    test: Images,
    targets: dict[str, tuple[np.ndarray, np.ndarray]],
    judge: Any,
    args: argparse.Namespace,
) -> dict[str, float]:
    encoder, generator, _ = load_autoencoder(run)

    def rebuild(x: torch.Tensor) -> torch.Tensor:
        return generator(encoder(x)[0])

    reference, rebuilt = features(judge, test.pixels), features(lambda x: judge(rebuild(x)), test.pixels)
    extract = build_run(str(run))
    wanted = features(extract, test.pixels)
    errors = [
        few_label_error(
            lambda rows: features(extract, train.pixels[rows]), known, (wanted, asked), args.labels_n, args.draws
        )
        for known, asked in targets.values()
    ]
    return {
        "pixel_mse": pixel_mse(rebuild, test.pixels),
        "feature_mse": float(np.mean((reference - rebuilt) ** 2) / reference.var(0).mean()),
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
        "--labels", type=Path, help="CSV file of binary attributes of the training images: probe them, not the classes"
    )
    parser.add_argument("--test-labels", type=Path)
    parser.add_argument("--variants", default=",".join(VARIANTS[:3]))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--labels-n", type=int, default=1000)
    parser.add_argument(
        "--draws", type=int, default=1, help="choices of the labelled images that the probe error is the mean of"
    )
    parser.add_argument("--test-n", type=int, default=2000, help="held-out images, evenly spread over the split")
    parser.add_argument("--set", action="append", default=[], help="key=value for TrainConfig, all runs alike")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    from galirep.system.settings import parse_assignments

    common = {
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
    } | parse_assignments(args.set)
    train = load_images(open_data(args.data), args.image_size)
    held_out = open_data(args.data, args.test_split)
    tested = np.linspace(0, len(held_out) - 1, args.test_n).round().astype(int)
    test = load_images(held_out.subset(tested), args.image_size)
    if args.labels:
        one, other = attributes(args.labels, train.ids), attributes(args.test_labels, held_out.ids)
        targets = {name: (one[name], other[name][tested]) for name in one}
    else:
        assert train.labels is not None and test.labels is not None
        targets = {"class": (train.labels, test.labels)}
    judge = load_extractor(args.judge)
    args.workdir.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, float]]] = {}
    for seed in map(int, args.seeds.split(",")):
        for variant in args.variants.split(","):
            run = args.workdir / f"{variant}-{args.steps}-{seed}"
            done = run / "evaluation.json"
            if not done.exists():
                adapter = args.m if galirep.get_variant(variant).needs_features else None
                config = galirep.TrainConfig.from_dict(
                    {
                        "data": args.data,
                        "image_size": args.image_size,
                        "variant": variant,
                        "adapter": adapter,
                        "steps": args.steps,
                        "seed": seed,
                        **common,
                    }
                )
                galirep.train(config, train, out=run, resume=run.exists())
                done.write_text(json.dumps(evaluate(run, train, test, targets, judge, args)))
            results.setdefault(variant, []).append(json.loads(done.read_text()))
    rows = [
        {
            "variant": v,
            "seeds": args.seeds,
            "steps": args.steps,
            **{m: interval([r[m] for r in runs]) for m in METRICS},
            "runs": runs,
        }
        for v, runs in results.items()
    ]
    if args.json:
        print(json.dumps({"rows": rows}))
        return
    print("| variant | " + " | ".join(METRICS) + " |\n|---|" + "---|" * len(METRICS))
    for row in rows:
        print(f"| {row['variant']} | " + " | ".join(str(row[m]) for m in METRICS) + " |")


if __name__ == "__main__":
    main()
