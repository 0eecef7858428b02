"""Presets: settings that go together, as data, with what was measured of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Settings by one name: those that differ from `TrainConfig`'s defaults, and what they were measured to give."""

    about: str
    settings: Mapping[str, Any]
    measured: str


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "default": Preset(
            "the defaults as they are, for one GPU",
            {},
            "MNIST at 16 x 16, 10 CPU minutes, one seed: test pixel-MSE 0.017, 5.9% probe error with 1,000 labels; "
            "nothing on a GPU",
        ),
        "small": Preset(
            "ten minutes on one CPU core for images of 16 x 16 pixels: small batches, many updates, penalties on "
            "both cycles (--variant gali-4: without them)",
            {"variant": "gali-4-cycle", "batch_size": 16, "r1_gamma": 0.05, "latent_dim": 32, "steps": 12_000},
            "MNIST at 16 x 16, 8 CPU minutes, 3 seeds: test pixel-MSE 0.0032, 2.0% error of linear-svm/v2 with 1,000 "
            "labels on d2,d3,d4 (untrained, layers chosen: 8.3%); 17 minutes at 32 x 32, one seed: CelebA 0.014, "
            "CIFAR-10 0.015, 55.9% (59.3%)",
        ),
        "large": Preset(
            "wide networks and a long run, for a large GPU",
            {"batch_size": 64, "width": 64, "latent_dim": 128, "steps": 300_000, "precision": "bf16"},
            "nothing yet",
        ),
        "paper": Preset(
            "exactly the paper's for SVHN at 32 x 32 (Dandi et al. 2021); for CelebA at 64 x 64 add "
            "--lr 4e-5 --lr-d 4e-5 "
            "(ALI, ALICE: 1e-4), for ALI, ALICE and GALI-8 on SVHN --d-steps 5 --epochs 300",
            {
                "networks": "paper",
                "d_regularizer": "sn",
                "instance_noise": 0.1,
                "epochs": 100.0,
                "batch_size": 100,
                "lr": 2e-4,
                "lr_d": 2e-4,
                "beta1": 0.5,
                "beta2": 0.999,
                "ema_half_life": 0.0,
            },
            "MNIST, compact networks, one seed: at 16 x 16, 30 CPU minutes, test pixel-MSE 0.052 (mean image: 0.052), "
            "6.0% probe error; "
            "32 x 32, 90 minutes: 0.097 (0.062), 6.1%",
        ),
    }
)
"""Preset name -> preset."""
