"""`report`: one page about a run, or several side by side, that needs no server and no network."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from galirep.errors import ConfigError, format_list, plural
from galirep.inspection.opened_run import OpenedRun, load_run
from galirep.inspection.run_curves import charts
from galirep.inspection.run_sections import header, hint, legend, matrices, pictures, settings, text
from galirep.system.files import require_free, write_text
from galirep.system.outputs.holding import locks_outputs
from galirep.version import __version__
from galirep.visuals.chart import draw
from galirep.visuals.page import render_page

MAX_RUNS = 8
_REFRESH = 5  # seconds


@locks_outputs("out", inputs=("runs",))
def report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    live: bool = False,
    every: float = 10.0,
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
) -> Path:
    """Write a page about runs: settings, curves beside chance, D's matrix, pictures over time, warnings; return it.

    Several runs stand in the same charts, with what differs between their settings. With `live` the page is written
    again `every` so many seconds, and a browser that shows it reloads it, until no run is in progress.

    Raises:
        CheckpointError: one is no run, or its files are damaged.
        ConfigError: no run, one twice or too many; `out` exists (unless `overwrite`); `every` is not above 0.
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        KeyboardInterrupt: a live page was interrupted; it is whole.
    """
    paths = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    names = _names(paths)
    if not every > 0:
        raise ConfigError(f"every {every:g} must be above 0, in seconds")
    target = Path(out)
    require_free(target, overwrite)
    while True:
        opened = {name: load_run(path) for name, path in zip(names, paths, strict=True)}
        going = live and any(run.info.get("status") == "running" for run in opened.values())
        write_text(target, render(opened, refresh=_REFRESH if going else None))
        if not going:
            return target
        time.sleep(every)


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each run, its last folders.

    Raises:
        ConfigError: there are none, too many, or one twice.
    """
    if not 1 <= len(paths) <= MAX_RUNS:
        raise ConfigError(f"{plural(len(paths), 'run')}: a report is of 1 to {MAX_RUNS}")
    resolved = [path.resolve() for path in paths]
    if twice := {path for path in resolved if resolved.count(path) > 1}:
        raise ConfigError(f"{format_list(sorted(map(str, twice)))}: name each run once")
    for depth in range(1, max(len(path.parts) for path in resolved) + 1):
        names = [str(Path(*path.parts[-depth:])) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in resolved]


def render(runs: Mapping[str, OpenedRun], refresh: int | None = None) -> str:
    """Return the page of runs by name; `refresh` are the seconds after which a browser loads it again."""
    drawn = charts(runs)
    figures = [
        f"<figure><figcaption>{text(chart.title)}</figcaption>{draw(chart)}<output></output></figure>"
        for chart in drawn
    ]
    curves = f'<div class="charts">{"".join(figures)}</div>' if figures else hint("No metrics yet.")
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return render_page(
        "Runs: " + ", ".join(runs) if len(runs) > 1 else f"Run {next(iter(runs))}",
        {"charts": [chart.payload() for chart in drawn]},
        kind="run_report",
        refresh="" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">',
        header=header(runs),
        curves=legend(runs) + curves,
        confusion=matrices(runs) or hint("No D's matrix in the metrics."),
        pictures=pictures(runs) or hint("No pictures yet."),
        settings=settings(runs),
        made=f"galirep {__version__} · {made}",
    )
