"""A training job for the check that kills one: `python -m gpu_checks.train_job NPZ OUT DEVICE STEPS RESUME THREADS`.

It uses deterministic algorithms, so that a run repeats its bits on a card too.
"""

import sys

import torch

import galirep

EVERY = 20
"""Updates between two checkpoints."""


def main(data: str, out: str, device: str, steps: str, resume: str, threads: str) -> None:
    # sums are split by threads, so equal bits need equally many
    torch.set_num_threads(int(threads))
    torch.use_deterministic_algorithms(True)
    small = {"networks": "compact", "width": 4, "latent_dim": 8, "batch_size": 8, "holdout": 0}
    config = galirep.TrainConfig.from_dict(
        {
            **small,
            "data": f"npz:{data}",
            "device": device,
            "steps": int(steps),
            "log_every": 5,
            "checkpoint_every": EVERY,
            "sample_every": 0,
        }
    )
    galirep.train(config, out=out, resume=bool(int(resume)))


if __name__ == "__main__":
    main(*sys.argv[1:])
