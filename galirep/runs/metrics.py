"""The rows of metrics.jsonl of a GALI run as records."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galirep.errors import CheckpointError
from galirep.system.reading.records import quoted, read_record


@dataclass(frozen=True)
class Evaluation:
    """Measures of the averaged E and G on held-out images.

    `pixel_mse` of G(mu(x)) and `mean_image_mse` of the training images' mean are of images in [0, 1]. Of the posterior:
    `mu_variance` and `sigma` (means over the dimensions), `mu_rank`, `kl` to the prior (nats an image),
    `aggregate_mean` (root mean square over the dimensions) and `aggregate_variance` of the posterior of all images
    together (the prior's are 0 and 1), and `sigma_at_bounds`, the share of log sigma at a bound of its range.
    `feature_rank` is of the last hidden layer; `knn_error` is None where there are no labels; `latent_mse` is the cycle
    error of latents, mu(G(z)) against z of N(0, I), a dimension (earlier versions did not measure it).
    """

    images: int
    pixel_mse: float
    mean_image_mse: float
    mu_variance: float
    sigma: float
    mu_rank: float
    kl: float
    aggregate_mean: float
    aggregate_variance: float
    sigma_at_bounds: float
    feature_rank: float
    knn_error: float | None = None
    latent_mse: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the measures that were taken as plain data."""
        return _without_none(dataclasses.asdict(self))


@dataclass(frozen=True)
class MetricsRow:
    """One row: means over the updates since the row before, and the state at `step`.

    `probs` is D's mean class-probability matrix (row = true class, column = named class); `r1` and `penalty` are the
    terms added to the losses, where there are any; norms are by network, E, G and D; `mu_std` and `sigma` are of E's
    posterior on fixed images, normalised as in training; `seconds` has `interval` and `data_wait`.
    """

    step: int
    epoch: float
    loss_d: float
    probs: Sequence[Sequence[float]]
    loss_g: float
    weight_norms: Mapping[str, float]
    gradient_norms: Mapping[str, float]
    mu_std: float
    sigma: float
    lr: float
    seconds: Mapping[str, float]
    images_per_second: float
    peak_memory_mib: float
    r1: float | None = None
    penalty: float | None = None
    evaluation: Evaluation | None = None
    warnings: Sequence[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as it stands in metrics.jsonl: what does not apply is left out."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.evaluation is not None:
            row["evaluation"] = self.evaluation.to_dict()
        return _without_none(row)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "MetricsRow":
        """Read a row of metrics.jsonl; what this version does not know is ignored.

        Raises:
            CheckpointError: a value that every row has is missing, or one is of another type.
        """
        where = f"the metrics of step {quoted(row.get('step', '?'))}"
        read = read_record(cls, row, where, CheckpointError, ignore_unknown=True, fault="are incomplete or damaged")
        if any(len(line) != len(read.probs) for line in read.probs):
            raise CheckpointError(f"{where} are damaged: probs is not square")
        if missing := {"E", "G", "D"} - (read.weight_norms.keys() & read.gradient_norms.keys()):
            raise CheckpointError(f"{where} are damaged: no norm of {min(missing)}")
        return read

    def is_finite(self, *, gradients: bool = True) -> bool:
        """Return True if losses, norms and evaluation are finite; `gradients=False` leaves out the gradient norms."""
        norms = [*self.weight_norms.values(), *(self.gradient_norms.values() if gradients else ())]
        evaluation = self.evaluation.to_dict().values() if self.evaluation else ()
        return all(math.isfinite(value) for value in (self.loss_d, self.loss_g, *norms, *evaluation))


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
