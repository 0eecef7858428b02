"""Training of a supervised net into a run directory: one function, `train_classifier`, resumable to the bit on a CPU."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from galirep.data.catalog import open_data
from galirep.data.memory import load_images
from galirep.data.sources import ImageSource
from galirep.errors import CheckpointError, ConfigError, DataError
from galirep.runs.checkpoint import load_checkpoint, save_checkpoint
from galirep.runs.directory import RunDirectory, new_info, now
from galirep.supervised.extractor import export_classifier
from galirep.supervised.nets import fitting_size, require_size
from galirep.supervised.targets import Targets, attribute_targets, class_targets
from galirep.supervised.task import ClassifierConfig, ClassifierTask
from galirep.system.devices import autocast_of, device_of
from galirep.system.files import sha256_file, write_text
from galirep.system.settings import read_config
from galirep.system.signals import stop_signals


@dataclass(frozen=True)
class ClassifierResult:
    """What `train_classifier` leaves: the run directory, the epochs made, the best one, its report on held-out images and test split."""

    run: Path
    epochs: int
    best_epoch: int
    report: Mapping[str, Any]
    test: Mapping[str, Any] | None


def train_classifier(
    config: ClassifierConfig,
    source: ImageSource | None = None,
    *,
    out: str | Path,
    test_split: str | None = None,
    test_labels: str | Path | None = None,
    data_root: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> ClassifierResult:
    """Train a supervised net and leave a run directory at `out`: config.yaml, run.json, metrics.jsonl, checkpoints/last.pt, export/.

    The net of the epoch with the lowest validation loss is exported. `source` takes the place of `config.data` where it is given.
    `test_split` (of the same data, with `test_labels` where the labels are a CSV file) is only reported on. With `resume` an interrupted
    run goes on from its last checkpoint, on a CPU to the very numbers of a run never interrupted. SIGINT and SIGTERM save first.
    `on_epoch` is given each epoch's line of metrics.jsonl.

    Raises:
        ConfigError: a setting that does not fit, or an output that exists.
        DataError: images or labels that cannot be used.
        CheckpointError: `resume` with other settings or data than the run's (each difference is listed).
        KeyboardInterrupt: the run was interrupted, after saving.
    """
    run = RunDirectory(out)
    run.require(resume, overwrite)
    device = device_of(config.device)
    autocast = autocast_of(device, config.precision)
    source = source if source is not None else open_data(config.data, config.split, root=data_root, download=download)
    targets = class_targets(source) if config.labels is None else attribute_targets(Path(config.labels), source.ids)
    config = _complete(config, source, targets)
    pixels = _pixels(source, config)
    config = dataclasses.replace(config, channels=pixels.shape[1])
    test = _test_set(config, source, targets, test_split, test_labels, data_root, download)
    identity = {"data": source.fingerprint, "labels": sha256_file(Path(config.labels)) if config.labels else None}
    if resume:
        _require_same(run, config, identity)
    task = ClassifierTask(config, pixels, targets, device, autocast)
    if resume:
        task.load_state_dict(load_checkpoint(run.last, device))
    else:
        _create(
            run,
            config,
            new_info(
                kind="classifier",
                identity=identity,
                data={"spec": source.spec, "split": source.split, "images": len(source)},
            ),
        )

    with stop_signals() as stop:
        while not task.done:
            if stop.is_set():
                save_checkpoint(run.last, task.state_dict())
                run.write_info({**run.info(), "status": "interrupted", "updated": now()})
                raise KeyboardInterrupt
            task.advance()
            if task.step % task.steps_per_epoch == 0:
                row = task.close_epoch()
                save_checkpoint(run.last, task.state_dict())
                write_text(run.metrics_file, "".join(json.dumps(r) + "\n" for r in task.history))
                if on_epoch is not None:
                    on_epoch(row)

    task.net.load_state_dict(task.best)
    report = targets.report(task.logits(pixels, task.held_out), task.held_out)
    tested = (
        None
        if test is None
        else test[1].report(task.logits(test[0], torch.arange(len(test[0]))), torch.arange(len(test[0])))
    )
    about = {
        "net": config.net,
        "image_size": config.image_size,
        "channels": config.channels,
        "names": list(targets.names),
    }
    facts = {
        "binary": targets.binary,
        "report": report,
        "test": tested,
        "best_epoch": task.best_epoch,
        "config": dataclasses.asdict(config),
    }
    export_classifier(run.export, task.net, {**about, **facts, "identity": identity})
    run.write_info(
        {
            **run.info(),
            "status": "complete",
            "epochs": len(task.history),
            "report": report,
            "test": tested,
            "updated": now(),
        }
    )
    return ClassifierResult(run.path, len(task.history), task.best_epoch, report, tested)


def _complete(config: ClassifierConfig, source: ImageSource, targets: Targets) -> ClassifierConfig:
    """The settings with `auto` and None replaced by what the data says, but for `channels`, which decoding tells."""
    net = config.net if config.net != "auto" else ("attributes" if targets.binary else "digits")
    size = config.image_size or fitting_size(net, min(source.read(0).shape[:2]))
    require_size(net, size)  # told before any image is decoded
    return dataclasses.replace(config, data=source.spec, split=source.split, net=net, image_size=size)


def _pixels(source: ImageSource, config: ClassifierConfig) -> Tensor:
    assert config.image_size
    return load_images(source, config.image_size, config.channels, num_workers=config.num_workers).tensor()


def _test_set(
    config: ClassifierConfig,
    source: ImageSource,
    targets: Targets,
    split: str | None,
    labels: str | Path | None,
    root: str | Path | None,
    download: bool,
) -> tuple[Tensor, Targets] | None:
    if split is None:
        if labels is not None:
            raise ConfigError(f"labels {str(labels)!r} of a test split: name the split too, --test-split")
        return None
    if targets.binary and labels is None:
        raise ConfigError(f"test split {split!r}: name the CSV file of its attributes with --test-labels")
    test = open_data(source.spec, split, root=root, download=download)
    if targets.binary:
        return _pixels(test, config), attribute_targets(Path(str(labels)), test.ids, targets.names)
    found = class_targets(test)
    if found.names != targets.names:
        raise DataError(f"the split {split!r} has the classes {', '.join(found.names)}, not {', '.join(targets.names)}")
    usable = np.flatnonzero(found.values.numpy() >= 0)
    return _pixels(test.subset(usable), config), dataclasses.replace(found, values=found.values[usable])


def _create(run: RunDirectory, config: ClassifierConfig, info: Mapping[str, Any]) -> None:
    if run.path.exists():
        shutil.rmtree(run.path)  # what `require` let pass
    for folder in (run.last.parent, run.export):
        folder.mkdir(parents=True)
    write_text(run.config_file, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
    run.write_info(info)


def _require_same(run: RunDirectory, config: ClassifierConfig, identity: Mapping[str, Any]) -> None:
    info = run.info()
    if info.get("kind") != "classifier":
        raise CheckpointError(f"{run.path} is no run of train-classifier")
    then, wanted = read_config(run.config_file), dataclasses.asdict(config)
    differences = [
        f"{name}: {wanted[name]!r}, not {then.get(name)!r}"
        for name in wanted
        if name not in config.FREE and wanted[name] != then.get(name)
    ]
    differences += [
        f"{name}: its content is not that of the run" for name in identity if identity[name] != info["identity"][name]
    ]
    if differences:
        raise CheckpointError(f"{run.path} is a run of another configuration: {'; '.join(differences)}")
