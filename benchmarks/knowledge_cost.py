"""Measure what M(.) costs in an update of GALI-PT: no more than its passes over the generated images.

    python benchmarks/knowledge_cost.py --m classifier:m [--image-size 32] [--channels 3] [--width 24]
        [--batch-size 16] [--repeats 15]

In turns, medians of the repeats, CPU seconds of one thread (with a GPU: seconds):
  whole     an update of GALI-PT with M; the features of real images are given, as in training
  without   the same update with a map in M's place that costs nothing (a fixed choice of pixels, as many as M has
            features)
  passes    M alone: forward on G(z) and on G(E(x)), and backward to those images
and how often M was called in one update, on how many images. Machine: 2 CPU cores, one thread.
Expected: whole at most 1.05 times without + passes; two calls of M, on generated images only; no gradient of M's
weights.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from galirep.features.registry import load_extractor
from galirep.game.discriminator import Discriminator
from galirep.game.expression import Expr
from galirep.game.step import Game, Rules, compute_gradients
from galirep.game.variants import get_variant
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--m", required=True, help="extractor that is M")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    m: Any = load_extractor(args.m, device=device)
    variant = get_variant("gali-pt")
    generator = torch.Generator(device)
    parts = NETWORKS["compact"].build(Shapes(args.image_size, args.channels, 64, args.width, features=m.dim))
    d = Discriminator(variant, parts, "r1r2")
    for net in (parts.encoder, parts.generator, d):
        net.to(device).to(memory_format=torch.channels_last)
    x = torch.rand(args.batch_size, args.channels, args.image_size, args.image_size, device=device) * 2 - 1
    with torch.no_grad():
        real_features = {Expr("M", (Expr("x"),)): m(x)}
    pixel_choice = torch.arange(m.dim, device=device) % x[0].numel()
    calls: list[int] = []

    def count_calls(images: Tensor) -> Tensor:
        calls.append(len(images))
        return m(images)

    def make_step(extract: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        game = Game(variant, parts.encoder, parts.generator, d, extract)
        return lambda: compute_gradients(game, x, generator, Rules(), known=real_features)

    def passes() -> None:
        for _ in range(2):
            images = x.clone().requires_grad_()
            m(images).sum().backward()

    measured = {
        "whole": make_step(count_calls),
        "without": make_step(lambda images: images.flatten(1)[:, pixel_choice]),
        "passes": passes,
    }
    times: dict[str, list[float]] = {name: [] for name in measured}
    for repeat in range(args.repeats + 1):
        for name, run in measured.items():
            start = clock(device)
            run()
            # the first is the warm-up
            if repeat:
                times[name].append(clock(device) - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    result = {
        **seconds,
        "ratio": seconds["whole"] / (seconds["without"] + seconds["passes"]),
        "calls": calls[: len(calls) // (args.repeats + 1)],
        "gradients_of_m": sum(p.grad is not None for p in getattr(m, "parameters", list)()),
    }
    if args.json:
        print(json.dumps(result))
        return
    print(
        "{whole:.4f} s whole, {without:.4f} s without M, {passes:.4f} s M's passes: "
        "whole / (without + passes) = {ratio:.3f}".format(**result)
    )
    print(
        f"calls of M in one update, images in each: {result['calls']}; "
        f"weights of M with a gradient: {result['gradients_of_m']}"
    )


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


if __name__ == "__main__":
    main()
