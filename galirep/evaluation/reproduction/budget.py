"""What a trained row may spend, and what making a study would take.

A budget is updates, epochs, or minutes of one core, which become updates by a trial; a forecast has the command of each
trained row, its updates, operations and hours.
"""

import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from galirep.data.catalog import open_data
from galirep.errors import ConfigError, DataError
from galirep.evaluation.reproduction.store import Options, Work
from galirep.evaluation.reproduction.study import ImageSet, Study, settings_on
from galirep.game.variants import get_variant
from galirep.networks.families import family
from galirep.networks.parts import Shapes
from galirep.system.files import write_json
from galirep.system.reading.documents import read_json
from galirep.system.reading.records import Size, check
from galirep.training.config import TrainConfig
from galirep.training.held_out import default_count
from galirep.training.plan import estimate_update

_COST_UPDATES = (20, 120)  # lengths of two runs; the difference in CPU time is that of 100 updates
SUSTAINED = 2e13
"""Operations a second that a GPU is taken to sustain on these small networks in float32, where nothing is measured."""
_DEFAULT_EPOCHS = 100.0


class _Budget(TypedDict, total=False):
    minutes: float | None
    updates: int | None
    epochs: float | None


class _Plan(_Budget):
    steps: Size


def spend(
    image_set: ImageSet,
    folder: Path,
    trial: Callable[[Path, int], None],
    run: Callable[..., None],
    of_epochs: Callable[[], int],
) -> dict[str, Any]:
    """Train in FOLDER/run for the budget of a set, or go on with what is there; return what it took.

    A budget in minutes becomes updates by the CPU time of a trial run; the number is kept, so that a resumed run ends
    where it would have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "plan.json"
    budget = {key: getattr(image_set, key) for key in ("minutes", "updates", "epochs")}
    if not plan.exists():
        if image_set.updates is not None:
            steps = image_set.updates
        elif image_set.minutes is not None:
            steps = max(1, round(image_set.minutes * 60 / _cost(trial, folder / "cost")))
        else:
            steps = of_epochs()
        write_json(plan, {"steps": steps, **budget})
    kept = check(read_json(plan, DataError), _Plan, str(plan), DataError)
    steps = kept["steps"]
    # plans of earlier versions have the updates alone
    before_now = {"updates": steps, **kept} if image_set.updates is not None else kept
    for unit, value in budget.items():
        if unit in before_now and before_now[unit] != value:
            raise ConfigError(
                f"{folder} was begun with {unit} {before_now[unit]}, not {value}: give another --out, or delete it"
            )
    resumed, before = (folder / "run").exists(), time.process_time()
    run(folder / "run", steps, resume=resumed)
    # a resumed run's time is not known
    minutes = None if resumed else (time.process_time() - before) / 60
    return {"updates": steps, "cpu_minutes": minutes}


def _cost(trial: Callable[[Path, int], None], folder: Path) -> float:
    """Return the CPU seconds of one update."""
    spent = []
    # the first run is a warm-up
    for steps in (_COST_UPDATES[0], *_COST_UPDATES):
        before = time.process_time()
        trial(folder, steps)
        spent.append(time.process_time() - before)
    return (spent[2] - spent[1]) / (_COST_UPDATES[1] - _COST_UPDATES[0])


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


def forecast(study: Study, missing: Sequence[Work], options: Options, say: Callable[[str], object]) -> str:
    """Say which results are missing, what trains them, and what that takes on a GPU of `SUSTAINED` operations a second.

    The data is opened for its sizes where it is given; no image but the first is read. `say` is given a line before
    the operations of each row are counted, which takes seconds for large networks.
    """
    if not missing:
        return f"{study.name}: every result is there"
    shapes = {s.name: _shape(s, options) for s in study.sets}
    trained = [work for work in missing if work.row.kind == "train"]
    costs: list[Cost] = []
    counted: dict[tuple[str, str], float | None] = {}
    for i, work in enumerate(trained, 1):
        key = (work.image_set.name, work.row.name)
        if key not in counted:
            say(f"{study.name}: counting the operations of {work.image_set.name} {work.row.name} ({i}/{len(trained)})")
        costs.append(_forecast_row(work, options, shapes[work.image_set.name], counted.get(key)))
        counted[key] = costs[-1].flops
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


def _forecast_row(work: Work, options: Options, shape: tuple[int | None, int], flops: float | None) -> Cost:
    """Return what a row takes; `flops` are those of another seed, if they are known."""
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
    if flops is None and updates is not None:
        flops = updates * _update_flops(config, image_set, channels)
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
