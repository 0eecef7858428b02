"""What a study needs, checked before anything of it is made: settings, runs of other rows, judges, data, labels."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from galirep.data.catalog import open_data
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError, DataError, unknown
from galirep.evaluation.reproduction.store import (
    Options,
    Work,
    in_order,
    load_result,
    needed_rows,
    read_stored,
    result_path,
)
from galirep.evaluation.reproduction.study import ImageSet, Row, Study, reference, settings_on
from galirep.game.variants import get_variant
from galirep.supervised.config import SUPERVISED, ClassifierConfig
from galirep.training.config import TrainConfig

_OF_THE_JUDGE = ("feature_mse", "frechet", "inpainting_feature_mse")
_OF_LABELS = ("svm_v1", "svm", "logistic", "svm_chosen", "logistic_chosen")
# what the set, its budget and its seeds decide
_OF_THE_SET = (
    *("data", "split", "splits", "data_root", "image_size", "channels", "max_upscale", "on_error", "seed", "steps"),
    "labels",
)
_OF_NETWORKS = ("preset", "networks", "width", "latent_dim", "norm")
_OF_BASELINES: Mapping[str, tuple[str, ...]] = {
    "untrained": _OF_NETWORKS,
    "autoencoder": _OF_NETWORKS,
    "pca": ("components", *_OF_NETWORKS),
}
_WITH_RUN = ("train", "views")


def require_possible(study: Study) -> None:
    """Check what can be seen in a study alone: every setting, the rows and judges that it needs.

    Raises:
        ConfigError: a setting is unknown, contradicts the set, or names a row that has no run; a judge, M or file of
            labels is missing.
    """
    for image_set in study.sets:
        where = f"set {image_set.name!r}"
        for name, settings in (("knowledge", image_set.knowledge), ("judge", image_set.judge)):
            if settings:
                _require_own(settings, image_set, f"{where}: {name}", ("data", "image_size", "channels"))
                _build(ClassifierConfig, settings, f"{where}: {name}")
        if bool(image_set.labels) != bool(image_set.test_labels):
            raise ConfigError(f"{where}: labels and test_labels are two files of one kind: give both or none")
        column = next((column for column in study.columns if column in _OF_THE_JUDGE), None)
        if column and not image_set.judge:
            raise ConfigError(f"{where} gives no judge, which column {column!r} needs: add e.g. judge = {{ seed = 1 }}")
        for row in study.rows_on(image_set):
            _require_row(study, image_set, row)
        # raises where rows need each other in a circle
        in_order(study.rows_on(image_set), image_set)


def _require_row(study: Study, image_set: ImageSet, row: Row) -> None:
    where, settings = f"set {image_set.name!r}, row {row.name!r}", settings_on(row, image_set)
    # only the epochs of a run of galirep train may be its own, where the set counts in epochs too
    own_epochs = row.kind == "train" and image_set.epochs is not None
    _require_own(settings, image_set, where, _OF_THE_SET if own_epochs else (*_OF_THE_SET, "epochs"))
    if row.kind == "knowledge" and not image_set.knowledge:
        raise ConfigError(f"{where} is M itself, and the set gives no knowledge: add e.g. knowledge = {{ seed = 0 }}")
    if row.kind == "train":
        variant = get_variant(_build(TrainConfig, settings, where).variant)
        if variant.needs_features and not settings.get("adapter"):
            raise ConfigError(
                f"{where}: variant {variant.name!r} needs M(.): set adapter, e.g. classifier:{{knowledge}}"
            )
    elif row.kind == "views":
        _build(ClassifierConfig, settings, where)
    else:
        known = _OF_BASELINES.get(row.kind, ())
        for name in settings:
            if name not in known:
                raise ConfigError(f"{where}: {unknown(f'setting of kind {row.kind}', name, known)}")
        _build(TrainConfig, {k: v for k, v in settings.items() if k != "components"}, where)
    for key, value in settings.items():
        if reference(value) == "knowledge" and not image_set.knowledge:
            raise ConfigError(
                f"{where}: {key} {value!r}, and the set gives no knowledge: add knowledge = {{ seed = 0 }}"
            )
    others = {other.name: other for other in study.rows_on(image_set)}
    for name in needed_rows(row, image_set):
        if name not in others:
            raise ConfigError(f"{where}: {unknown('row', name, [*others, 'knowledge'])}")
        if others[name].kind not in _WITH_RUN or (row.of == name and others[name].kind != "train"):
            raise ConfigError(f"{where}: the row {name!r} is of kind {others[name].kind}, which has no run to stand on")


def _require_own(settings: Mapping[str, Any], image_set: ImageSet, where: str, keys: Sequence[str]) -> None:
    """Check that settings leave the settings `keys` to the set."""
    for key in keys:
        if settings.get(key) is not None and settings[key] != getattr(image_set, key, None):
            raise ConfigError(f"{where}: {key} {settings[key]!r}: the set decides that for all its rows: leave it out")


def _build(config: type[TrainConfig] | type[ClassifierConfig], settings: Mapping[str, Any], where: str) -> Any:
    try:
        return config.from_dict(settings)
    except ConfigError as err:
        raise ConfigError(f"{where}: {err}") from None


def require_runs(study: Study, missing: Sequence[Work], options: Options) -> None:
    """Check that the runs that missing results stand on are there, or are made as well.

    Raises:
        ConfigError: one is neither.
    """
    rows = {row.name: row for row in study.rows}
    for work in missing:
        for name in needed_rows(work.row, work.image_set):
            needs = f"{work.image_set.name} {work.name} needs the run of row {name!r}"
            if name not in rows:
                raise ConfigError(f"{needs}, which --rows leaves out: name it too")
            other = Work(work.image_set, rows[name], work.seed)
            run = options.workdir / other.image_set.name / other.name / "run"
            if not run.exists() and load_result(study, other, options) is not None:
                raise ConfigError(
                    f"{needs}, whose result is stored, and {run} is not there: give the --out that has it, or delete "
                    f"{result_path(other, options)} to make it again"
                )


def require_known(whole: Study, options: Options) -> None:
    """Check that every data that is given is one that the study names.

    Raises:
        ConfigError: one is not.
    """
    for key in options.data:
        if key not in _keys(whole.sets):
            raise ConfigError(unknown("data", key, _keys(whole.sets)))


def require_data(whole: Study, missing: Sequence[Work], options: Options, *, all_given: bool) -> None:
    """Open the data of missing results: it is there, is that of the stored ones, and has the labels that are needed.

    With `all_given` what is not given is an error, else it is not looked at.

    Raises:
        ConfigError: data is not given, or stored results of `whole` are of other images.
        DataError: it cannot be opened, or lacks labels.
    """
    sets = list(dict.fromkeys(work.image_set.name for work in missing))
    for name in sets:
        image_set = next(work.image_set for work in missing if work.image_set.name == name)
        absent = [key for key in _keys([image_set]) if key not in options.data]
        if absent and all_given:
            raise ConfigError(f"the study {whole.name!r} needs the data {absent[0]!r}: give --data {absent[0]}=SPEC")
        if not absent:
            _require_images(whole, image_set, options)


def _require_images(study: Study, image_set: ImageSet, options: Options) -> None:
    train, test = (open_data(options.data[image_set.data], s) for s in (image_set.split, image_set.test_split))
    for key in (image_set.labels, image_set.test_labels):
        if key is not None and not Path(options.data[key]).is_file():
            raise DataError(f"--data {key}={options.data[key]}: there is no such file of attributes")
    probed = [column for column in study.columns if column in _OF_LABELS]
    if probed and image_set.probe_labels > len(train):
        raise ConfigError(
            f"set {image_set.name!r}: probe_labels {image_set.probe_labels} is more than the {len(train)} training "
            f"images of {train.spec}"
        )
    learned = [s for s in (image_set.knowledge, image_set.judge) if s and s.get("objective", SUPERVISED) == SUPERVISED]
    if (probed or learned) and image_set.labels is None:
        for source in (train, test) if probed else (train,):
            if source.labels is None or not (source.labels >= 0).any():
                raise DataError(
                    f"the set {image_set.name!r} has no labels: {source.spec} has no classes, and the set no "
                    "files of attributes (labels, test_labels)"
                )
    _require_same_images(study, image_set, {"train": train, "test": test}, options)


def _require_same_images(
    study: Study, image_set: ImageSet, sources: Mapping[str, ImageSource], options: Options
) -> None:
    for path in sorted((options.results / image_set.name).glob("*.json")):
        stored = read_stored(path)
        if stored is None or stored["row"] not in [row.name for row in study.rows]:
            continue
        for side, source in sources.items():
            was = _images_of(stored, side)
            if was is not None and was != source.fingerprint:
                raise ConfigError(
                    f"{path} was made on other {side} images (fingerprint {was[:12]}) than --data "
                    f"{image_set.data}={source.spec} has ({source.fingerprint[:12]}): give the data it was made on, "
                    "another --results folder, or delete the file"
                )


def require_one_data(results: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Check that the stored results of each set are of the same images.

    Raises:
        ConfigError: two are not.
    """
    first: dict[tuple[str, str], tuple[Path, str]] = {}
    for path, result in results:
        for side in ("train", "test"):
            images = _images_of(result, side)
            if images is None:
                continue
            other, known = first.setdefault((result["set"], side), (path, images))
            if images != known:
                raise ConfigError(
                    f"{path} was made on other {side} images (fingerprint {images[:12]}) than {other} ({known[:12]}): "
                    "results of one set do not stand side by side then: delete one of them, or give each a --results "
                    "folder of its own"
                )


def _images_of(result: Mapping[str, Any], side: str) -> str | None:
    facts = result["provenance"].get(side)
    fingerprint = facts.get("fingerprint") if isinstance(facts, Mapping) else None
    return fingerprint if isinstance(fingerprint, str) else None


def _keys(sets: Iterable[ImageSet]) -> list[str]:
    return sorted({key for s in sets for key in (s.data, s.labels, s.test_labels) if key})
