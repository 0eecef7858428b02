"""`galirep reproduce`: the paper's tables, and studies of your own: train, measure, decide."""

from pathlib import Path
from typing import Any

import click

from galirep.errors import ConfigError

from .common import emit, shared


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        key, equals, spec = value.partition("=")
        if not key or not equals or not spec:
            raise click.BadParameter(f"{value!r} is not KEY=SPEC, as in mnist=mnist.tar", param_hint="'--data'")
        pairs[key] = spec
    return pairs


def _list(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",")) if value else ()


@click.command(
    "reproduce",
    epilog="Example: galirep reproduce inpainting --scale cpu --sets mnist-16 --data mnist=mnist.tar --out runs/cpu",
)
@click.argument("studies", metavar="TABLE...", nargs=-1, required=True)
@click.option("--scale", default=None, metavar="NAME|FILE.toml", help="Images and budgets: cpu, paper or a TOML file.")
@click.option(
    "--data",
    multiple=True,
    metavar="KEY=SPEC",
    callback=_pairs,
    help="Data set (or CSV file of attributes) for a key that the scale names; may be given several times.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the runs and results.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the results, a JSON file for each row and seed.  [default: OUT/results]",
)
@click.option("--rows", default=None, metavar="LIST", callback=_list, help="Only these rows.")
@click.option("--sets", default=None, metavar="LIST", callback=_list, help="Only these sets of the scale.")
@click.option("--seeds", default=None, metavar="LIST", callback=_list, help="Seeds in place of the scale's.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=None, help="Core-minutes a trained row.")
@click.option("--updates", type=click.IntRange(1), default=None, help="Updates a trained row.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Rows made side by side.")
@click.option(
    "--markdown",
    type=click.Path(path_type=Path),
    default=None,
    help="New file for the tables, or one with the lines <!-- TABLE --> and <!-- end TABLE -->.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Print each row's command, updates and cost, and stop.")
@shared("trust-encoder", "force-unlock")
def reproduce_command(
    studies: tuple[str, ...],
    scale: str | None,
    data: dict[str, str],
    out: Path,
    results: Path | None,
    seeds: tuple[str, ...],
    jobs: int,
    markdown: Path | None,
    dry_run: bool,
    trust_encoder: bool,
    force_unlock: bool,
    as_json: bool,
    **limits: Any,
) -> None:
    """Train and measure what TABLE (reconstruction, representation, generation, inpainting, ablations, or a TOML file)
    lacks, and print its tables with a verdict for each claim. Finished rows are taken from their files."""
    from galirep.evaluation.reproduction.catalog import load_study
    from galirep.evaluation.reproduction.report import find_place, write_reports
    from galirep.evaluation.reproduction.runner import reproduce
    from galirep.system.outputs.holding import hold

    if not all(seed.isdigit() for seed in seeds):
        raise ConfigError(f"seeds {','.join(seeds)}: give whole numbers with commas")
    limits["seeds"] = tuple(map(int, seeds))
    if markdown is not None:
        # before anything is made: training may take days
        for study in studies:
            find_place(markdown, load_study(study, scale).name)
    made = [
        reproduce(
            study,
            out=out,
            data=data,
            scale=scale,
            results=results,
            jobs=jobs,
            dry_run=dry_run,
            trust_encoder=trust_encoder,
            force_unlock=force_unlock,
            say=lambda line: click.echo(f"galirep: {line}", err=True),
            **limits,
        )
        for study in studies
    ]
    text = "\n\n".join(reproduction.text for reproduction in made)
    if markdown is not None and not dry_run:
        with hold(markdown, force=force_unlock):
            write_reports(markdown, {reproduction.study.name: reproduction.text for reproduction in made})
    values = [reproduction.to_dict() for reproduction in made]
    emit(as_json, values[0] if len(values) == 1 else {"studies": values}, text)
