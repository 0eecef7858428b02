"""Training of a net, with or without labels, into a run directory: `train_classifier`, resumable to the bit."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from galirep.data.sources import ImageSource
from galirep.networks.families import NETWORKS
from galirep.runs.active import ActiveRun
from galirep.runs.checkpoint import check_state, fitting, load_checkpoint, save_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.runs.records import TaskState
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.extractor import export_classifier
from galirep.supervised.learning import Supervised
from galirep.supervised.preparation import Prepared, ReportedSplit, prepare
from galirep.supervised.task import ClassifierTask
from galirep.system.devices import autocast_of, device_of
from galirep.system.outputs.holding import locks_outputs
from galirep.system.settings import require_callback
from galirep.system.signals import stop_signals


@dataclass(frozen=True)
class ClassifierResult:
    """What `train_classifier` leaves: the run directory, the epochs made, and the reports of the best one.

    `report` is of the held-out images, `test` of the test split (None without one); `data_report` says what was read
    and left out of the data (`DataReport.to_dict`).
    """

    run: Path
    epochs: int
    best_epoch: int
    report: Mapping[str, Any]
    test: Mapping[str, Any] | None
    data_report: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as `galirep train-classifier --json` prints it."""
        return {**vars(self), "run": str(self.run)}


@locks_outputs("out", inputs=("config", "data", "test_labels"), parents=True)
def train_classifier(
    config: ClassifierConfig | Mapping[str, Any],
    data: ImageSource | Any = None,
    *,
    out: str | Path,
    test_split: str | None = None,
    test_labels: str | Path | None = None,
    data_root: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> ClassifierResult:
    """Train a net on labels, or without, and leave a run directory at `out`: settings, metrics, checkpoint, export.

    With labels the net of the epoch with the lowest validation loss is exported, else that of the last one. Labels
    given to an objective that takes none are left out with a note in the data's report. `config` and `data` are as in
    `galirep.train`. `test_split` (of the same data, with `test_labels` where the labels are a CSV file)
    is only reported on. With `resume` an interrupted run goes on from its last checkpoint, on a CPU to the very numbers
    of a run never interrupted. SIGINT and SIGTERM save first. `on_epoch` is given each epoch's row of metrics.jsonl.

    `overwrite` and `force_unlock` are as in `galirep.train`.

    Raises:
        ConfigError: a setting that does not fit, or an output that exists.
        DataError: images or labels that cannot be used.
        CheckpointError: `resume` with other settings or data than the run's (each difference is listed).
        InUseError: another process trains at `out`.
        KeyboardInterrupt: the run was interrupted, after saving.
    """
    config = ClassifierConfig.of(config)
    require_callback("on_epoch", on_epoch)
    directory = RunDirectory(out)
    directory.require(resume, overwrite)
    resume = directory.to_resume(resume)

    # prepare: everything that can be wrong is found here, before anything is written
    device = device_of(config.device)
    autocast = autocast_of(device, config.precision)
    test = ReportedSplit(test_split, None if test_labels is None else Path(test_labels))
    prepared = prepare(config, data, test, data_root=data_root, download=download)
    task = ClassifierTask(prepared.config, prepared.pixels, prepared.targets, device, autocast)

    # begin or resume
    if resume:
        run = ActiveRun.resume(directory, _differences(directory, prepared), device)
        state = check_state(load_checkpoint(directory.last, device), TaskState, directory.last)
        with fitting(directory.last):
            task.load_state_dict(state)
            # the checkpoint has all rows that it stands behind
            directory.write_metrics(task.history)
        run.write_status("running")
    else:
        run = ActiveRun.begin(directory, prepared.config.to_dict(), prepared.facts, device)
        save_checkpoint(directory.last, task.state_dict())
        directory.settle()

    with stop_signals() as stop:
        while not task.done:
            # stop
            if stop.is_set():
                save_checkpoint(directory.last, task.state_dict())
                run.write_status("interrupted")
                raise KeyboardInterrupt

            # step
            task.advance()

            # validate, report, save
            if task.at_epoch_end:
                row = task.close_epoch()
                directory.add_metrics(row)
                directory.sync_metrics()
                save_checkpoint(directory.last, task.state_dict())
                if on_epoch is not None:
                    on_epoch(row)

    result = _report(directory.path, prepared, task)
    export_classifier(directory.export, task.net, _header(prepared, task, result))
    run.write_status("complete", epochs=result.epochs, report=result.report, test=result.test)
    return result


def _report(path: Path, prepared: Prepared, task: ClassifierTask) -> ClassifierResult:
    """Load the best net and report on it; make its BatchNorm statistics those of plain images."""
    task.net.load_state_dict(task.best)
    _, report = task.evaluate(task.learning, prepared.pixels, task.held_out)
    test_report = None
    if prepared.test is not None:
        pixels, targets = prepared.test
        learning = task.learning if targets is None else Supervised(targets, task.config, task.device)
        _, test_report = task.evaluate(learning, pixels, torch.arange(len(pixels)))
    if not task.config.supervised:
        task.calibrate()
    return ClassifierResult(
        path, len(task.history), task.best_epoch, report, test_report, prepared.facts["data"]["report"]
    )


def _header(prepared: Prepared, task: ClassifierTask, result: ClassifierResult) -> dict[str, Any]:
    """Return what the export records of the net."""
    config, targets, data = prepared.config, prepared.targets, prepared.facts["data"]
    header = {
        "net": config.net,
        "image_size": config.image_size,
        "channels": config.channels,
        "names": [] if targets is None else list(targets.names),
        "binary": targets is not None and targets.binary,
        "objective": config.objective,
        "labels_used": config.supervised,
        "projector": 0 if config.supervised else config.projector,
        "report": result.report,
        "test": result.test,
        "best_epoch": result.best_epoch,
        "step": task.step,
        "data": {key: data[key] for key in ("spec", "split", "images")} | {"fingerprint": prepared.identity["data"]},
        "config": config.to_dict(),
        "identity": prepared.identity,
    }
    if config.net in NETWORKS:
        header |= {"networks": config.net, "shapes": dataclasses.asdict(task.shapes)}
    return header


def _differences(directory: RunDirectory, prepared: Prepared) -> list[str]:
    """List in what the settings, images or labels differ from those of the run.

    Raises:
        CheckpointError: the run was not made by train-classifier.
    """
    directory.require_command("train-classifier")
    recorded = directory.info().get("identity", {})
    differences = prepared.config.differences(ClassifierConfig.from_dict(directory.settings()))
    for name, value in prepared.identity.items():
        if value != recorded.get(name):
            differences.append(f"{name}: its content is not that of the run")
    return differences
