"""`evaluate`: every metric of a run on one data set, with what is needed to repeat it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from galirep.data.memory import Images
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError
from galirep.evaluation.evaluator import Evaluator
from galirep.evaluation.images import EvaluationData
from galirep.evaluation.measures.scene import Options
from galirep.evaluation.result import EvaluationResult
from galirep.evaluation.subjects import Subject
from galirep.features.protocol import FeatureExtractor
from galirep.probing.probe import DEFAULT_PROTOCOL
from galirep.system.outputs.holding import locks_outputs

Run = str | Path | Subject


def evaluate(  # noqa: PLR0913
    run: Run,
    data: str | ImageSource | Images,
    *,
    split: str | None = None,
    splits: str | Sequence[str] | None = "auto",
    metrics: str | Sequence[str] | None = None,
    extractor: str | FeatureExtractor | None = None,
    inception: str | Path | None = None,
    samples: int | None = None,
    probe_train: str | ImageSource | Images | None = None,
    protocol: str = DEFAULT_PROTOCOL,
    settings: Mapping[str, Any] | None = None,
    layers: Sequence[str] | None = None,
    image_size: int | None = None,
    out: str | Path | None = None,
    save_values: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    num_workers: int | None = None,
    overwrite: bool = False,
    force_unlock: bool = False,
    progress: bool = False,
    data_root: str | None = None,
    download: bool = False,
    trust_encoder: bool = False,
) -> EvaluationResult:
    """Measure a run on a data set; docs/evaluation.md defines every metric.

    `run` is a run directory, an export folder, the spec of an extractor (of which only `probe` can be had) or a
    `Subject`. `data` is a spec, a source or images in memory; `split` None is the split `test`, or `val`, of a set that
    has one. `metrics` is a list or one text with commas, `all` among them; None: those that need nothing else, and
    with `extractor` (a network of features) or `inception` (weights of FID's Inception, for fid and kid) those that
    need them. `samples` are compared with as many images (default: all, at most 10,000). `probe` fits `protocol`, with
    `settings` of its own, on `probe_train`: a split of the data, a spec, a source or images (default: the training
    split). `image_size` is for extractors, which take any.

    With `out` every finished metric is kept in that JSON file, and a metric that it has of the same run, data and
    settings is not measured again, unless `overwrite`. `save_values` is an HDF5 file of the values of each image.
    `trust_encoder` is as for `galirep.load_extractor`.

    >>> evaluate("runs/digits", "sklearn:digits", metrics=["pixel-mse"]).metrics["pixel-mse"]["mean"]
    0.0231

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        CheckpointError: the run has no export.
        ConfigError: a metric is unknown or cannot be had, or `out` has another run, other data or other settings.
        DataError: the data cannot be read, has no labels for `probe`, or too few images.
        PluginError: the extractor or a library cannot be loaded.
    """
    if isinstance(run, list | tuple):
        raise ConfigError("evaluate takes one run: galirep.evaluation.evaluate.evaluate_runs takes a list of them")
    return evaluate_runs(
        [run],
        data,
        split=split,
        splits=splits,
        metrics=metrics,
        extractor=extractor,
        inception=inception,
        samples=samples,
        probe_train=probe_train,
        protocol=protocol,
        settings=settings,
        layers=layers,
        image_size=image_size,
        out=out,
        save_values=save_values,
        seed=seed,
        device=device,
        num_workers=num_workers,
        overwrite=overwrite,
        force_unlock=force_unlock,
        progress=progress,
        data_root=data_root,
        download=download,
        trust_encoder=trust_encoder,
    )[0]


@locks_outputs("out", "save_values", inputs=("runs", "data", "probe_train", "inception", "extractor"))
def evaluate_runs(  # noqa: PLR0913
    runs: Sequence[Run],
    data: str | ImageSource | Images,
    *,
    split: str | None = None,
    splits: str | Sequence[str] | None = "auto",
    metrics: str | Sequence[str] | None = None,
    extractor: str | FeatureExtractor | None = None,
    inception: str | Path | None = None,
    samples: int | None = None,
    probe_train: str | ImageSource | Images | None = None,
    protocol: str = DEFAULT_PROTOCOL,
    settings: Mapping[str, Any] | None = None,
    layers: Sequence[str] | None = None,
    image_size: int | None = None,
    out: str | Path | None = None,
    save_values: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    num_workers: int | None = None,
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    progress: bool = False,
    data_root: str | None = None,
    download: bool = False,
    trust_encoder: bool = False,
) -> list[EvaluationResult]:
    """Measure several runs on one data set, as `evaluate` does one; images and reference features are shared."""
    if isinstance(runs, str | Path | Subject):
        raise ConfigError(f"runs {runs!r} is one run, not a list: write [{runs!r}], or call galirep.evaluate")
    if seed < 0:
        raise ConfigError(f"--seed {seed} must be 0 or more")
    given = {
        "--layers": layers,
        "--set": settings,
        "--protocol": protocol,
        "--probe-train": probe_train,
        "--samples": samples,
        "--inception": inception,
        "--extractor": extractor,
    }
    evaluator = Evaluator(
        EvaluationData(
            data,
            split,
            splits=splits,
            train=probe_train,
            image_size=image_size,
            num_workers=num_workers,
            data_root=data_root,
            download=download,
        ),
        metrics=metrics,
        extractor=extractor,
        inception=inception,
        options=Options(seed, samples, protocol, dict(settings or {})),
        device=device,
        download=download,
        trust_encoder=trust_encoder,
        progress=progress,
    )
    return evaluator.measure(runs, layers=layers, out=out, save_values=save_values, overwrite=overwrite, given=given)
