"""summary.md of a training run: what was run, how it ended and where everything lies."""

from collections.abc import Mapping, Sequence
from typing import Any

from galirep.runs.metrics import MetricsRow

_MAX_EVALUATIONS = 12  # shown in the table


def summary(settings: Mapping[str, Any], info: Mapping[str, Any], history: Sequence[MetricsRow]) -> str:
    """Describe a finished run in Markdown; `info` is what run.json says, `history` the rows of metrics.jsonl."""
    rows = "".join(f"| {name} | {value} |\n" for name, value in settings.items() if value is not None)
    losses = f"loss of D {history[-1].loss_d:.4f}, of G and E {history[-1].loss_g:.4f}" if history else "no metrics"
    return (
        f"# {settings['variant']} on {settings['data']}\n\n"
        f"{info['step']} updates on {info['data']['images']} images; {losses}.\n\n"
        "- `export/`: the averaged encoder and generator (`galirep embed --encoder` takes this directory)\n"
        f"{_best_line(info['best'])}"
        "- `samples/`: pictures over time; `metrics.jsonl`: numbers over time; "
        "`checkpoints/last.pt`: the state to resume from\n\n"
        f"{_warning_list(info['warnings'])}{_evaluation_table(history)}"
        f"| setting | value |\n|---|---|\n{rows}"
    )


def _best_line(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return ""
    criterion = f"the least {best['by']} on held-out images, {best['value']:.4g}"
    return f"- `best/`, `checkpoints/best.pt`: those of step {best['step']}, with {criterion}\n"


def _warning_list(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    return "Warnings that stood at the end:\n\n" + "".join(f"- {text}\n" for text in warnings) + "\n"


def _evaluation_table(history: Sequence[MetricsRow]) -> str:
    """Tabulate up to `_MAX_EVALUATIONS` of the evaluations, evenly spaced, the last one among them."""
    evaluations = [(row.step, row.evaluation) for row in history if row.evaluation is not None]
    if not evaluations:
        return ""
    count = min(_MAX_EVALUATIONS, len(evaluations))
    shown = [evaluations[round(i * (len(evaluations) - 1) / max(1, count - 1))] for i in range(count)]
    rows = [
        f"| {step} | {e.pixel_mse:.4f} | {_number(e.knn_error)} | {_number(e.latent_mse)} | {e.kl:.1f} | "
        f"{e.mu_rank:.1f} |\n"
        for step, e in shown
    ]
    first = evaluations[0][1]
    return (
        f"On {first.images} held-out images, whose mse from the mean image is {first.mean_image_mse:.4f}:\n\n"
        "| step | mse of G(mu(x)) | kNN error | mse of mu(G(z)) | KL, nats | effective rank of mu |\n"
        "|---|---|---|---|---|---|\n"
        f"{''.join(rows)}\n"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
