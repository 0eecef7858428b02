"""A GALI variant: n classes of m-tuples, and optional penalties; all else about the game is derived from it."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from galirep.errors import SpecError
from galirep.game.expression import LEAVES, OPERATORS, Expr, parse, projection, shortened
from galirep.system.reading.documents import read_toml
from galirep.system.reading.records import quoted

VIEW_LOSSES = ("vicreg", "info-nce")
DISTANCES = ("l1", "l2", *VIEW_LOSSES)
_KEYS = ("name", "classes", "where", "penalties", "about")


@dataclass(frozen=True)
class Penalty:
    """A term added to the loss of G and E: `weight` times a distance of two expressions.

    `distance` is `l1` (mean absolute difference), `l2` (mean squared difference) or a loss between views, `vicreg` or
    `info-nce`: of the hidden layers of E behind two E or mu of images, through a projector.
    """

    distance: str
    left: str
    right: str
    weight: float = 1.0


@dataclass(frozen=True)
class Variant:
    """The n classes of a game, each a tuple of m expressions in the paper's notation.

    `where` names sub-expressions. `origin`: `paper` (Dandi et al. 2021 and its baselines) or `galirep`, if built in.

    >>> Variant("mine", (("x", "E(x)"), ("G(z)", "z"), ("G(E(x))", "E(x)"))).n
    3

    Raises:
        SpecError: an expression cannot be parsed; there are fewer than 2 classes; they differ in kind or repeat; or E,
            G, x or z does not occur.
    """

    name: str
    classes: tuple[tuple[str, ...], ...]
    where: tuple[tuple[str, str], ...] = ()
    penalties: tuple[Penalty, ...] = ()
    about: str = ""
    # says nothing of the game
    origin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        try:
            self._check_names()
            self._check_classes()
            self._check_penalties()
        except SpecError as err:
            raise SpecError(f"variant {self.name!r}: {err}") from None

    def _check_names(self) -> None:
        for name, _ in self.where:
            if name in LEAVES or name in OPERATORS or not name.isidentifier():
                raise SpecError(f"in where: {name!r} cannot name an expression: it is reserved or not an identifier")

    def _check_classes(self) -> None:
        if self.n < 2:
            raise SpecError(f"a game needs at least 2 classes, got {self.n}")
        for row in self.tuples:
            written = f"({', '.join(map(str, row))})"
            kinds = tuple(e.kind for e in row)
            if bare := next((e for e in row if e.kind in ("mask", "view")), None):
                raise SpecError(f"{written} contains a bare {bare.kind}: write {bare}(x) for what {bare} makes of x")
            if kinds != self.kinds:
                raise SpecError(f"{written} is {' x '.join(kinds)}, but the first class is {' x '.join(self.kinds)}")
        if len(set(self.tuples)) < self.n:
            raise SpecError("two classes are the same tuple, so D cannot distinguish them")
        # mu(x) is E's too
        missing = {"G", "x", "z"} - self._heads | ({"E"} if not self._heads & {"E", "mu"} else set())
        if missing:
            raise SpecError(
                f"no class contains {' or '.join(sorted(missing))}: E, G, x and z must each occur in at least one"
            )

    def _check_penalties(self) -> None:
        for p, left, right in self.penalized:
            if p.distance not in DISTANCES:
                name = shortened(p.distance)
                raise SpecError(f"unknown distance {name!r} of a penalty; known: {', '.join(DISTANCES)}")
            number = isinstance(p.weight, int | float) and not isinstance(p.weight, bool)
            if not (number and 0 <= p.weight <= sys.float_info.max):
                weight = quoted(p.weight)
                raise SpecError(f"the weight of a penalty must be a number of 0 or more, not {weight}")
            written = f"the penalty on {shortened(p.left)} and {shortened(p.right)}"
            if left.kind != right.kind or left.kind in ("mask", "view"):
                raise SpecError(f"{written} needs two images, latents or features, not {left.kind} and {right.kind}")
            if not (left.learned or right.learned):
                raise SpecError(f"{written} needs an expression that depends on E or G")
            if left == right:
                raise SpecError(f"{written} compares a value with itself")

    @cached_property
    def _names(self) -> dict[str, Expr]:
        names: dict[str, Expr] = {}
        for key, text in self.where:
            if re.search(rf"\b{key}\b", text):
                raise SpecError(f"in where: {key} = {shortened(text)!r} refers to itself")
            names[key] = parse(text, names)
        return names

    def _parse(self, text: str) -> Expr:
        return parse(text, self._names)

    @cached_property
    def tuples(self) -> tuple[tuple[Expr, ...], ...]:
        """The classes as n tuples of m expressions."""
        return tuple(tuple(self._parse(t) for t in row) for row in self.classes)

    @property
    def n(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the m slots of every tuple."""
        return tuple(e.kind for e in self.tuples[0])

    @cached_property
    def variables(self) -> tuple[Expr, ...]:
        """The distinct expressions of all tuples, in order of first use."""
        return tuple(dict.fromkeys(e for row in self.tuples for e in row))

    @cached_property
    def penalized(self) -> tuple[tuple[Penalty, Expr, Expr], ...]:
        """Each penalty with the two expressions it compares; those of a loss between views are projections."""
        rows = ((p, self._parse(p.left), self._parse(p.right)) for p in self.penalties)
        return tuple(
            (p, projection(left), projection(right)) if p.distance in VIEW_LOSSES else (p, left, right)
            for p, left, right in rows
        )

    @cached_property
    def expressions(self) -> tuple[Expr, ...]:
        """The expressions of a full update: the variables and both sides of each penalty."""
        return tuple(dict.fromkeys([*self.variables, *(e for _, left, right in self.penalized for e in (left, right))]))

    @property
    def masks(self) -> tuple[str, ...]:
        """The names of the masks that occur, sorted."""
        return tuple(sorted(h for h in self._heads if LEAVES.get(h) == "mask"))

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the view operators that occur, sorted."""
        return tuple(sorted(h for h in self._heads if LEAVES.get(h) == "view"))

    @cached_property
    def statistics(self) -> tuple[str, ...]:
        """What E is fed, `whole` images, `masked` ones or both, and so needs BatchNorm statistics of; default first."""
        inputs = [part.args[0] for e in self.expressions for part in e.walk() if part.args and part.kind == "latent"]
        fed = {"masked" if image.erased else "whole" for image in inputs}
        return tuple(kind for kind in ("whole", "masked") if kind in fed)

    @property
    def needs_features(self) -> bool:
        """Whether M occurs, so that training needs a feature extractor."""
        return "M" in self._heads

    @property
    def needs_projector(self) -> bool:
        """Whether a penalty compares hidden layers of E, so that training needs a projector."""
        return "Project" in self._heads

    @cached_property
    def _heads(self) -> frozenset[str]:
        return frozenset().union(*(e.heads for e in self.expressions))

    def to_dict(self) -> dict[str, Any]:
        """Return the variant as plain data (strings, lists, numbers), which `from_dict` reads."""
        return {
            "name": self.name,
            "classes": [list(row) for row in self.classes],
            "where": dict(self.where),
            "penalties": [[p.distance, p.left, p.right, p.weight] for p in self.penalties],
            "about": self.about,
            "origin": self.origin,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], default_name: str = "unnamed") -> "Variant":
        """Build a variant from the plain data of `to_dict` or of a TOML file.

        Raises:
            SpecError: a key is unknown, missing or of the wrong type, or the variant cannot be trained.
        """
        name = shortened(_text(data.get("name", default_name)))
        if unknown := sorted(set(data) - {*_KEYS, "origin"}):
            raise SpecError(f"variant {name!r}: unknown key {shortened(unknown[0])!r}; known: {', '.join(_KEYS)}")
        classes: Any = data.get("classes")
        where, penalties = data.get("where", {}), data.get("penalties", [])
        fault = ""
        if not (isinstance(classes, list) and all(_is_class(row) for row in classes)):
            fault = "classes must be a list of lists of expressions, e.g. [['x', 'E(x)'], ['G(z)', 'z']]"
        elif not (isinstance(where, dict) and all(isinstance(text, str) for text in where.values())):
            fault = "where must be a table of names and expressions, e.g. y = 'G(E(x))'"
        elif not (isinstance(penalties, list) and all(_is_penalty(row) for row in penalties)):
            fault = "penalties must be a list of [distance, left, right, weight], e.g. ['l2', 'x', 'G(E(x))', 1.0]"
        if fault:
            raise SpecError(f"variant {name!r}: {fault}")
        return cls(
            name,
            tuple(map(tuple, classes)),
            tuple(where.items()),
            tuple(Penalty(*row) for row in penalties),
            _text(data.get("about", "")),
            _text(data.get("origin", "")),
        )

    @classmethod
    def from_toml(cls, path: str | Path) -> "Variant":
        """Read a variant from a TOML file with the keys of `to_dict`; `name` defaults to the file's name.

        Raises:
            SpecError: the file does not exist, is not TOML or is not a variant; the message names the file.
        """
        path = Path(path)
        values = read_toml(path, SpecError, f"the variant file {path}")
        try:
            return cls.from_dict(values, default_name=path.stem)
        except SpecError as err:
            raise SpecError(f"{path}: {err}") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else quoted(value)


def _is_class(row: Any) -> bool:
    return isinstance(row, list) and bool(row) and all(isinstance(text, str) for text in row)


def _is_penalty(row: Any) -> bool:
    return isinstance(row, list) and len(row) in (3, 4) and all(isinstance(text, str) for text in row[:3])
