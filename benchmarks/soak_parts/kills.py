"""SIGKILL at random moments: no finished work is lost, a command goes on, and what comes out is the same."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

from soak_parts.jobs import Job, jobs_and_samples, names_in, stage, strangers, whole
from soak_parts.processes import run_in_child, start_in_child
from soak_parts.tally import Tally


def soak_kills(work: Path, kills: int, seed: int = 0, only: list[str] | None = None) -> Iterator[Tally]:
    """Kill each command so often, half of the time where there is an earlier output to replace."""
    jobs, samples = jobs_and_samples(work, only or [])
    for job in jobs:
        yield _kill_job(job, work, samples, kills, random.Random(f"{seed} {job.name}"))


def _kill_job(job: Job, work: Path, samples: Path, kills: int, draw: random.Random) -> Tally:
    tally = Tally("kills", job.name)
    with stage(work, samples, "reference") as folder:
        end = run_in_child(job.command, folder)
        reference = whole(job, folder)
        if end.code or reference is None:
            raise SystemExit(f"galirep {job.command} fails when nobody kills it: {end}")
    for number in range(kills):
        with stage(work, samples, "killed") as folder:
            faults = _kill_once(job, folder, reference, draw, end.seconds, replacing=number % 2 == 1)
            tally.add(*faults, place=f"kill {number}" if faults else "")
    return tally


def _kill_once(
    job: Job, folder: Path, reference: object, draw: random.Random, seconds: float, *, replacing: bool
) -> list[str]:
    """Kill a command once; return the columns of the table in which it counts."""
    before = names_in(folder)
    command = job.command
    if replacing:
        run_in_child(job.command, folder)
        command = f"{job.command} --overwrite"
    child = start_in_child(command, folder)
    time.sleep(draw.uniform(0, 1.05 * seconds))
    child.kill()
    child.wait()

    faults = []
    # an earlier output stays until a new one is whole, an earlier run until a new one has a checkpoint
    checkpoint = folder / job.out / "checkpoints" / "last.pt"
    if replacing and whole(job, folder) is None and not checkpoint.is_file():
        faults.append("lost")
    ends = []
    for continuation in job.continuations:
        ends.append(run_in_child(continuation, folder))
        if ends[-1].code == 0:
            break
    if ends[-1].code != 0:
        faults.append("stuck")
    elif whole(job, folder) != reference:
        faults.append("lost")
    if not all(end.in_one_line for end in ends):
        faults.append("tracebacks")
    if any(end.seconds > max(10.0, 20 * seconds) for end in ends):
        faults.append("hangs")
    if strangers(job, before, folder):
        faults.append("outside")
    return faults
