"""The settings of `train_classifier`, one line each: default, unit, bounds and help."""

from dataclasses import dataclass
from typing import ClassVar

from galirep.errors import unknown
from galirep.system.settings import Settings, setting

NET_NAMES = ("digits", "attributes")
FAMILY_NAMES = ("svhn32", "celeba64", "compact", "resnet")
SUPERVISED = "supervised"
VIEW_LOSSES = ("vicreg", "info-nce")
VIEWS = ("crop", "shift", "flip", "color", "grey")
EPOCHS = 10  # where neither epochs nor steps are set


@dataclass(frozen=True)
class ClassifierConfig(Settings):
    """The settings of a net that learns classes, attributes, or that two views show the same image.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds; one message lists all faults.
    """

    data: str = setting(
        "",
        "Training images: a folder or .tar (of class subfolders, for classes), sklearn:digits, torchvision:NAME, ...",
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
    objective: str = setting(
        SUPERVISED,
        "What the net learns: its labels, or without labels that two views show the same image (docs/gali-pt.md).",
        choices=(SUPERVISED, *VIEW_LOSSES),
    )
    views: str | None = setting(
        None,
        f"Views of an image, without labels: any of {', '.join(VIEWS)} "
        "(default: crop,flip,color,grey; of grey images crop,color).",
    )
    projector: int = setting(
        512, "Width of the three layers between net and loss of views, not exported as features.", low=2, high=65536
    )
    net: str = setting(
        "auto",
        "Net, or the encoder of a network family; auto is digits, with --labels attributes, for an objective without "
        "labels compact.",
        choices=("auto", *NET_NAMES, *FAMILY_NAMES),
    )
    width: int = setting(32, "Channels of the first layer, in families that scale.", low=4, high=1024)
    image_size: int | None = setting(
        None, "Side of the images, pixels (default: theirs, rounded up for the net).", low=8, high=512
    )
    channels: int | None = setting(None, "Colour channels, 1 or 3 (default: those of the images).", choices=(1, 3))
    steps: int | None = setting(None, "Most updates (default: from --epochs).", low=1)
    epochs: int | None = setting(
        None, f"Most passes over the training images (default: {EPOCHS}, unless --steps is given).", low=1
    )
    batch_size: int = setting(128, "Images an update.", low=2)
    lr: float = setting(1e-3, "Adam's learning rate at the start; a cosine takes it to 0 by the last update.", above=0)
    warmup: int | None = setting(
        None,
        "Updates over which the learning rate rises from 0 (default: none; a twentieth of all without labels).",
        low=0,
    )
    weight_decay: float = setting(0.0, "Decoupled weight decay (AdamW), times the learning rate an update.", low=0)
    val_fraction: float = setting(
        0.1, "Share of the training images held out, for early stopping and the report.", above=0, below=1
    )
    patience: int = setting(3, "Epochs without a lower validation loss after which training with labels stops.", low=1)
    seed: int = setting(0, "Seed of initial weights, held-out images and order.", low=0)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.", free=True)
    precision: str = setting("fp32", "Arithmetic of the networks.", choices=("fp32", "bf16", "fp16"))
    num_workers: int | None = setting(None, "Decoding workers (default: by the number of cores).", low=0, free=True)

    command: ClassVar[str] = "train-classifier"
    exclusive: ClassVar[tuple[str, ...]] = ("steps", "epochs")

    def contradictions(self) -> list[str]:
        """Return what is wrong with settings that fit one by one, a line each."""
        faults = []
        if self.steps is not None and self.epochs is not None:
            faults.append(f"steps {self.steps} and epochs {self.epochs}: give one of them")
        if self.supervised:
            return faults + (
                [] if self.views is None else [f"views {self.views!r}: {SUPERVISED} training has no views"]
            )
        names = self.view_names
        faults += [unknown("view", name, VIEWS) for name in names if name not in VIEWS]
        if len(set(names)) < len(names):
            faults.append(f"views {self.views!r}: name each view once")
        return faults

    @property
    def supervised(self) -> bool:
        """True if the net learns from labels."""
        return self.objective == SUPERVISED

    @property
    def view_names(self) -> tuple[str, ...]:
        """The names in `views`, in its order; empty where it is not set."""
        return () if self.views is None else tuple(name.strip() for name in self.views.split(","))
