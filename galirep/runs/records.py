"""What the files of a run hold, as types: run.json and the state in a checkpoint are checked against them."""

from typing import Annotated, Any, TypedDict

from galirep.system.reading.records import Count, Range


class BodyRecord(TypedDict):
    """What E stands on, see `galirep.networks.body.Body`."""

    spec: str | None
    name: str
    sha256: str
    layers: dict[str, Count]
    copy: str | None


class Best(TypedDict):
    """The best evaluation so far."""

    by: str
    step: Count
    value: float


class DataFacts(TypedDict, total=False):
    """The images of a run; `errors` are (id, reason) of those that could not be read."""

    spec: str
    split: str | None
    fingerprint: str
    images: Count
    held_out: Count
    errors: list[tuple[str, str]]
    report: dict[str, Any] | None


class InitialRecord(TypedDict):
    """Where a run's first weights came from; what was taken of them is beside it."""

    source: str


class RunInfo(TypedDict, total=False):
    """run.json; what a run does not have, as it is of an earlier version or another command, is left out."""

    kind: str
    status: str
    argv: list[str]
    devices: list[str]
    identity: dict[str, str | None]
    data: DataFacts
    variant: dict[str, Any]
    adapter: dict[str, Any] | None
    body: BodyRecord | None
    init_from: InitialRecord | None
    step: Count
    steps: Count
    best: Best | None
    warnings: list[str]


class TrainedData(TypedDict):
    """What a resumed run needs of what is recorded of its images."""

    spec: str
    split: str | None
    fingerprint: str
    images: Count
    held_out: Count
    errors: list[tuple[str, str]]


class TrainedInfo(TypedDict):
    """What `galirep train` needs of run.json to go on with a run."""

    data: TrainedData
    variant: dict[str, Any]
    adapter: dict[str, Any] | None


class SessionState(TypedDict):
    """A checkpoint of `galirep train`."""

    config: dict[str, Any]
    step: Count
    lr_scale: Annotated[float, Range(0, 1)]
    rollbacks: Count
    best: Best | None
    nets: dict[str, dict[str, Any]]
    average: dict[str, dict[str, Any]]
    optimizers: dict[str, dict[str, Any]]


class _D(TypedDict):
    D: dict[str, Any]


class WithD(TypedDict):
    """What is taken of a checkpoint for the first weights of another run."""

    nets: _D


class Step(TypedDict):
    """What every row of metrics.jsonl has."""

    step: Count


class Epoch(TypedDict):
    """A row of the metrics of `galirep train-classifier`."""

    epoch: Count
    step: Count
    val_loss: float


class TaskState(TypedDict):
    """A checkpoint of `galirep train-classifier`."""

    net: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    step: Count
    loss_sum: float
    history: list[Epoch]
    best: dict[str, Any]
    best_epoch: Count
