"""The run directory: where each file of a training run lies, and how its logs grow."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torchvision.utils import make_grid, save_image

from galirep import __version__
from galirep.config import TrainConfig, read_config
from galirep.errors import CheckpointError, ConfigError
from galirep.files import replacing, write_json, write_text


class RunDirectory:
    """The files of one run: config.yaml, run.json, train.log, metrics.jsonl, tb/, checkpoints/, samples/, export/, best/, summary.md."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.info_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.log_file = self.path / "train.log"
        self.last = self.path / "checkpoints" / "last.pt"
        self.samples = self.path / "samples"
        self.summary_file = self.path / "summary.md"
        self.export = self.path / "export"
        self.best = self.last.with_name("best.pt")
        self.best_export = self.path / "best"

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.info_file.is_file() and self.config_file.is_file()

    def require(self, resume: bool, overwrite: bool) -> None:
        """Check that a run may begin, or go on, here; nothing is written.

        Raises:
            CheckpointError: `resume`, and there is no run.
            ConfigError: something is there already; `overwrite` replaces an earlier run, and nothing else.
        """
        if resume:
            if not self.exists:
                raise CheckpointError(f"{self.path} holds no run to resume: leave --resume out to begin one")
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            if not self.exists:
                raise ConfigError(f"{self.path} exists and is no run of galirep: choose another --out")
            if not overwrite:
                raise ConfigError(f"{self.path} holds a run already: pass --resume to go on with it or --overwrite to replace it")

    def create(self, config: TrainConfig, info: Mapping[str, Any]) -> None:
        """Make the directory anew with its config.yaml and run.json; what `require` let pass is replaced."""
        if self.path.exists():
            shutil.rmtree(self.path)
        for folder in (self.last.parent, self.samples, self.export):
            folder.mkdir(parents=True)
        self.write_config(config)
        self.write_info(info)

    def write_config(self, config: TrainConfig) -> None:
        """Write config.yaml."""
        write_text(self.config_file, yaml.safe_dump(config.to_dict(), sort_keys=False))

    def config(self) -> TrainConfig:
        """The settings of the run.

        Raises:
            CheckpointError: there is no run here.
        """
        if not self.exists:
            raise CheckpointError(f"{self.path} holds no run of galirep (config.yaml and run.json are missing)")
        return TrainConfig.from_dict(read_config(self.config_file))

    def info(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            CheckpointError: it is no JSON object.
        """
        try:
            info: dict[str, Any] = dict(json.loads(self.info_file.read_text(encoding="utf-8")))
        except ValueError:
            raise CheckpointError(f"{self.info_file} is no JSON object, so {self.path} is no run that can go on") from None
        return info

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace run.json."""
        write_json(self.info_file, info)

    def keep_last(self, count: int, step: int) -> None:
        """Keep last.pt under the name of its step too, and only the newest `count` of these."""
        if count:
            _link(self.last, self.last.with_name(f"step-{step:08d}.pt"))
        for old in sorted(self.last.parent.glob("step-*.pt"))[: -count or None]:
            old.unlink()

    def keep_best(self) -> None:
        """Keep last.pt as best.pt too, and have a folder for its export."""
        self.best_export.mkdir(exist_ok=True)
        _link(self.last, self.best)

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that a kill cut short is left out."""
        rows = []
        if self.metrics_file.exists():
            for line in self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    rows.append(json.loads(line))
        return rows

    def rewind(self, step: int) -> None:
        """Forget the metrics after `step`, which a resumed run writes anew."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        write_text(self.metrics_file, "".join(json.dumps(row) + "\n" for row in kept))

    @contextmanager
    def logger(self) -> Iterator[logging.Logger]:
        """A logger that appends to train.log and, for warnings, speaks on stderr."""
        logger = logging.Logger("galirep.run", logging.INFO)
        file, screen = logging.FileHandler(self.log_file, encoding="utf-8"), logging.StreamHandler()
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        screen.setFormatter(logging.Formatter("galirep: %(message)s"))
        screen.setLevel(logging.WARNING)
        logger.addHandler(file)
        logger.addHandler(screen)
        try:
            yield logger
        finally:
            file.close()


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what has it."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)


def new_info(**what: Any) -> dict[str, Any]:
    """What run.json says of a run that begins now."""
    return {
        "galirep": __version__,
        "torch": torch.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "argv": sys.argv,
        "started": now(),
        "status": "running",
        **what,
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def save_grid(path: Path, images: Tensor, columns: int) -> None:
    """Write images (N, C, S, S) in [-1, 1] as one PNG, `columns` in a row; small ones are enlarged by whole pixels so that a person can see
    them.
    """
    times = max(1, 48 // images.shape[-1])
    big = images.float().cpu().repeat_interleave(times, 2).repeat_interleave(times, 3)
    save_image(make_grid(big, nrow=columns, padding=2, normalize=True, value_range=(-1, 1), pad_value=1.0), path, format="png")


def beside(images: Tensor, others: Tensor) -> Tensor:
    """Two batches (N, C, S, S) as one of 2N in pairs: each image, then its partner."""
    return torch.stack((images, others), 1).flatten(0, 1)


class Board:
    """Curves for TensorBoard in `folder`, where it is installed; otherwise nothing."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(folder), purge_step=step)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Add every number of a line of metrics.jsonl."""
        if self._writer is not None:
            for name, value in metrics.items():
                for key, number in value.items() if isinstance(value, dict) else [("", value)]:
                    if isinstance(number, int | float) and name != "step":
                        self._writer.add_scalar(f"{name}/{key}" if key else name, number, metrics["step"])
            self._writer.flush()

    def close(self) -> None:
        """End the file of curves and the thread that writes it."""
        if self._writer is not None:
            self._writer.close()


def model_card(about: Mapping[str, Any]) -> str:
    """README.md of an export: what the encoder is, what it was trained on and how to use it."""
    shapes, data = about["shapes"], about["data"]
    knowledge = (
        f"\nIts training used the features of {about['adapter']['name']}, so it carries that network's supervision along.\n"
        if about["adapter"]
        else ""
    )
    return (
        f"# {about['name']}\n\nA GALI encoder and generator (Dandi et al. 2021, arXiv 2006.08089) made by galirep {__version__}.\n\n"
        f"- variant `{about['variant']['name']}`, {about['step']} updates, "
        f"batch {about['config']['batch_size']}, seed {about['config']['seed']}\n"
        f"- trained on `{data['spec']}`{' (' + data['split'] + ')' if data['split'] else ''}: {data['images']} images, without labels\n"
        f"- images {shapes['size']} x {shapes['size']}, {shapes['channels']} channels, in [-1, 1]; "
        f"latent dimension {shapes['latent']}\n{knowledge}\n"
        "```python\nimport galirep\n\nencoder = galirep.load_encoder('RUN')  # this run's directory\n"
        "features = encoder.transform(images)  # uint8 (N, H, W) or (N, H, W, 3)\n```\n"
    )
