"""What making a study would take: the command of each trained row, its updates, operations and hours."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galirep.data.catalog import open_data
from galirep.evaluation.reproduction.store import Options, Work
from galirep.evaluation.reproduction.study import ImageSet, Study, settings_on
from galirep.game.variants import get_variant
from galirep.networks.families import family
from galirep.networks.parts import Shapes
from galirep.training.config import TrainConfig
from galirep.training.held_out import default_count
from galirep.training.plan import estimate_update

SUSTAINED = 2e13
"""Operations a second that a GPU is taken to sustain on these small networks in float32, where nothing is measured."""
_DEFAULT_EPOCHS = 100.0


@dataclass(frozen=True)
class Cost:
    """Of one trained row: updates (None: decided by a trial run), operations of all of them, the command."""

    work: Work
    command: str
    updates: int | None
    flops: float | None

    def line(self) -> str:
        """Say it in two lines."""
        where = f"{self.work.image_set.name} {self.work.name}"
        if self.flops is None or self.updates is None:
            budget = f"{self.work.image_set.minutes:g} core-minutes" if self.work.image_set.minutes else "not known"
            return f"{where}: {budget}\n    {self.command}"
        hours = self.flops / SUSTAINED / 3600
        return f"{where}: {self.updates:,} updates, {self.flops:.2e} FLOP, about {hours:.1f} h\n    {self.command}"


def forecast(study: Study, missing: Sequence[Work], options: Options) -> str:
    """Say which results are missing, what trains them, and what that takes on a GPU of `SUSTAINED` operations a second.

    The data is opened for its sizes where it is given; no image but the first is read.
    """
    if not missing:
        return f"{study.name}: every result is there"
    shapes = {s.name: _shape(s, options) for s in study.sets}
    costs = [_cost(work, options, shapes[work.image_set.name]) for work in missing if work.row.kind == "train"]
    others = [f"{work.image_set.name} {work.name}: {work.row.kind}" for work in missing if work.row.kind != "train"]
    known = [cost.flops for cost in costs if cost.flops is not None]
    total = f"{study.name}: {len(missing)} results are missing"
    if known:
        hours = sum(known) / SUSTAINED / 3600
        total += (
            f"; {len(known)} runs take {sum(known):.2e} FLOP, about {hours:,.0f} GPU hours at an assumed "
            f"{SUSTAINED:.0e} FLOP/s (no GPU was measured; M(.) and evaluation are left out)"
        )
    return "\n".join([total, *(cost.line() for cost in costs), *others])


def _shape(image_set: ImageSet, options: Options) -> tuple[int | None, int]:
    """Return the number of training images and their channels: of the data where it is given, else as expected."""
    spec = options.data.get(image_set.data)
    if spec is None:
        # the paper's sets are of colour images
        return image_set.images, 3
    source = open_data(spec, image_set.split)
    return len(source), 1 if source.read(0).shape[2] == 1 else 3


def _cost(work: Work, options: Options, shape: tuple[int | None, int]) -> Cost:
    image_set = work.image_set
    settings = {**settings_on(work.row, image_set), "image_size": image_set.image_size, "seed": work.seed}
    spec = options.data.get(image_set.data, f"{{{image_set.data}}}")
    config = TrainConfig.from_dict({**settings, "data": spec})
    count, channels = shape
    updates = image_set.updates
    if updates is None and image_set.minutes is None and count:
        epochs = config.epochs or image_set.epochs or _DEFAULT_EPOCHS
        held_out = default_count(count, config.batch_size) if config.holdout is None else config.holdout
        updates = math.ceil(epochs * (count - held_out) / (config.batch_size * config.d_steps))
    flops = None if updates is None else updates * _update_flops(config, image_set, channels)
    out = options.workdir / image_set.name / work.name / "run"
    budget = {"epochs": config.epochs or image_set.epochs} if updates is None else {"steps": updates, "epochs": None}
    return Cost(work, _command({**settings, "data": spec, **budget}, image_set, str(out)), updates, flops)


def _update_flops(config: TrainConfig, image_set: ImageSet, channels: int) -> float:
    variant = get_variant(config.variant)
    latent = config.latent_dim or family(config.networks, image_set.image_size)[1].latent
    shapes = Shapes(image_set.image_size, channels, latent, config.width, int(variant.needs_features), config.norm)
    return estimate_update(config, variant, shapes).flops


def _command(settings: Mapping[str, Any], image_set: ImageSet, out: str) -> str:
    given = {key: value for key, value in settings.items() if value is not None}
    if image_set.split is not None:
        given["split"] = image_set.split
    words = ["galirep", "train", "--out", out]
    for key, value in given.items():
        option = key.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    return shlex.join(words)
