"""The command `galirep report`."""

from pathlib import Path

import click

from .common import emit, shared


@click.command("report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.html")
@click.option("--live", is_flag=True, help="Write the page again until no run is in progress; a browser reloads it.")
@click.option(
    "--every", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Seconds between, live."
)
@shared("overwrite")
def report_command(
    runs: tuple[Path, ...], out: Path, live: bool, every: float, overwrite: bool, force_unlock: bool, as_json: bool
) -> None:
    """Write one page about runs: settings, curves, pictures over time, warnings; several stand side by side.

    It needs no server and no network.

    \b
    Example:
      galirep report runs/a runs/b --out runs.html
    """
    from galirep.inspection.run_report import report

    page = report(runs, out, live=live, every=every, overwrite=overwrite, force_unlock=force_unlock)
    emit(as_json, {"out": str(page), "runs": [str(run) for run in runs]}, f"{page}: {page.stat().st_size / 1e6:.1f} MB")
