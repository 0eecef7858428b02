"""A training run in progress: evaluating, reporting, showing, saving and rolling back, as methods of one object."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from galirep.errors import CheckpointError, GalirepError
from galirep.game.objectives import chance
from galirep.networks.card import model_card
from galirep.networks.layers import defaults_of
from galirep.networks.saved import export_networks
from galirep.runs.active import ActiveRun
from galirep.runs.board import Board
from galirep.runs.checkpoint import check_state, fitting, load_checkpoint, save_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.runs.initial_weights import describe_initial
from galirep.runs.log import run_log
from galirep.runs.metrics import MetricsRow
from galirep.runs.records import SessionState
from galirep.runs.summary import summary
from galirep.system.files import atomic_write, write_text
from galirep.system.pooling_record import comparable
from galirep.training.config import TrainConfig
from galirep.training.preparation import Prepared
from galirep.training.watch import Watch, status_line
from galirep.visuals.grid import interleave, save_grid

_log = logging.getLogger("galirep.runs")  # train.log while the run is open
_COLUMNS = 8  # of a grid of pictures


class TrainingRun:
    """A session and its run directory: get one with `begin` or `resume`, then work in `with run.open()`."""

    def __init__(self, active: ActiveRun, prepared: Prepared) -> None:
        self.active, self.directory, self.info = active, active.directory, active.info
        self.plan, self.session, self.held_out = prepared.plan, prepared.session, prepared.held_out
        self.config = prepared.plan.config
        self.chance = chance(self.plan.variant.n, self.config.objective)
        self.watch = self._new_watch()

    @classmethod
    def begin(cls, directory: RunDirectory, prepared: Prepared) -> "TrainingRun":
        """Create the run directory."""
        active = ActiveRun.begin(
            directory, prepared.plan.config.to_dict(), prepared.facts, prepared.session.batches.device
        )
        return cls(active, prepared)

    @classmethod
    def resume(cls, directory: RunDirectory, prepared: Prepared) -> "TrainingRun":
        """Go on from the last checkpoint of a run.

        Raises:
            CheckpointError: the settings, data, adapter or variant are not those of the run, or its checkpoint cannot
                be read or is of another run; each difference is listed.
        """
        config, session = prepared.plan.config, prepared.session
        before = TrainConfig.from_dict(directory.settings())
        differences = [*config.differences(before), *_fact_differences(prepared.facts, directory.trained_info())]
        active = ActiveRun.resume(directory, differences, session.batches.device)
        state = check_state(load_checkpoint(directory.last), SessionState, directory.last)
        if differences := config.differences(TrainConfig.from_dict(state["config"])):
            raise CheckpointError(f"{directory.last} is a checkpoint of another run: {'; '.join(differences)}")
        with fitting(directory.last):
            session.load_state_dict(state)
        directory.rewind(session.step)
        if config.steps != before.steps:
            directory.write_settings(config.to_dict())
        return cls(active, prepared)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Make sure that there is a checkpoint to go back to, and open train.log and TensorBoard's curves.

        With its first checkpoint, a run that replaces another takes its place.
        """
        if self.directory.last.exists():
            self.write_status("running")
        else:
            self.save()
            self.directory.settle()
        board = Board(self.directory.path / "tb", self.session.step)
        with run_log(self.directory.log_file), contextlib.closing(board) as self._board:
            _log.info("at step %d of %d", self.session.step, self.plan.steps)
            if self.session.initial is not None:
                _log.log(*describe_initial(self.session.initial))
            for image_id, reason in self.info["data"]["errors"]:
                _log.warning("left out %s: %s", image_id, reason)
            # what a kill just after the last checkpoint may have left out
            if self.session.step == self.plan.steps or self.session.is_best:
                self.save()
            yield

    def due(self, every: int) -> bool:
        """Return True if what happens every so many updates (0: never), and at the end, happens now."""
        return every > 0 and (self.session.step % every == 0 or self.session.step == self.plan.steps)

    def measure(self, *, evaluate: bool) -> MetricsRow:
        """Return the metrics since the last row (waits for the device), with an evaluation if asked."""
        row = self.session.report()
        if self.held_out is not None and evaluate:
            self.session.calibrate()
            e, g = (self.session.average.nets[name] for name in "EG")
            evaluation = self.held_out.evaluate(e, g, self.session.game.discriminator.image_trunk)
            row = dataclasses.replace(row, evaluation=evaluation)
        return row

    def is_sound(self, row: MetricsRow) -> bool:
        """Return True if nothing is NaN or infinite.

        In fp16 an infinite gradient now and then is how the loss scale finds its level; that step is left out.
        """
        return row.is_finite(gradients=self.config.precision != "fp16")

    def record(self, row: MetricsRow) -> MetricsRow:
        """Watch for collapse, note the best evaluation, and write the row to every log; return it with its warnings."""
        for warning in self.watch.update(row):
            _log.warning("step %d: %s", row.step, warning)
        if self.watch.active:
            row = dataclasses.replace(row, warnings=list(self.watch.active.values()))
        if row.evaluation is not None:
            self.session.record_evaluation(getattr(row.evaluation, self.config.best_by))
        self.directory.add_metrics(row.to_dict())
        self._board.add(row.to_dict())
        _log.info("%s", status_line(row, self.chance))
        return row

    def save_pictures(self) -> None:
        """Write grids of samples and of images beside their reconstructions, by the averaged networks."""
        self.session.calibrate()
        samples, images, rebuilt = self.session.pictures()
        folder, step = self.directory.samples, self.session.step
        folder.mkdir(exist_ok=True)
        for kind, shown in (("prior", samples), ("reconstruction", interleave(images, rebuilt))):
            with atomic_write(folder / f"{kind}-{step:08d}.png", synced=False) as temporary:
                save_grid(temporary, shown, columns=_COLUMNS)

    def save(self) -> None:
        """Write the checkpoint and the export, and the best ones where this step is the best so far."""
        session, directory = self.session, self.directory
        session.calibrate()
        state = {"config": self.config.to_dict(), "variant": self.plan.variant.to_dict(), **session.state_dict()}
        # what a checkpoint stands behind is on the disk before it
        directory.sync_metrics()
        save_checkpoint(directory.last, state)
        directory.keep_last(self.config.keep, session.step)
        self._export(directory.export)
        if session.is_best:
            directory.keep_best()
            self._export(directory.best_export)
        self.write_status("running")

    def roll_back(self) -> None:
        """Go back to the last checkpoint at half the learning rate.

        The best evaluation so far stays the best: it made a checkpoint itself, so the last one is not older.

        Raises:
            GalirepError: the run has gone back `max_rollbacks` times already.
        """
        session, directory = self.session, self.directory
        fault = f"losses, gradients or weights became infinite or NaN by step {session.step}"
        rollbacks, scale = session.rollbacks + 1, session.lr_scale / 2
        if rollbacks > self.config.max_rollbacks:
            self.write_status("failed", reason=fault)
            kept = ""
            if session.best is not None:
                kept = f"; {directory.best_export} has the networks of step {session.best['step']}, the best before"
            returns = f"{self.config.max_rollbacks} returns to {directory.last} at half the learning rate each"
            raise GalirepError(f"{fault}, after {returns}: begin anew with a lower --lr{kept}")
        session.load_state_dict(load_checkpoint(directory.last))
        session.rollbacks, session.lr_scale = rollbacks, scale
        directory.rewind(session.step)
        self.watch = self._new_watch()
        _log.warning("%s: back to step %d with %g times the learning rate", fault, session.step, scale)

    def interrupt(self) -> None:
        """Record that the run was interrupted; it is saved already."""
        self.write_status("interrupted")
        _log.warning(
            "interrupted at step %d of %d and saved; --resume (of reproduce: the same command) goes on from here",
            self.session.step,
            self.plan.steps,
        )

    def finish(self) -> None:
        """Record that the run is complete, and write its summary."""
        self.write_status("complete")
        text = summary(self.config.to_dict(), self.directory.info(), self.rows())
        write_text(self.directory.summary_file, text)

    def rows(self) -> list[MetricsRow]:
        """Return the rows of metrics.jsonl so far."""
        return [MetricsRow.from_dict(row) for row in self.directory.metrics()]

    def write_status(self, status: str, **facts: Any) -> None:
        """Write run.json: status, position, best evaluation and the warnings that stand."""
        session, warnings = self.session, list(self.watch.active.values())
        state = {"step": session.step, "steps": self.plan.steps, "best": session.best, "warnings": warnings}
        self.active.write_status(status, **state, **facts)

    def _new_watch(self) -> Watch:
        """Return a watch that has seen the metrics so far."""
        return Watch(self.chance, self.plan.shapes.latent, self.plan.steps, self.rows())

    def _export(self, folder: Path) -> None:
        recorded = ("spec", "split", "fingerprint", "images", "held_out")
        nets = self.session.exported()
        header = {
            "name": f"{self.plan.variant.name}-{self.config.networks}",
            "networks": self.config.networks,
            "shapes": dataclasses.asdict(self.plan.shapes),
            "step": self.session.step,
            "variant": self.plan.variant.to_dict(),
            "data": {key: self.info["data"][key] for key in recorded},
            "adapter": self.info["adapter"],
            "body": self.info.get("body"),
            "init_from": self.info.get("init_from"),
            "config": self.config.to_dict(),
            "default_layers": defaults_of(nets["encoder"], self.plan.shapes, nets.get("discriminator")),
        }
        card = model_card(header, with_trunk="discriminator" in nets)
        export_networks(folder, nets, header, card, self.session.average.statistics, self.session.body_files)


def _fact_differences(facts: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """List in what the data, adapter or variant differ from those that run.json records."""
    differences = []
    if stored["data"]["fingerprint"] != facts["data"]["fingerprint"]:
        differences.append("data: the images are not those of the run (their ids, sizes or contents differ)")
    for name in ("adapter", "variant", "body"):
        if _comparable(stored.get(name)) != _comparable(facts.get(name)):
            differences.append(f"{name}: {facts[name]}, not {stored.get(name)}")
    return differences


def _comparable(fact: Any) -> Any:
    """Return a fact without what earlier versions did not record of an adapter, or what only describes a variant."""
    if not isinstance(fact, Mapping):
        return fact
    fact = {name: value for name, value in fact.items() if name not in ("about", "origin")}
    return {**fact, "preprocessing": comparable(fact["preprocessing"])} if "preprocessing" in fact else fact
