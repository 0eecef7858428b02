"""A study as data: rows to train or fit, columns to measure, claims to decide, and the image sets and budgets for it.

The paper's tables are studies without sets (what is compared), a scale is a study with
nothing but sets (on what, for how long); a file of your own may hold both.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from galirep.errors import ConfigError, unknown
from galirep.system.reading.records import quoted, read_record

KINDS = ("train", "views", "untrained", "pixels", "mean-image", "pca", "autoencoder", "inverter", "knowledge")
"""What a row is: a GALI run, a self-supervised run of `train-classifier`, or a baseline."""
_TRAINED = ("train", "views", "autoencoder", "inverter")
_LONGEST = 100
"""Characters of a name."""
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: what the table calls it.
        kind: one of `KINDS`.
        settings: of `TrainConfig` (kind train) or `ClassifierConfig` (views), over those of the set; `networks`,
            `width`, `latent_dim` and `norm` of kinds untrained, autoencoder and pca, `components` of pca. A value
            `{NAME}`, or `classifier:{NAME}`, is the run of row NAME, or of M where NAME is `knowledge`.
        of: of an inverter, the row whose generator it inverts.
        paper: set of the paper (`svhn`, `celeba`) -> column -> the paper's figure.
    """

    name: str
    kind: str = "train"
    settings: Mapping[str, Any] = field(default_factory=dict)
    of: str | None = None
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def seeded(self) -> bool:
        """Whether another seed gives another result that costs training."""
        return self.kind in _TRAINED


@dataclass(frozen=True)
class Claim:
    """A statement that a row is better (less in every one of `columns`) than each row of `than`."""

    text: str
    better: str
    than: tuple[str, ...]
    columns: tuple[str, ...]
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageSet:
    """The images that a study is made on, and what each trained row may spend on them.

    Attributes:
        name: of the set, and of its folder among the results.
        data: the key of a data SPEC that the user gives (`--data mnist=mnist.tar`).
        test_split: the split that is measured on; nothing is trained or chosen on it.
        image_size: side of the images, pixels.
        minutes, updates, epochs: the budget of each trained row; exactly one of them. Minutes are of one core (CPU
            time).
        seeds: of every trained row.
        rows: names of the rows that are made on the set; none: all.
        settings: of `TrainConfig`, for every row of kind train.
        row_settings: row -> settings of it on this set; `epochs` there is its own budget.
        labels, test_labels: keys of CSV files of binary attributes, for a set without classes.
        probe_labels, probe_draws: labelled training images a probe, and random choices of them.
        knowledge: settings of the classifier that serves as M; `judge`: of the one that features are measured with.
        paper: the paper's set whose figures stand beside.
        images: how many training images it is expected to have, for a forecast without the data.
    """

    name: str
    data: str
    image_size: int
    test_split: str = "test"
    split: str | None = None
    minutes: float | None = None
    updates: int | None = None
    epochs: float | None = None
    seeds: tuple[int, ...] = (0,)
    rows: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    row_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: str | None = None
    test_labels: str | None = None
    probe_labels: int = 1000
    probe_draws: int = 5
    knowledge: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)
    paper: str | None = None
    images: int | None = None


