"""The training loop: `train` reads from top to bottom as prepare, begin or resume, step, report, show, save, stop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galirep.data.memory import Images
from galirep.data.sources import ImageSource
from galirep.data.tensors import ImageFunction
from galirep.features.protocol import FeatureExtractor
from galirep.runs.directory import RunDirectory
from galirep.system.outputs.holding import locks_outputs
from galirep.system.progress import progress_bar
from galirep.system.settings import require_callback
from galirep.system.signals import stop_signals
from galirep.training.config import TrainConfig
from galirep.training.preparation import prepare
from galirep.training.run import TrainingRun
from galirep.training.watch import status_line


@dataclass(frozen=True)
class TrainResult:
    """What `train` leaves: the run directory, the updates made, the last row of its metrics.

    `data_report` says what was read and left out of the data (as `DataReport.to_dict`); None for `Images` made by hand.
    """

    run: Path
    steps: int
    metrics: Mapping[str, Any]
    data_report: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as `galirep train --json` prints it."""
        losses = {name: self.metrics.get(name) for name in ("loss_d", "loss_g")}
        return {"run": str(self.run), "steps": self.steps, **losses, "data_report": self.data_report}


@locks_outputs("out", inputs=("config", "data", "adapter", "body"), parents=True)
def train(
    config: TrainConfig | Mapping[str, Any],
    data: Images | ImageSource | Any = None,
    *,
    out: str | Path,
    adapter: ImageFunction | None = None,
    body: FeatureExtractor | None = None,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    trust_encoder: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    progress: bool = True,
    on_row: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainResult:
    """Train E, G and D and leave a run directory at `out`.

    With `overwrite` an earlier run is replaced when the new one has its first checkpoint. With `force_unlock` the lock
    of a process on another host, which cannot be looked at, is taken over (see `galirep.system.outputs.locks`).

    `config` may be a mapping, as `TrainConfig.from_dict` takes it. `data` replaces `config.data` where it is given: a
    SPEC, a source, or images in any form that `encoder.transform` takes. `adapter` (images in [-1, 1] -> features
    (B, d)) replaces `config.adapter`, and `body` (an extractor with name and dim; the run's encoder is loaded with it
    in hand) `config.body`. With `trust_encoder` the files of a run that `config` names as extractor or body may name
    code in turn.

    With `resume` an interrupted run goes on from its last checkpoint, on a CPU to the very numbers of a run never
    interrupted. A run whose settings are `open_ended` may be given more `steps` then, and ends like one that had them
    from the start. SIGINT and SIGTERM save first. Where losses or gradients become NaN the run goes back to its last
    checkpoint at half the learning rate, at most `max_rollbacks` times. Signs of collapse are logged as warnings (see
    `galirep.training.watch`), and what is best on held-out images is kept apart. `progress` shows a bar on a terminal
    and in a notebook, and a line every half minute elsewhere (on stderr). `on_row` is given each row of metrics.jsonl.

    Raises:
        GalirepError: a setting, the data or the adapter does not fit (nothing is written then), or training breaks down
            for good.
        CheckpointError: `resume` with other settings or data than the run's (each difference is listed), or a
            checkpoint that cannot be read.
        InUseError: another process trains at `out`.
        KeyboardInterrupt: the run was interrupted, after saving.
    """
    config = TrainConfig.of(config)
    require_callback("on_row", on_row)
    directory = RunDirectory(out)
    directory.require(resume, overwrite)
    resume = directory.to_resume(resume)
    if resume:
        directory.require_command("train")

    # prepare: everything that can be wrong is found here, before anything is written
    resumed = directory if resume else None
    prepared = prepare(
        config, data, adapter, download=download, body=body, resumed=resumed, trust_encoder=trust_encoder
    )

    # begin or resume
    run = TrainingRun.resume(directory, prepared) if resume else TrainingRun.begin(directory, prepared)
    config, plan, session = run.config, run.plan, run.session
    bar = progress_bar(plan.steps, None, "updates", initial=session.step, shown=progress)
    with run.open(), stop_signals() as stop, bar:
        while session.step < plan.steps and not stop.is_set():
            # step
            session.advance()
            bar.update(session.step - bar.n)
            evaluating = run.due(plan.evaluate_every)
            saving = run.due(config.checkpoint_every) or stop.is_set()

            # report
            if run.due(config.log_every) or evaluating or saving:
                row = run.measure(evaluate=evaluating)
                if not run.is_sound(row):
                    run.roll_back()
                    continue
                row = run.record(row)
                bar.set_postfix_str(status_line(row, run.chance))
                if on_row is not None:
                    on_row(row.to_dict())

            # show
            if run.due(config.sample_every or 0):
                run.save_pictures()

            # save
            if saving or session.is_best or stop.is_set():
                run.save()

        # stop
        if session.step < plan.steps:
            run.interrupt()
            raise KeyboardInterrupt
        run.finish()
    rows = directory.metrics()
    return TrainResult(directory.path, session.step, rows[-1] if rows else {}, prepared.facts["data"]["report"])
