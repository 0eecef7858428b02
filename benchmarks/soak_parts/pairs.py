"""Two processes on one output: one of them makes it, the other is told, or comes after it; nothing is mixed."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

from soak_parts.jobs import Job, jobs_and_samples, names_in, stage, strangers, whole
from soak_parts.processes import run_in_child, start_in_child
from soak_parts.tally import Tally

ROUNDS = 5


def soak_pairs(work: Path, rounds: int, seed: int = 0, only: list[str] | None = None) -> Iterator[Tally]:
    """Start each command twice at once, `ROUNDS` times the number of rounds, the second up to half a run later."""
    jobs, samples = jobs_and_samples(work, only or [])
    for job in jobs:
        yield _pair_job(job, work, samples, ROUNDS * rounds, random.Random(f"{seed} {job.name}"))


def _pair_job(job: Job, work: Path, samples: Path, rounds: int, draw: random.Random) -> Tally:
    tally = Tally("pairs", job.name)
    with stage(work, samples, "reference") as folder:
        seconds = run_in_child(job.command, folder).seconds
        reference = whole(job, folder)
    for number in range(rounds):
        with stage(work, samples, "pair") as folder:
            faults = _race(job, folder, reference, draw.choice((0.0, draw.uniform(0, seconds / 2))), number % 2 == 1)
            tally.add(*faults, place=f"round {number}" if faults else "")
    return tally


def _race(job: Job, folder: Path, reference: object, delay: float, overwrite: bool) -> list[str]:
    before = names_in(folder)
    command = f"{job.command} --overwrite" if overwrite else job.command
    first = start_in_child(command, folder)
    time.sleep(delay)
    second = start_in_child(command, folder)
    ends = [first.wait(), second.wait()]
    faults = []
    if not any(end.code == 0 for end in ends):
        faults.append("stuck")
    elif whole(job, folder) != reference:
        faults.append("lost")
    if not all(end.in_one_line for end in ends):
        faults.append("tracebacks")
    if strangers(job, before, folder):
        faults.append("outside")
    return faults
