"""The sections of the page about runs, as HTML."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from galirep.data.picture import read_image
from galirep.errors import DataError, plural
from galirep.inspection.opened_run import OpenedRun
from galirep.system.reading.files import require_regular

_GRIDS = 6  # pictures of a kind and run
_MEASURES = {
    "pixel-MSE": "evaluation.pixel_mse",
    "kNN error": "evaluation.knn_error",
    "latent MSE": "evaluation.latent_mse",
    "loss of D": "loss_d",
    "loss of G and E": "loss_g",
}
_KINDS = {
    "prior": "Samples of the prior",
    "reconstruction": "Images and their reconstructions, below each other",
}


def header(runs: Mapping[str, OpenedRun]) -> str:
    """Return what each run is, how far it has come, its warnings, and a table of figures."""
    items = []
    for colour, (name, run) in enumerate(runs.items()):
        data = run.info.get("data") or {}
        steps = run.info.get("steps")
        of = f" of {steps:,}" if steps else ""
        facts = [
            f"{run.info.get('status', 'unknown')} at update {run.step:,}{of}",
            str(run.config.get("variant") or run.config.get("objective") or ""),
            f"{data.get('spec', run.config.get('data'))}, {plural(data['images'], 'image')}"
            if "images" in data
            else "",
            _spent(run),
            f"galirep {run.info['galirep']}" if "galirep" in run.info else "",
        ]
        warnings = "".join(f'<p class="warning">Warning: {text(line)}</p>' for line in run.info.get("warnings") or [])
        items.append(
            f'<li class="border{colour}"><strong>{text(name)}</strong>'
            f"<p>{text(' · '.join(filter(None, facts)))}</p>{warnings}</li>"
        )
    return f'<ul class="runs">{"".join(items)}</ul>{_measures(runs)}'


def _spent(run: OpenedRun) -> str:
    """Return the time that the updates took, as the metrics have it."""
    seconds = sum(row["seconds"]["interval"] for row in run.metrics if isinstance(row.get("seconds"), Mapping))
    if not seconds:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _measures(runs: Mapping[str, OpenedRun]) -> str:
    """Return a table of the last and the best figures."""
    rows = []
    for name, run in runs.items():
        table = run.table()
        last = [
            next((v for v in reversed(table.get(column, [])) if v is not None), None) for column in _MEASURES.values()
        ]
        if any(value is not None for value in last):
            rows.append((name, f"last, {run.step:,}", last))
        evaluated = [s for s, v in zip(table.get("step", []), table.get("evaluation.pixel_mse", []), strict=False) if v]
        if run.best and run.best["step"] in evaluated and run.best["step"] != run.step:
            at = table["step"].index(run.best["step"])
            best = [table.get(column, [None] * (at + 1))[at] for column in _MEASURES.values()]
            rows.append((name, f"best, {run.best['step']:,}", best))
    if not rows:
        return ""
    kept = [i for i in range(len(_MEASURES)) if any(values[i] is not None for _, _, values in rows)]
    heads = "".join(f'<th scope="col">{text(list(_MEASURES)[i])}</th>' for i in kept)
    body = "".join(
        f"<tr><td>{text(name)}</td><td>{text(which)}</td>"
        + "".join(f"<td>{'' if values[i] is None else f'{values[i]:.4g}'}</td>" for i in kept)
        + "</tr>"
        for name, which, values in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Figures"><table class="compare"><thead><tr>'
        f'<th scope="col">run</th><th scope="col">update</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def legend(runs: Mapping[str, OpenedRun]) -> str:
    """Return the colours of several runs; empty for one."""
    if len(runs) < 2:
        return ""
    keys = "".join(
        f'<span class="key-run"><i class="swatch c{colour}"></i>{text(name)}</span> '
        for colour, name in enumerate(runs)
    )
    return f'<p class="legend">{keys}</p>'


def matrices(runs: Mapping[str, OpenedRun]) -> str:
    """Return D's matrix of each run, of its last row of metrics; empty if there is none."""
    figures = []
    for name, run in runs.items():
        row = next((row for row in reversed(run.metrics) if row.get("probs")), None)
        if row is None:
            continue
        variant = run.info.get("variant")
        classes = variant["classes"] if isinstance(variant, Mapping) and "classes" in variant else []
        texts = [", ".join(map(str, one)) for one in classes]
        lines = []
        for number, probs in enumerate(row["probs"]):
            label = f"{number + 1} ({texts[number]})" if number < len(texts) else str(number + 1)
            cells = "".join(f'<td class="shade s{min(9, int(10 * p))}">{p:.2f}</td>' for p in probs)
            lines.append(f'<tr><th scope="row">{text(label)}</th>{cells}</tr>')
        heads = "".join(f'<th scope="col">{i + 1}</th>' for i in range(len(row["probs"])))
        figures.append(
            f"<figure><figcaption>{text(name)}, update {row['step']:,}</figcaption>"
            f'<div class="scroll" tabindex="0" role="region" aria-label="D\'s matrix of {text(name)}">'
            f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></figure>"
        )
    return f'<div class="matrices">{"".join(figures)}</div>' if figures else ""


