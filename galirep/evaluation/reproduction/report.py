"""Markdown of a study: its tables and verdicts, from results alone."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from galirep.errors import ConfigError
from galirep.evaluation.reproduction.measures import COLUMNS
from galirep.evaluation.reproduction.study import ImageSet, Row, Study
from galirep.evaluation.reproduction.verdicts import Comparison, Verdict, decide
from galirep.metrics.intervals import format_interval, mean_interval
from galirep.system.files import require_free, write_text


def report(study: Study, results: Iterable[Mapping[str, Any]]) -> str:
    """Return a table for each set, with means and half-widths of 95% intervals over seeds, and the verdicts."""
    results = list(results)
    parts = []
    for image_set in study.sets:
        own = results_on(image_set, results)
        parts.append(f"{_heading(image_set, own)}\n\n{_table(study, image_set, own)}")
        verdicts = verdicts_of(study, image_set, own)
        if verdicts:
            parts.append(_verdicts(verdicts))
    return "\n\n".join(parts)


def results_on(image_set: ImageSet, results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the results of a set."""
    return [result for result in results if result["set"] == image_set.name]


def verdicts_of(study: Study, image_set: ImageSet, results: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Decide the claims that are made of a set."""
    claims = [c for c in study.claims if not c.sets or image_set.name in c.sets]
    return [decide(claim, image_set.name, results) for claim in claims]


def write_report(path: Path, name: str, text: str) -> None:
    """Write the report of a study to a Markdown file of its own, or into one between two lines that name it.

    These are `<!-- NAME -->` and `<!-- end NAME -->`; what stands between them is replaced.

    Raises:
        ConfigError: the file exists and lacks the two lines, or is no text.
    """
    write_reports(path, {name: text})


def write_reports(path: Path, texts: Mapping[str, str]) -> None:
    """Write the reports of several studies, name -> text, as `write_report` does; a new file has them in their order.

    Raises:
        ConfigError: as `write_report`.
    """
    if not path.exists():
        write_text(path, "\n".join(_block(name, text) + "\n" for name, text in texts.items()))
        return
    for name, text in texts.items():
        head, tail = find_place(path, name) or ("", "\n")
        write_text(path, f"{head}{_block(name, text)}{tail}")


def _block(name: str, text: str) -> str:
    begin, end = _lines(name)
    return f"{begin}\n{text}\n{end}"


def find_place(path: Path, name: str) -> tuple[str, str] | None:
    """Return what stands before and after the tables of a study in a Markdown file; None where there is no file yet.

    Raises:
        ConfigError: as `write_report`; also where the folder of the file does not exist.
    """
    begin, end = _lines(name)
    require_free(path, overwrite=True)
    if not path.exists():
        return None
    try:
        head, found_begin, rest = path.read_text(encoding="utf-8").partition(begin)
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"cannot read {path}: {err}") from None
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ConfigError(f"{path} exists and lacks the lines {begin} and {end} to write the tables between")
    return head, tail


def _lines(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- end {name} -->"


def _heading(image_set: ImageSet, results: Sequence[Mapping[str, Any]]) -> str:
    budgets = {"core-minutes": image_set.minutes, "updates": image_set.updates, "epochs": image_set.epochs}
    budget = next(f"{value:g} {unit}" for unit, value in budgets.items() if value is not None)
    dates = sorted({result["provenance"]["date"] for result in results})
    made = f", {dates[0]}" if len(dates) == 1 else f", {dates[0]} to {dates[-1]}" if dates else ""
    return f"**{image_set.name}** ({budget} a row, seeds {', '.join(map(str, image_set.seeds))}{made})"


def _table(study: Study, image_set: ImageSet, results: Sequence[Mapping[str, Any]]) -> str:
    lines = [_line(["row", "seeds", "updates", *study.columns]), "|---" * (3 + len(study.columns)) + "|"]
    for row in study.rows_on(image_set):
        own = [result for result in results if result["row"] == row.name]
        seeds = len({result["seed"] for result in own})
        updates = sorted({result["updates"] for result in own if result.get("updates")})
        made = "" if not updates else f"{updates[0]}" if len(updates) == 1 else f"{updates[0]} to {updates[-1]}"
        cells = [_cell(row, image_set, column, own) for column in study.columns]
        lines.append(_line([row.name, str(seeds) if seeds else "", made, *cells]))
    return "\n".join(lines)


def _cell(row: Row, image_set: ImageSet, column: str, results: Sequence[Mapping[str, Any]]) -> str:
    values = [result[column] for result in results if result.get(column) is not None]
    cell = format_interval(mean_interval(values), COLUMNS[column].digits) if values else ""
    figure = row.paper.get(image_set.paper or "", {}).get(column)
    # the paper's networks, budgets and yardsticks are others
    return cell if figure is None else f"{cell} [paper: {figure:g}]".strip()


def _verdicts(verdicts: Iterable[Verdict]) -> str:
    lines = [_line(["claim", "verdict", "difference, 95% interval"]), "|---|---|---|"]
    for verdict in verdicts:
        lines.append(_line([verdict.text, f"**{verdict.verdict}**", "; ".join(map(_difference, verdict.comparisons))]))
    return "\n".join(lines)


def _difference(comparison: Comparison) -> str:
    pair = f"{comparison.column}, {comparison.better} - {comparison.than}: "
    if comparison.difference is None:
        return f"{pair}not measured"
    digits = COLUMNS[comparison.column].digits
    if comparison.half_width is None:
        return f"{pair}{comparison.difference:+.{digits}f} (one pair, no interval)"
    return f"{pair}{comparison.difference:+.{digits}f} ± {comparison.half_width:.{digits}f}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
