"""What the header of an exported network holds, as types: the file is checked against them before it is used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from galirep.errors import CheckpointError
from galirep.system.reading.records import Count, Range, Size, check, quoted

_Side = Annotated[int, Range(1, 8192)]
_Channels = Annotated[int, Range(1, 4)]
_Width = Annotated[int, Range(0, 1 << 20)]


class _Sizes(TypedDict, total=False):
    width: _Width
    features: _Width
    norm: Literal["batch", "group", "none"]


class ShapesOf(_Sizes):
    """The fields of `parts.Shapes`; earlier versions recorded no norm."""

    size: _Side
    channels: _Channels
    latent: _Width


class BodyOf(TypedDict):
    """What E stands on, see `body.Body`."""

    spec: str | None
    name: str
    sha256: str
    layers: dict[str, Size]
    rate: float
    copy: str | None


class DataOf(TypedDict, total=False):
    """The images that a net was trained on."""

    spec: str
    split: str | None
    fingerprint: str | None


class _Known(TypedDict, total=False):
    # what a header may have, and is of this type where it has it
    name: str
    step: Count
    body: BodyOf | None
    data: DataOf
    default_layers: list[str]
    statistics: list[str]
    objective: str
    projector: Annotated[int, Range(0, 65536)]


class _Header(_Known):
    kind: str
    format: int
    sha256: str


class NetworkHeader(_Header):
    """The header of a network of a family."""

    networks: str
    shapes: ShapesOf


class _Named(TypedDict):
    name: str


class _Seeded(TypedDict):
    seed: Count


class NamedHeader(TypedDict):
    """What an extractor needs of the header of its encoder."""

    name: str
    step: Count


class RunHeader(TypedDict):
    """What evaluating a run needs of the header of its encoder."""

    name: str
    step: Count
    variant: _Named
    config: _Seeded
    data: dict[str, Any]
    adapter: dict[str, Any] | None


class _OfData(TypedDict):
    data: str | None


class _Trained(TypedDict):
    data: str
    split: str | None


class _Shaped(_Header, total=False):
    networks: str
    shapes: ShapesOf
    labels_used: bool


class ClassifierHeader(_Shaped):
    """The header of a net of train-classifier."""

    net: str
    image_size: _Side
    channels: _Channels
    names: list[str]
    binary: bool
    report: dict[str, Any]
    config: _Trained
    identity: _OfData


class Accuracy(TypedDict):
    """What a report on labels has."""

    accuracy: float


def check_header(header: Mapping[str, Any], kind: Any, where: str | Path) -> dict[str, Any]:
    """Return a header, or a part of it, that has what `kind` says; `where` begins the message.

    Raises:
        CheckpointError: a value is missing or of another type.
    """
    checked: dict[str, Any] = check(header, kind, f"the header of {where}", CheckpointError, "is damaged")
    known = ShapesOf.__required_keys__ | ShapesOf.__optional_keys__
    if strange := [key for key in checked.get("shapes") or () if key not in known]:
        raise CheckpointError(f"the header of {where} is damaged: its shapes have an unknown {quoted(strange[0])}")
    return checked
