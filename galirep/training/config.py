"""The settings of a training run, one line each: default, unit, bounds and help."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from galirep.errors import unknown
from galirep.system.settings import Settings, setting
from galirep.training.presets import PRESETS

AUGMENTATIONS = ("color", "translation", "cutout")
VIEWS = ("crop", "shift", "flip", "color", "grey")


@dataclass(frozen=True)
class TrainConfig(Settings):
    """The settings of a training run. `preset` only records a name here; `from_dict` takes the preset's settings.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds, or two settings contradict each other; one message
            lists all faults.
    """

    extractors = ("adapter", "body")
    preset: str | None = setting(
        None, "Preset that the settings not given are taken from (galirep list presets).", choices=tuple(PRESETS)
    )
    # data
    data: str = setting(
        "",
        "Data set: a folder or .tar of class subfolders, sklearn:digits, torchvision:NAME, npz:FILE, hdf5:FILE, "
        "csv:FILE.",
        free=True,
    )
    split: str | None = setting(None, "Split of the data set, where it has splits (default: its training split).")
    splits: str = setting(
        "auto",
        "Top-level folders that are splits: auto (train, val, test, ...), none, or names with commas.",
        free=True,
    )
    data_root: str | None = setting(None, "Folder that holds torchvision data sets.", free=True)
    image_size: int | None = setting(
        None, "Side of the square training images, pixels (default: that of the images).", low=8, high=1024
    )
    channels: int | None = setting(None, "Colour channels, 1 or 3 (default: those of the images).", choices=(1, 3))
    max_upscale: float = setting(2.0, "Largest enlargement of an image; smaller images are refused.", low=1)
    on_error: str = setting(
        "fail",
        "What an unreadable image does: fail lists it and stops, skip leaves it out and logs it.",
        choices=("fail", "skip"),
    )
    # game
    variant: str = setting("gali-4", "Variant of the game: a name (galirep list variants) or a .toml file.")
    adapter: str | None = setting(
        None, "Feature extractor M(.) of GALI-PT: timm:NAME[@WEIGHTS], classifier:DIR, module:function, ..."
    )
    adapter_layers: str | None = setting(
        None, "Layers of M(.) by name, with commas, as of galirep embed (default: the extractor's own choice)."
    )
    objective: str = setting(
        "product",
        "Objective of G and E (docs/training.md).",
        choices=("product", "minimax", "misclassification", "relativistic"),
    )
    views: str | None = setting(
        None,
        "What the view operators T1, T2, ... of the variant do to an image, in this order: any of crop, shift, flip, "
        "color, grey, as in crop,flip (default: crop, where the variant has them).",
    )
    penalty_weight: float = setting(
        1.0, "Multiplies the weights of the variant's penalties (paper, ALICE: 1.0 on SVHN, 0.02 on CelebA).", low=0
    )
    # networks
    networks: str = setting(
        "auto",
        "Network family (galirep list networks); paper is the one of the paper's that takes the size, auto is compact.",
    )
    latent_dim: int | None = setting(None, "Dimensions of z (default: the family's).", low=1, high=8192)
    width: int = setting(32, "Channels of the first layer, in families that scale.", low=4, high=1024)
    norm: str = setting(
        "batch",
        "Normalisation in E and G: by the batch, or by groups of channels of each image alone.",
        choices=("batch", "group"),
    )
    body: str | None = setting(
        None, "Extractor that E stands on, with a trained head for mu and log sigma: timm:NAME, classifier:DIR, ..."
    )
    body_layers: str | None = setting(
        None, "Layers of the body that the head reads, with commas (default: those the extractor gives)."
    )
    body_lr: float = setting(0.0, "Learning rate of the body's weights, times that of E (0: frozen).", low=0, high=10)
    init_from: str | None = setting(
        None, "Run (or export folder), or classifier:DIR, whose weights E, G and D start from where they fit."
    )
    # discriminator
    d_regularizer: str = setting(
        "r1r2",
        "Regularisation of D: spectral norm, with a learned scale, a gradient penalty, both, or none.",
        choices=("sn", "sn-scale", "r1r2", "sn+r1r2", "sn-scale+r1r2", "none"),
    )
    r1_gamma: float = setting(0.1, "Weight of the gradient penalty (r1r2).", low=0)
    r1_every: int = setting(4, "Updates between two gradient penalties (r1r2); each weighs that much more.", low=1)
    r1_on: str = setting(
        "mean",
        "Which differences of D's logits the gradient penalty is of: a tuple's own less the mean of the others (mean), "
        "less another's, drawn for each tuple (pairs), or less each other's, n - 1 backward passes (all-pairs).",
        choices=("mean", "pairs", "all-pairs"),
    )
    r1_features: bool = setting(False, "Penalise D's gradient by M's features too, where D reads them (r1r2, GALI-PT).")
    instance_noise: float = setting(
        0.1, "Standard deviation of the noise on D's images at the start; it falls linearly to 0.", low=0, high=10
    )
    d_augment: str = setting(
        "none", "Augmentation of D's images, for small sets: none, or any of color, translation, cutout, with commas."
    )
    # optimisation
    steps: int | None = setting(None, "Updates of G and E (default: from --epochs).", low=1)
    epochs: float | None = setting(None, "Passes over the data set (default: 100, unless --steps is given).", above=0)
    batch_size: int = setting(32, "Images an update.", low=2)
    d_steps: int = setting(1, "Updates of D for one of G and E, each on images of its own.", low=1, high=100)
    lr: float = setting(5e-4, "Learning rate of G, E and D (Adam).", low=0, high=10)
    lr_d: float | None = setting(None, "Learning rate of D (default: twice --lr).", low=0, high=10)
    lr_e: float | None = setting(None, "Learning rate of E, where it differs from that of G.", low=0, high=10)
    beta1: float = setting(0.5, "Adam's decay of the mean gradient.", low=0, high=0.9999)
    beta2: float = setting(0.99, "Adam's decay of the mean squared gradient.", low=0, high=0.999999)
    schedule: str = setting(
        "constant", "Learning rate over the run: constant, or a cosine to 0.", choices=("constant", "cosine")
    )
    warmup: int = setting(0, "Updates over which the learning rate rises from 0.", low=0)
    grad_clip: float = setting(0.0, "Largest gradient norm of each of E, G and D (0: no clipping).", low=0)
    ema_half_life: float = setting(
        10_000.0, "Half-life of the averaged E and G that are evaluated and exported, images (0: no averaging).", low=0
    )
    # machine
    seed: int = setting(0, "Seed of everything random.", low=0, high=2**31 - 1)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.", free=True)
    precision: str = setting("fp32", "Arithmetic of the networks.", choices=("fp32", "bf16", "fp16"))
    compile: bool = setting(False, "Compile the networks with torch.compile.", free=True)
    num_workers: int | None = setting(None, "Decoding workers (default: by the cores).", low=0, high=256, free=True)
    # evaluation
    holdout: int | None = setting(
        None,
        "Training images kept out of training, to evaluate on (default: 1000, at most a tenth of the set; 0: none).",
        low=0,
    )
    evaluate_every: int | None = setting(
        None, "Updates between two evaluations on the held-out images (default: 1000; 0: none).", low=0
    )
    evaluate_layers: str = setting(
        "paper",
        "Layers that the held-out nearest-neighbour error reads, with commas: of E (conv2, mu, ...) and of D (d1, d2, "
        "...), each with :RxC, :gap, :max or :flat; paper are E's last three hidden ones and mu.",
    )
    best_by: str = setting(
        "pixel_mse",
        "What the best checkpoint has least of, on the held-out images.",
        choices=("pixel_mse", "knn_error"),
    )
    max_rollbacks: int = setting(
        3, "Returns to the last checkpoint, at half the learning rate each, before NaN ends the run.", low=0, free=True
    )
    # reports
    log_every: int = setting(100, "Updates between two lines of metrics.jsonl.", low=1)
    checkpoint_every: int = setting(1000, "Updates between two checkpoints.", low=1)
    sample_every: int | None = setting(
        None, "Updates between two grids of pictures, 0: none (default: 1000, or a quarter of them).", low=0, free=True
    )
    keep: int = setting(1, "Checkpoints kept besides last.pt.", low=0, free=True)

    command: ClassVar[str] = "train"
    exclusive: ClassVar[tuple[str, ...]] = ("steps", "epochs")

    def contradictions(self) -> list[str]:
        """Return what is wrong with settings that fit one by one, a line each."""
        faults = []
        if self.steps is not None and self.epochs is not None:
            faults.append(f"steps {self.steps} and epochs {self.epochs:g}: give one of them")
        if self.penalized and self.compile:
            faults.append(
                f"d_regularizer {self.d_regularizer} needs second derivatives, "
                "which compile does not give: take d_regularizer sn, sn-scale or none with it"
            )
        if self.penalized and self.precision == "fp16":
            faults.append(
                f"d_regularizer {self.d_regularizer} overflows in fp16: "
                "take precision fp32 or bf16, or another d_regularizer"
            )
        for name in ("adapter_layers", "evaluate_layers"):
            if (text := getattr(self, name)) is not None and not all(part.strip() for part in text.split(",")):
                faults.append(f"{name} {text!r}: write names with commas between them, as in conv2,mu")
        faults += _name_faults("d_augment", self.augmentations, AUGMENTATIONS, "none")
        faults += _name_faults("views", self.view_names, VIEWS)
        return faults

    @property
    def penalized(self) -> bool:
        """True if D has a gradient penalty."""
        return self.d_regularizer.endswith("r1r2")

    @property
    def initial_noise(self) -> float:
        """Standard deviation of the instance noise at the start of the run; 0 where D has a gradient penalty."""
        return 0.0 if self.penalized else self.instance_noise

    @property
    def open_ended(self) -> bool:
        """True if nothing falls over the run's length, so that a finished run can be made longer."""
        return self.schedule == "constant" and not self.initial_noise

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names in `d_augment`, in its order; empty where it is `none`."""
        return () if self.d_augment == "none" else _names(self.d_augment)

    @property
    def view_names(self) -> tuple[str, ...]:
        """The names in `views`, in its order; empty where it is not set."""
        return () if self.views is None else _names(self.views)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Build the settings from a mapping; what it lacks is taken from its `preset`, if it names one.

        Raises:
            ConfigError: a key is unknown (with the nearest known one) or a value does not fit.
        """
        cls.require_mapping(values)
        if (preset := PRESETS.get(str(values.get("preset")))) is not None:
            values = cls.merge(preset.settings, values)
        return super().from_dict(values)

    def differences(self, other: "TrainConfig") -> list[str]:
        """List what differs from another run's settings, as `name: this, not that`.

        Left out is what cannot change the result of an update: the `free` settings, and more `steps` than the other's
        where both are `open_ended`.
        """
        longer = self.open_ended and other.open_ended and (self.steps or 0) > (other.steps or 0)
        return [line for line in super().differences(other) if not (longer and line.startswith("steps: "))]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _name_faults(setting: str, names: tuple[str, ...], known: tuple[str, ...], *others: str) -> list[str]:
    """Return what is wrong with the names given for a setting: each must be known and given once."""
    faults = [unknown(setting, name, (*known, *others)) for name in names if name not in known]
    if len(set(names)) < len(names):
        faults.append(f"{setting} {','.join(names)!r}: name each once")
    return faults
