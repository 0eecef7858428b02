"""The command `galirep doctor`."""

from pathlib import Path

import click

from .common import emit, shared


@click.command("doctor")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@shared()
def doctor_command(folder: Path, as_json: bool) -> None:
    """Check what galirep stands on: Python, torch, GPUs, faiss, timm, HDF5 locks, disk, shared memory, weights.

    FOLDER is where outputs are to be (default: this one). Each line says PASS, WARN or FAIL, with what mends it; the
    exit code is 1 if something fails.

    \b
    Example:
      galirep doctor /scratch/runs
    """
    from galirep.inspection.doctor import doctor

    diagnosis = doctor(folder)
    emit(as_json, diagnosis.to_dict(), diagnosis.lines())
    if not diagnosis.healthy:
        raise click.exceptions.Exit(1)
