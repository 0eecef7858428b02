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

from galirep.batches import Batches
from galirep.checkpoint import load_checkpoint, save_checkpoint
from galirep.config import TrainConfig
from galirep.data import Images, ImageSource, load_images, open_data
from galirep.devices import autocast_of, device_of
from galirep.encoder import export_networks
from galirep.errors import CheckpointError, ConfigError, DataError, GalirepError
from galirep.knowledge import Knowledge, load_knowledge
from galirep.losses import chance
from galirep.networks import Shapes, family
from galirep.runlog import Board, RunDirectory, beside, model_card, new_info, now, save_grid
from galirep.session import Session
from galirep.signals import stop_signals
from galirep.variant import Variant
from galirep.variants import get_variant

MAX_ROLLBACKS = 3


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
    With `resume` a run that was interrupted goes on from its last checkpoint, on a CPU to the very numbers of a run never interrupted.
    SIGINT and SIGTERM save first. Where losses or gradients become NaN the run goes back to its last checkpoint at half the learning rate,
    at most `MAX_ROLLBACKS` times.

    Raises:
        GalirepError: a setting, the data or the adapter does not fit (nothing is written then), or training breaks down for good.
        CheckpointError: `resume` with other settings or data than the run's (each difference is listed), or a checkpoint that cannot be
            read.
        KeyboardInterrupt: the run was interrupted, after saving.
    """
    run = RunDirectory(out)
    run.require(resume, overwrite)
    config, session, info = _prepare(config, data, adapter, download, Variant.from_dict(run.info()["variant"]) if resume else None)
    if resume:
        _require_same(run, config, info)
        if run.last.exists():
            state = load_checkpoint(run.last)
            if differences := config.differences(TrainConfig.from_dict(state["config"])):
                raise CheckpointError(f"{run.last} is a checkpoint of another run: {'; '.join(differences)}")
            session.load_state_dict(state)
        run.rewind(session.step)
        info = {**run.info(), "status": "running"}
        run.write_info(info)
    else:
        run.create(config, info)
    metrics = (run.metrics() or [{}])[-1]

    def save() -> None:
        session.calibrate()
        content = {"config": config.to_dict(), "variant": session.variant.to_dict(), **session.state_dict()}
        save_checkpoint(run.last, content)
        run.keep_last(config.keep, session.step)
        _export(run, config, session, info)
        run.write_info({**info, "step": session.step, "steps": session.steps, "updated": now()})

    with (
        run.logger() as log,
        contextlib.closing(Board(run.path / "tb", session.step)) as board,
        stop_signals() as stopped,
        tqdm(total=session.steps, initial=session.step, unit="step", disable=None, dynamic_ncols=True) as bar,
    ):
        log.info("%s at step %d of %d", "resumed" if resume else "begun", session.step, session.steps)
        for image_id, reason in info["data"]["errors"]:
            log.warning("left out %s: %s", image_id, reason)
        if not run.last.exists() or session.step == session.steps:
            save()  # so that there is something to go back to; at the end, what a kill just after the last checkpoint may have left out
        while session.step < session.steps and not stopped.is_set():
            session.advance()
            bar.update(session.step - bar.n)
            due = {
                every: session.step % every == 0 or session.step == session.steps for every in (config.log_every, config.checkpoint_every)
            }

            if due[config.log_every] or due[config.checkpoint_every] or stopped.is_set():
                metrics = session.report()
                if not _finite(metrics, config.precision):
                    _roll_back(run, session, info, log.warning)
                    continue
                run.add_metrics(metrics)
                board.add(metrics)
                log.info(status := status_line(metrics, session.variant.n))
                bar.set_postfix_str(status)
            if config.sample_every and (session.step % config.sample_every == 0 or session.step == session.steps):
                session.calibrate()
                prior, real, rebuilt = session.pictures()
                save_grid(run.samples / f"prior-{session.step:08d}.png", prior, columns=8)
                save_grid(run.samples / f"reconstruction-{session.step:08d}.png", beside(real, rebuilt), columns=8)
            if due[config.checkpoint_every] or stopped.is_set():
                save()

        if session.step < session.steps:
            run.write_info({**info, "status": "interrupted", "step": session.step, "steps": session.steps, "updated": now()})
            log.warning("interrupted at step %d of %d and saved; --resume goes on from here", session.step, session.steps)
            raise KeyboardInterrupt
        run.write_info({**info, "status": "complete", "step": session.step, "steps": session.steps, "updated": now()})
        run.write_summary(info, metrics)
    return TrainResult(run.path, session.step, metrics)


def _prepare(
    config: TrainConfig,
    data: Images | ImageSource | None,
    adapter: Callable[[Tensor], Tensor] | None,
    download: bool,
    stored: Variant | None,
) -> tuple[TrainConfig, Session, dict[str, Any]]:
    """Everything that can be wrong is found here, before anything is written: the complete settings, a session at step 0, and run.json's
    content.
    """
    gone = stored is not None and config.variant.endswith(".toml") and not Path(config.variant).exists()  # a run keeps its variant's text
    variant, device = stored if stored is not None and gone else get_variant(config.variant), device_of(config.device)
    autocast_of(device, config.precision)
    if variant.needs_features and config.adapter is None and adapter is None:
        raise ConfigError(
            f"the variant {variant.name!r} uses M(.): name a feature extractor, e.g. --adapter timm:resnet18@weights.pth or classifier:DIR"
        )
    if not variant.needs_features and (config.adapter is not None or adapter is not None):
        raise ConfigError(f"the variant {variant.name!r} has no M(.), so it takes no adapter: leave --adapter out, or take gali-pt")
    images = data if isinstance(data, Images) else _load(config, data, download)
    config = _complete(config, images)
    batches = Batches(images.tensor(), config.batch_size, config.seed, device)
    shapes = Shapes(images.pixels.shape[-1], images.pixels.shape[1], config.latent_dim or 0, config.width, norm=config.norm)
    knowledge = Knowledge()
    if variant.needs_features:
        knowledge = load_knowledge(config.adapter, adapter, images, batches, download=download)
        shapes = dataclasses.replace(shapes, features=knowledge.dim)
    session = Session(config, variant, shapes, batches, knowledge.extract, knowledge.features)
    about = {"spec": images.spec, "split": images.split, "fingerprint": images.fingerprint, "images": len(images), "errors": images.errors}
    return config, session, new_info(data=about, variant=variant.to_dict(), adapter=knowledge.about)


def _load(config: TrainConfig, data: ImageSource | None, download: bool) -> Images:
    source = data if data is not None else open_data(config.data, config.split, root=config.data_root, download=download)
    size = config.image_size or native_side(source)
    family(config.networks, size)  # a size that no network takes is told before any image is decoded
    return load_images(
        source,
        size,
        config.channels,
        num_workers=config.num_workers,
        on_error="skip" if config.on_error == "skip" else "fail",
        max_upscale=config.max_upscale,
    )


def native_side(source: ImageSource) -> int:
    """The side of the centre square of the first readable image, pixels.

    Raises:
        DataError: none of the first ten images can be read.
    """
    for index in range(min(10, len(source))):
        with contextlib.suppress(DataError):
            return int(min(source.read(index).shape[:2]))
    raise DataError(f"none of the first images of {source.spec} can be read, so their size is unknown: pass --image-size")


def _complete(config: TrainConfig, images: Images) -> TrainConfig:
    """The settings with everything filled in that the data decides."""
    networks, found = family(config.networks, images.pixels.shape[-1])
    per_step = config.batch_size * config.d_steps
    epochs = config.epochs if config.epochs is not None else 100.0
    return dataclasses.replace(
        config,
        data=images.spec,
        split=images.split,
        image_size=images.pixels.shape[-1],
        channels=images.pixels.shape[1],
        networks=networks,
        latent_dim=config.latent_dim or found.latent,
        steps=config.steps or max(1, math.ceil(epochs * len(images) / per_step)),
        epochs=None,
    )


def _require_same(run: RunDirectory, config: TrainConfig, info: Mapping[str, Any]) -> None:
    differences = config.differences(run.config())
    then = run.info()
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
    return all(math.isfinite(v) for v in (metrics["loss_d"], metrics["loss_g"], *norms))


def _roll_back(run: RunDirectory, session: Session, info: Mapping[str, Any], warn: Callable[..., None]) -> None:
    where = f"the losses or gradients became infinite or NaN by step {session.step}"
    rollbacks, scale = session.rollbacks + 1, session.lr_scale / 2
    if rollbacks > MAX_ROLLBACKS:
        run.write_info({**info, "status": "failed", "step": session.step, "steps": session.steps, "reason": where, "updated": now()})
        raise GalirepError(
            f"{where}, after {MAX_ROLLBACKS} returns to {run.last} at half the learning rate each: begin anew with a lower --lr"
        )
    session.load_state_dict(load_checkpoint(run.last))
    session.rollbacks, session.lr_scale = rollbacks, scale
    run.rewind(session.step)
    warn("%s: back to step %d with %g times the learning rate", where, session.step, scale)


def _export(run: RunDirectory, config: TrainConfig, session: Session, info: Mapping[str, Any]) -> None:
    about = {
        "name": f"{session.variant.name}-{config.networks}",
        "networks": config.networks,
        "shapes": dataclasses.asdict(session.shapes),
        "step": session.step,
        "variant": session.variant.to_dict(),
        "data": {k: info["data"][k] for k in ("spec", "split", "fingerprint", "images")},
        "adapter": info["adapter"],
        "config": config.to_dict(),
    }
    nets = {"encoder": session.average.nets["E"], "generator": session.average.nets["G"]}
    export_networks(run.export, nets, about, model_card(about))


def status_line(metrics: Mapping[str, Any], n: int) -> str:
    """One line for people: the losses beside chance, D's probability of each true class, sigma of E, throughput."""
    own = " ".join(f"{row[i]:.2f}" for i, row in enumerate(metrics["probs"]))
    wait = 100 * metrics["seconds"]["data_wait"] / max(metrics["seconds"]["interval"], 1e-9)
    rate, memory = metrics["images_per_second"], metrics["peak_memory_mib"]
    return (
        f"step {metrics['step']} D {metrics['loss_d']:.3f} GE {metrics['loss_g']:.3f} (chance {chance(n):.3f}) p(true) {own} "
        f"sigma {metrics['sigma']:.2f} {rate:.0f} img/s, data wait {wait:.0f}%, {memory:.0f} MiB"
    )
