"""Full disks, by a limit on the size of files: one line, exit 1, and the earlier output whole."""

import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from soak_parts.jobs import Job, jobs_and_samples, names_in, stage, strangers, whole
from soak_parts.processes import run_in_child
from soak_parts.tally import Tally

LIMITS = 10


def soak_disks(work: Path, rounds: int, seed: int = 0, only: list[str] | None = None) -> Iterator[Tally]:
    """Let each command meet `LIMITS` times the number of rounds limits, up to the size of its largest file."""
    jobs, samples = jobs_and_samples(work, only or [])
    for job in jobs:
        yield _fill(job, work, samples, LIMITS * rounds, random.Random(f"{seed} {job.name}"))


def _fill(job: Job, work: Path, samples: Path, rounds: int, draw: random.Random) -> Tally:
    tally = Tally("disks", job.name)
    with stage(work, samples, "reference") as folder:
        before = names_in(folder)
        run_in_child(job.command, folder)
        reference = whole(job, folder)
        largest = max((folder / name).stat().st_size for name in names_in(folder) - before)
    for number in range(rounds):
        with stage(work, samples, "disk") as folder:
            limit = draw.randrange(0, largest)
            faults = _meet_limit(job, folder, reference, limit)
            tally.add(*faults, place=f"{limit} of {largest} bytes" if faults else f"{number}")
    return tally


def _meet_limit(job: Job, folder: Path, reference: object, limit: int) -> list[str]:
    before = names_in(folder)
    run_in_child(job.command, folder)
    end = run_in_child(f"{job.command} --overwrite", folder, _limited(limit))
    faults = []
    if not end.in_one_line:
        faults.append("tracebacks")
    # the one that was there, or the new one if it fitted, or one that can be gone on with
    if whole(job, folder) != reference and not job.resumes:
        faults.append("lost")
    ends = [run_in_child(continuation, folder) for continuation in job.continuations]
    if not any(other.code == 0 for other in ends):
        faults.append("stuck")
    elif whole(job, folder) != reference:
        faults.append("lost")
    if strangers(job, before, folder):
        faults.append("outside")
    return list(dict.fromkeys(faults))


def _limited(limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