@dataclass(frozen=True)
class Study:
    """Rows, columns, claims and sets; see the module."""

    name: str
    about: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    claims: tuple[Claim, ...] = ()
    sets: tuple[ImageSet, ...] = ()

    def rows_on(self, image_set: ImageSet) -> tuple[Row, ...]:
        """Return the rows that are made on a set."""
        return tuple(row for row in self.rows if not image_set.rows or row.name in image_set.rows)

    def check(self, columns: Iterable[str]) -> None:
        """Check what the parts say of each other; `columns` are those that can be measured.

        Raises:
            ConfigError: a kind, column, row or set is unknown or named twice; see also `check_sets`.
        """
        names = [row.name for row in self.rows]
        _once("row", names)
        _once("set", [s.name for s in self.sets])
        for name in (*names, *(s.name for s in self.sets)):
            # they name folders and files of the results
            if not name or name[0] in ".-" or not name.isprintable() or "/" in name or len(name) > _LONGEST:
                raise ConfigError(f"{quoted(name)} cannot name a row or set, as it cannot name a file")
        known = list(columns)
        _known("column", self.columns, known)
        for row in self.rows:
            _known("kind of row", [row.kind], KINDS)
            if (row.kind == "inverter") != (row.of is not None):
                raise ConfigError(f"row {row.name!r}: `of` names the row whose generator an inverter inverts")
            _known("row", [row.of] if row.of else [], names)
            for figures in row.paper.values():
                _known("column", figures, known)
        for claim in self.claims:
            _known("row", (claim.better, *claim.than), names)
            _known("column", claim.columns, self.columns)
        for image_set in self.sets:
            _known("row", (*image_set.rows, *image_set.row_settings), names)
        self.check_sets()

    def check_sets(self) -> None:
        """Check the budget and the seeds of each set.

        Raises:
            ConfigError: a budget is not one number above 0, or there are no seeds, or one is named twice.
        """
        for image_set in self.sets:
            budgets = {"minutes": image_set.minutes, "updates": image_set.updates, "epochs": image_set.epochs}
            given = {key: value for key, value in budgets.items() if value is not None}
            if len(given) != 1 or min(given.values()) <= 0:
                written = ", ".join(f"{key} {value:g}" for key, value in given.items()) or "no budget"
                raise ConfigError(
                    f"set {image_set.name!r}: {written}: give exactly one of minutes, updates and epochs, above 0"
                )
            if not image_set.seeds:
                raise ConfigError(f"set {image_set.name!r}: give one seed or more")
            _once(f"seed of set {image_set.name!r}", [str(seed) for seed in image_set.seeds])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Study":
        """Build a study from plain data.

        Raises:
            ConfigError: a key is unknown or missing, or a value has the wrong type.
        """
        parts = dict(values)
        for key, record in (("rows", Row), ("claims", Claim), ("sets", ImageSet)):
            items = parts.get(key, [])
            if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
                raise ConfigError(f"{key} must be tables, each written [[{key}]]")
            parts[key] = tuple(_build(record, item, key.removesuffix("s")) for item in items)
        return _build(cls, parts, "study")

    def on(self, scale: "Study") -> "Study":
        """Return the study on the sets of another, a scale, which may name rows of other studies."""
        rows = [row.name for row in self.rows]
        sets = [
            replace(
                s,
                rows=tuple(n for n in s.rows if n in rows),
                row_settings={n: v for n, v in s.row_settings.items() if n in rows},
            )
            for s in scale.sets
        ]
        kept = [s for s, whole in zip(sets, scale.sets, strict=True) if s.rows or not whole.rows]
        names = {s.name for s in kept}
        # as a study may have claims about the sets of another scale
        claims = tuple(claim for claim in self.claims if not claim.sets or names.intersection(claim.sets))
        return replace(self, sets=tuple(kept), claims=claims)


def settings_on(row: Row, image_set: ImageSet) -> dict[str, Any]:
    """Return the settings of a row on a set: the set's own (of kind train), the row's, and those for this pair."""
    common = image_set.settings if row.kind == "train" else {}
    return {**common, **row.settings, **image_set.row_settings.get(row.name, {})}


def reference(value: object) -> str | None:
    """Return NAME of a setting `{NAME}` or `PREFIX:{NAME}`, the run of a row or of M (`knowledge`); else None."""
    found = re.search(r"(?:^|:)\{([^{}]*)\}$", value) if isinstance(value, str) else None
    return None if found is None else found[1]


def _build(record: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a record from plain data: unknown keys and values of another type are refused, lists become tuples."""
    who = f"{where} {quoted(values['name'])}" if "name" in values else where
    return read_record(record, values, who, ConfigError)


def _known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise ConfigError(unknown(what, name, known))


def _once(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"{what} {repeated[0]!r} occurs twice")