def pictures(runs: Mapping[str, OpenedRun]) -> str:
    """Return the pictures of each run, of evenly spaced updates; empty if there are none."""
    parts = []
    for name, run in runs.items():
        for kind, files in run.pictures().items():
            steps = sorted(files)
            count = min(_GRIDS, len(steps))
            chosen = dict.fromkeys(steps[round(i * (len(steps) - 1) / max(1, count - 1))] for i in range(count))
            figures = "".join(_figure(run.path, files[step], f"update {step:,}") for step in chosen)
            title = _KINDS.get(kind, kind) + (f" · {name}" if len(runs) > 1 else "")
            more = f" ({count} of {len(steps)} saved)" if count < len(steps) else ""
            parts.append(
                f'<h3 class="series">{text(title)}{more}</h3>'
                f'<div class="strip" tabindex="0" role="region" aria-label="{text(title)}">{figures}</div>'
            )
    return "".join(parts)


def _figure(run: Path, file: Path, caption: str) -> str:
    """Return a picture of a run; what is no picture in the run's own folder is named and not shown.

    It is decoded and written anew, so that the page holds pixels and nothing else that a file has.
    """
    try:
        if file.is_symlink() or not file.resolve().is_relative_to(run.resolve()):
            raise DataError("it is a link")
        require_regular(file, str(file), DataError)
        pixels = read_image(file.read_bytes())
    except (DataError, OSError) as err:
        return f'<figure><p class="note">{text(caption)}: not shown, {text(str(err))}</p></figure>'
    stored = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stored, "PNG")
    content = base64.b64encode(stored.getvalue()).decode()
    return (
        f'<figure><img alt="{text(caption)}" loading="lazy" src="data:image/png;base64,{content}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def settings(runs: Mapping[str, OpenedRun]) -> str:
    """Return what differs between the runs' settings, and all of them folded away."""
    names = list(dict.fromkeys(name for run in runs.values() for name in run.config))
    rows = [(name, [run.config.get(name) for run in runs.values()]) for name in names]
    differing = [row for row in rows if any(value != row[1][0] for value in row[1])]
    parts = []
    if len(runs) > 1:
        parts.append(hint("What differs:") if differing else hint("The settings are the same."))
        parts.append(_table(runs, differing) if differing else "")
    versions = {str(run.info.get("galirep")) for run in runs.values() if run.info.get("galirep")}
    if len(versions) > 1:
        parts.append(f'<p class="note">Made by different versions of galirep: {text(", ".join(sorted(versions)))}</p>')
    shown = [row for row in rows if any(value is not None for value in row[1])]
    folded = (
        f"<details{'' if len(runs) > 1 else ' open'}><summary>All settings</summary>{_table(runs, shown)}</details>"
    )
    return "".join(parts) + folded


def _table(runs: Iterable[str], rows: Sequence[tuple[str, Sequence[Any]]]) -> str:
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in runs)
    body = "".join(
        f"<tr><td>{text(name)}</td>"
        + "".join(f"<td>{'' if value is None else text(str(value))}</td>" for value in values)
        + "</tr>"
        for name, values in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Settings"><table><thead><tr>'
        f'<th scope="col">setting</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def hint(line: str) -> str:
    """Return a line in the page's quiet colour."""
    return f'<p class="hint">{text(line)}</p>'


def text(plain: str) -> str:
    """Return a text as HTML."""
    return html.escape(plain)
