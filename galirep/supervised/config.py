"""The settings of a supervised net, one line each: default, unit, bounds and help."""

from dataclasses import dataclass
from typing import ClassVar

from galirep.system.settings import Settings, setting

NET_NAMES = ("digits", "attributes")


@dataclass(frozen=True)
class ClassifierConfig(Settings):
    """The settings of a supervised net.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds; one message lists all faults.
    """

    data: str = setting(
        "",
        "Training images: a folder or .tar of class subfolders, sklearn:digits, torchvision:NAME, ...",
        free=True,
    )
    split: str | None = setting(None, "Split of the data to train on (default: its training split).")
    splits: str = setting(
        "auto",
        "Which top-level folders of the data are splits: auto (train, val, test and the like), none, or their names "
        "with commas.",
        free=True,
    )
    labels: str | None = setting(
        None, "CSV file of binary attributes: id,NAME,... with 0 and 1 (default: the data's classes).", free=True
    )
    net: str = setting("auto", "Net; auto is attributes with --labels, else digits.", choices=("auto", *NET_NAMES))
    image_size: int | None = setting(
        None, "Side of the images, pixels (default: theirs, rounded up for the net).", low=8, high=512
    )
    channels: int | None = setting(None, "Colour channels, 1 or 3 (default: those of the images).", choices=(1, 3))
    epochs: int = setting(10, "Most passes over the training images.", low=1)
    batch_size: int = setting(128, "Images an update.", low=2)
    lr: float = setting(1e-3, "Adam's learning rate at the start; a cosine takes it to 0 over the epochs.", above=0)
    val_fraction: float = setting(
        0.1, "Share of the training images held out, for early stopping and the report.", above=0, below=1
    )
    patience: int = setting(3, "Epochs without a lower validation loss after which training stops.", low=1)
    seed: int = setting(0, "Seed of initial weights, held-out images and order.", low=0)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.", free=True)
    precision: str = setting("fp32", "Arithmetic of the networks.", choices=("fp32", "bf16", "fp16"))
    num_workers: int | None = setting(None, "Decoding workers (default: by the number of cores).", low=0, free=True)

    command: ClassVar[str] = "train-classifier"

    def contradictions(self) -> list[str]:
        """Return what is wrong with settings that fit one by one, a line each."""
        return [] if self.data else ["data: give a data set, e.g. --data sklearn:digits"]
