"""`verify` of whatever galirep wrote with checksums: embedding files, indices, runs and exports."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from galirep.data.sources import ImageSource
from galirep.embeddings.integrity.findings import Findings
from galirep.embeddings.interchange.folder import check_export, is_npy_parquet
from galirep.embeddings.verify import SAMPLE, VerifyResult
from galirep.embeddings.verify import verify as verify_embeddings
from galirep.errors import ConfigError, GalirepError
from galirep.features.protocol import FeatureExtractor
from galirep.networks.export_file import check_exports, export_folder
from galirep.runs.checkpoint import check_state, load_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.runs.records import SessionState, TaskState
from galirep.search.index_file import is_index
from galirep.search.index_verify import check_index
from galirep.supervised.config import ClassifierConfig
from galirep.system.settings import Settings
from galirep.training.config import TrainConfig


def verify(  # noqa: PLR0913
    path: str | Path,
    *,
    encoder: str | FeatureExtractor | None = None,
    data: str | ImageSource | None = None,
    split: str | None = None,
    sample: int = SAMPLE,
    tolerance: float | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    trust_encoder: bool = False,
    file_locking: bool | None = None,
) -> VerifyResult:
    """Check an embedding file, an index, a run or an exported folder (of embeddings, of a run); return what is wrong.

    Of an embedding file the options and what is checked are those of `galirep.embeddings.verify.verify`. Of the others
    all files are compared with their checksums and with each other, which takes no options; of a run see `check_run`.

    Raises:
        DataError: `path` is none of them, or is damaged so that it cannot be read.
        CheckpointError: likewise, of the export of a run.
        ConfigError: `encoder` or `data` with something else than an embedding file.
    """
    path, findings = Path(path), Findings()
    checked: tuple[str, ...] = ()
    kind = _kind_of(path)
    if kind == "embeddings":
        return verify_embeddings(
            path,
            encoder=encoder,
            data=data,
            split=split,
            sample=sample,
            tolerance=tolerance,
            seed=seed,
            num_workers=num_workers,
            device=device,
            data_root=data_root,
            download=download,
            trust_encoder=trust_encoder,
            file_locking=file_locking,
        )
    if encoder is not None or data is not None:
        raise ConfigError(f"{path} is no embedding file: leave --encoder and --data out")
    if kind == "index":
        info = check_index(path, findings)
        rows, dim = info.n, info.dim
    elif kind == "export of embeddings":
        rows, dim = check_export(path, findings)
    elif kind == "run":
        rows, dim = 0, 0
        checked = check_run(RunDirectory(path), findings)
    else:
        rows, dim = 0, 0
        check_exports(export_folder(path), findings.problems, findings.warnings)
    return VerifyResult(path, rows, rows, dim, findings.problems, findings.warnings, kind=kind, checked=checked)


def check_run(run: RunDirectory, findings: Findings) -> tuple[str, ...]:
    """Read the files of a run of `train` or `train-classifier` by their own readers; return the names of those read.

    Networks and checkpoints have hashes; run.json, config.yaml and metrics.jsonl have none, so that of these only what
    cannot be is noticed.
    """
    checked: list[str] = []
    classifier = False

    def attempt(name: str, check: Callable[[], object]) -> None:
        checked.append(name)
        try:
            check()
        except GalirepError as err:
            findings.problems.append(str(err))

    attempt("config.yaml", run.settings)
    attempt("run.json", run.info)
    with contextlib.suppress(GalirepError):
        classifier = run.info().get("kind") == "classifier"
    attempt("config.yaml: the settings", lambda: _settings_of(classifier).from_dict(run.settings()))
    if run.metrics_file.exists():
        attempt("metrics.jsonl", run.metrics)
    state = TaskState if classifier else SessionState
    for path in sorted({run.last, *run.last.parent.glob("*.pt")}):
        attempt(f"checkpoints/{path.name}", partial(_check_checkpoint, path, state))
    for folder in (run.export, run.best_export):
        for path in sorted(folder.rglob("*.safetensors")):
            name = path.relative_to(run.path).as_posix()
            attempt(name, partial(check_exports, path.parent, findings.problems, findings.warnings, path.stem))
    return tuple(checked)


def _settings_of(classifier: bool) -> type[Settings]:
    return ClassifierConfig if classifier else TrainConfig


def _check_checkpoint(path: Path, state: type) -> None:
    check_state(load_checkpoint(path), state, path)


def _kind_of(path: Path) -> str:
    if path.is_dir():
        if is_npy_parquet(path):
            return "export of embeddings"
        if (path / "run.json").exists() or (path / "config.yaml").exists():
            return "run"
        if any(export_folder(path).glob("*.safetensors")):
            return "export"
    return "index" if is_index(path) else "embeddings"
