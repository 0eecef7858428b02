"""The training loop: `train` reads from top to bottom as prepare, step, report, show, save, stop."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from galirep.data.memory import Images
from galirep.data.sources import ImageSource
from galirep.errors import CheckpointError, GalirepError
from galirep.game.objectives import chance
from galirep.game.variant import Variant
from galirep.networks.card import model_card
from galirep.networks.saved import export_networks
from galirep.runs.board import Board
from galirep.runs.checkpoint import load_checkpoint, save_checkpoint
from galirep.runs.directory import RunDirectory, now
from galirep.runs.summary import summary
from galirep.system.files import write_text
from galirep.system.signals import stop_signals
from galirep.training.config import TrainConfig
from galirep.training.preparation import prepare
from galirep.training.session import Session
from galirep.training.watch import Watch
from galirep.visuals.grid import interleave, save_grid


@dataclass(frozen=True)
class TrainResult:
    """What `train` leaves: the run directory, the updates made, and the last line of its metrics."""

    run: Path
    steps: int
    metrics: Mapping[str, Any]


def train(
    config: TrainConfig,
    data: Images | ImageSource | None = None,
    *,
    out: str | Path,
    adapter: Callable[[Tensor], Tensor] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
) -> TrainResult:
    """Train E, G and D and leave a run directory at `out`.

    `data` takes the place of `config.data` where it is given, `adapter` (images in [-1, 1] -> features (B, d)) that of `config.adapter`.
    With `resume` a run that was interrupted goes on from its last checkpoint, on a CPU to the very numbers of a run never interrupted. A
    run whose settings are `open_ended` may be given more `steps` then, and ends like one that had them from the start.
    SIGINT and SIGTERM save first. Where losses or gradients become NaN the run goes back to its last checkpoint at half the learning rate,
    at most `max_rollbacks` times. Collapse is told in words (see `galirep.training.watch`), and what is best on held-out images is kept apart.

    Raises:
        GalirepError: a setting, the data or the adapter does not fit (nothing is written then), or training breaks down for good.
        CheckpointError: `resume` with other settings or data than the run's (each difference is listed), or a checkpoint that cannot be
            read.
        KeyboardInterrupt: the run was interrupted, after saving.
    """
    run = RunDirectory(out)
    run.require(resume, overwrite)
    then = run.info() if resume else {}
    prepared = prepare(config, data, adapter, download, Variant.from_dict(then["variant"]) if resume else None)
    config, session, held_out, info = prepared.config, prepared.session, prepared.held_out, prepared.info
    if resume:
        before = TrainConfig.from_dict(run.config())
        _require_same(run, config.differences(before), info, then)
        if run.last.exists():
            state = load_checkpoint(run.last)
            if differences := config.differences(TrainConfig.from_dict(state["config"])):
                raise CheckpointError(f"{run.last} is a checkpoint of another run: {'; '.join(differences)}")
            session.load_state_dict(state)
        run.rewind(session.step)
        if config.steps != before.steps:
            run.write_config(config.to_dict())
        info = then
    else:
        run.create(config.to_dict(), info)
    watch = _watch(run, session)
    metrics = (run.metrics() or [{}])[-1]

    def tell(status: str, **more: str) -> None:
        state = {"status": status, "step": session.step, "steps": session.steps, "best": session.best}
        run.write_info({**info, **state, "warnings": list(watch.standing.values()), **more, "updated": now()})

    def save() -> None:
        session.calibrate()
        save_checkpoint(
            run.last, {"config": config.to_dict(), "variant": session.variant.to_dict(), **session.state_dict()}
        )
        run.keep_last(config.keep, session.step)
        _export(run.export, config, session, info)
        if session.is_best:
            run.keep_best()
            _export(run.best_export, config, session, info)
        tell("running")

    tell("running")
    with (
        run.logger() as log,
        contextlib.closing(Board(run.path / "tb", session.step)) as board,
        stop_signals() as stopped,
        tqdm(total=session.steps, initial=session.step, unit="step", disable=None, dynamic_ncols=True) as bar,
    ):
        log.info("%s at step %d of %d", "resumed" if resume else "begun", session.step, session.steps)
        for image_id, reason in info["data"]["errors"]:
            log.warning("left out %s: %s", image_id, reason)
        if not run.last.exists() or session.step == session.steps or session.is_best:
            save()  # so that there is something to go back to; later, what a kill just after the last checkpoint may have left out
        while session.step < session.steps and not stopped.is_set():
            session.advance()
            bar.update(session.step - bar.n)
            evaluating, showing = (_due(every, session) for every in (config.evaluate_every, config.sample_every))
            saving = _due(config.checkpoint_every, session) or stopped.is_set()

            if _due(config.log_every, session) or evaluating or saving:
                metrics = session.report()
                if held_out is not None and evaluating:
                    session.calibrate()
                    metrics["evaluation"] = held_out.evaluate(session.average.nets["E"], session.average.nets["G"])
                if not _finite(metrics, config.precision):
                    watch = _roll_back(run, session, config.max_rollbacks, tell, log.warning)
                    continue
                for warning in watch.see(metrics):
                    log.warning("step %d: %s", session.step, warning)
                if watch.standing:
                    metrics["warnings"] = list(watch.standing.values())
                if evaluating:
                    session.take_if_best(metrics["evaluation"][config.best_by])
                run.add_metrics(metrics)
                board.add(metrics)
                log.info(status := status_line(metrics, watch.chance))
                bar.set_postfix_str(status)
            if showing:
                session.calibrate()
                prior, real, rebuilt = session.pictures()
                save_grid(run.samples / f"prior-{session.step:08d}.png", prior, columns=8)
                save_grid(run.samples / f"reconstruction-{session.step:08d}.png", interleave(real, rebuilt), columns=8)
            if saving or session.is_best or stopped.is_set():
                save()

        if session.step < session.steps:
            tell("interrupted")
            log.warning(
                "interrupted at step %d of %d and saved; --resume goes on from here", session.step, session.steps
            )
            raise KeyboardInterrupt
        tell("complete")
        write_text(run.summary_file, summary(config.to_dict(), run.info(), run.metrics()))
    return TrainResult(run.path, session.step, metrics)


def _due(every: int | None, session: Session) -> bool:
    """Whether what happens at every so many updates, and at the end, happens now."""
    return bool(every) and (session.step % (every or 1) == 0 or session.step == session.steps)


def _require_same(run: RunDirectory, settings: list[str], info: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose data, adapter or variant were others, or whose settings differ as told."""
    differences = list(settings)
    if then["data"]["fingerprint"] != info["data"]["fingerprint"]:
        differences.append("data: the images are not those of the run (their ids, sizes or contents differ)")
    if then["adapter"] != info["adapter"]:
        differences.append(f"adapter: {info['adapter']}, not {then['adapter']}")
    if then["variant"] != info["variant"]:
        differences.append(f"variant: {info['variant']}, not {then['variant']}")
    if differences:
        raise CheckpointError(f"{run.path} is a run of another configuration: {'; '.join(differences)}")


