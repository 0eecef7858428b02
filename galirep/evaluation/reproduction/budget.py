"""What a trained row may spend: updates, epochs, or minutes of one core, which become updates by a trial."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from galirep.errors import DataError
from galirep.evaluation.reproduction.study import ImageSet
from galirep.system.files import write_json
from galirep.system.reading.documents import read_json
from galirep.system.reading.records import Size, check

_COST_UPDATES = (20, 120)  # lengths of two runs; the difference in CPU time is that of 100 updates


class _Plan(TypedDict):
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
    if not plan.exists():
        if image_set.updates is not None:
            steps = image_set.updates
        elif image_set.minutes is not None:
            steps = max(1, round(image_set.minutes * 60 / _cost(trial, folder / "cost")))
        else:
            steps = of_epochs()
        write_json(plan, {"steps": steps})
    steps = check(read_json(plan, DataError), _Plan, str(plan), DataError)["steps"]
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
