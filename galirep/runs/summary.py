"""summary.md of a training run: what was run, how it ended and where everything lies."""

from collections.abc import Mapping, Sequence
from typing import Any

_CURVE = 12  # evaluations shown, at most


def summary(config: Mapping[str, Any], info: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of a run that ended; `info` is what run.json says, `history` the lines of metrics.jsonl."""
    rows = "".join(f"| {name} | {value} |\n" for name, value in config.items() if value is not None)
    last = history[-1]
    return (
        f"# {config['variant']} on {config['data']}\n\n"
        f"{last['step']} updates on {info['data']['images']} images; "
        f"loss of D {last['loss_d']:.4f}, of G and E {last['loss_g']:.4f}.\n\n"
        "- `export/`: the averaged encoder and generator (`galirep embed --encoder` takes this directory)\n"
        f"{_best_line(info['best'])}"
        "- `samples/`: pictures over time; `metrics.jsonl`: numbers over time; `checkpoints/last.pt`: the state to resume from\n\n"
        f"{_warning_list(info['warnings'])}{_curve(history)}"
        f"| setting | value |\n|---|---|\n{rows}"
    )


def _best_line(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return ""
    which = f"the least {best['by']} on held-out images, {best['value']:.4g}"
    return f"- `best/`, `checkpoints/best.pt`: those of step {best['step']}, with {which}\n"


def _warning_list(warnings: Sequence[str]) -> str:
    return (
        "Warnings that stood at the end:\n\n" + "".join(f"- {text}\n" for text in warnings) + "\n" if warnings else ""
    )


def _curve(history: Sequence[Mapping[str, Any]]) -> str:
    """A table of up to `_CURVE` of the evaluations, evenly spread, the last one among them."""
    found = [(row["step"], row["evaluation"]) for row in history if "evaluation" in row]
    if not found:
        return ""
    chosen = [
        found[round(i * (len(found) - 1) / max(1, min(_CURVE, len(found)) - 1))] for i in range(min(_CURVE, len(found)))
    ]
    rows = [
        f"| {step} | {e['pixel_mse']:.4f} | {_share(e.get('knn_error'))} | {e['kl']:.1f} | {e['mu_rank']:.1f} |\n"
        for step, e in chosen
    ]
    about = f"On {found[0][1]['images']} held-out images, whose mse from the mean image is {found[0][1]['mean_image_mse']:.4f}:\n\n"
    return f"{about}| step | mse of G(mu(x)) | kNN error | KL, nats | effective rank of mu |\n|---|---|---|---|---|\n{''.join(rows)}\n"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