def _finite(metrics: Mapping[str, Any], precision: str) -> bool:
    """Whether training is sound. In fp16 an infinite gradient now and then is how the loss scale finds its level; that step is left out."""
    norms = [*metrics["weight_norms"].values(), *(metrics["gradient_norms"].values() if precision != "fp16" else ())]
    return all(
        math.isfinite(v)
        for v in (metrics["loss_d"], metrics["loss_g"], *norms, *metrics.get("evaluation", {}).values())
    )


def _roll_back(
    run: RunDirectory, session: Session, most: int, tell: Callable[..., None], warn: Callable[..., None]
) -> Watch:
    """Go back to the last checkpoint at half the learning rate; gives the watch of that step.

    The best evaluation so far stays the best: it made a checkpoint itself, so the last one is not older.
    """
    where = f"losses, gradients or weights became infinite or NaN by step {session.step}"
    rollbacks, scale = session.rollbacks + 1, session.lr_scale / 2
    if rollbacks > most:
        tell("failed", reason=where)
        kept = (
            f"; {run.best_export} has the networks of step {session.best['step']}, the best before"
            if session.best
            else ""
        )
        raise GalirepError(
            f"{where}, after {most} returns to {run.last} at half the learning rate each: begin anew with a lower --lr{kept}"
        )
    session.load_state_dict(load_checkpoint(run.last))
    session.rollbacks, session.lr_scale = rollbacks, scale
    run.rewind(session.step)
    warn("%s: back to step %d with %g times the learning rate", where, session.step, scale)
    return _watch(run, session)


def _watch(run: RunDirectory, session: Session) -> Watch:
    """A watch that has seen the run's metrics so far."""
    return Watch(
        chance(session.variant.n, session.config.objective), session.shapes.latent, session.steps, run.metrics()
    )


def _export(folder: Path, config: TrainConfig, session: Session, info: Mapping[str, Any]) -> None:
    about = {
        "name": f"{session.variant.name}-{config.networks}",
        "networks": config.networks,
        "shapes": dataclasses.asdict(session.shapes),
        "step": session.step,
        "variant": session.variant.to_dict(),
        "data": {k: info["data"][k] for k in ("spec", "split", "fingerprint", "images", "held_out")},
        "adapter": info["adapter"],
        "config": config.to_dict(),
    }
    nets = {"encoder": session.average.nets["E"], "generator": session.average.nets["G"]}
    export_networks(folder, nets, about, model_card(about))


def status_line(metrics: Mapping[str, Any], chance: float) -> str:
    """One line for people: the losses beside chance, D's probability of each true class, sigma of E, throughput, held-out error."""
    own = " ".join(f"{row[i]:.2f}" for i, row in enumerate(metrics["probs"]))
    wait = 100 * metrics["seconds"]["data_wait"] / max(metrics["seconds"]["interval"], 1e-9)
    held = f", held-out mse {metrics['evaluation']['pixel_mse']:.4f}" if "evaluation" in metrics else ""
    rate, memory = metrics["images_per_second"], metrics["peak_memory_mib"]
    return (
        f"step {metrics['step']} D {metrics['loss_d']:.3f} GE {metrics['loss_g']:.3f} (chance {chance:.3f}) p(true) {own} "
        f"sigma {metrics['sigma']:.2f} {rate:.0f} img/s, data wait {wait:.0f}%, {memory:.0f} MiB{held}"
    )
