"""Detect training collapse from the rows of metrics.jsonl and describe it as warnings."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from galirep.runs.metrics import Evaluation, MetricsRow

# its module loads torch, which watching needs not
if TYPE_CHECKING:
    from galirep.game.objectives import Chance

PATIENCE, EARLIEST = 2000, 50
"""Updates that a sign must last, or a run have made, before it is reported: a quarter of the run, in these bounds.

All runs start at chance.
"""
CHANCE = 0.01
"""Relative distance of D's loss from chance below which D tells no classes apart: about what batch noise moves it."""
SURE, VANISHED = 0.99, 1e-4
"""D's mean probability of the true class, and the norm of G's gradient, at which G can learn nothing more from D."""
FAR = 9.0
"""How far above its own chance level a loss has diverged, in units of D's.

A D that is wrong by a few nats on everything stays below. The level of G and E is no unit: `misclassification` has one
near 0, `minimax` one below.
"""
FEW_RANKS = 2.0
"""Effective rank below which images lie on a line, whatever the dimensions; checked where 4 or more are possible."""
IGNORED = 0.01
"""Variance of mu over that of the noise below which z says nothing of x: log(1.01)/2 = .005 nats a dimension."""
VARIANCE, MEAN, NATS = 4.0, 1.0, 10.0
"""How far the posterior of all images together may be from the prior.

The variance by this factor either way, the mean by this many standard deviations, the KL a dimension by this many nats
(log sigma at its bound with mu of the prior's size gives 6.5).
"""
WORSE = 2.0
"""Times the best held-out error at which a reconstruction is lost, not fluctuating."""
BOUNDED = 0.5
"""Share of log sigma at its bounds above which the bounds, not training, choose the posterior."""

_OF_NETWORKS = {"ignores", "prior", "features", "mean", "worse", "bounds"}


class Watch:
    """Warnings from the rows of metrics, given in order; `active` has those that hold now, name -> text.

    `chance` has the losses at chance, `latent` the dimension of z, `steps` the run's updates. All that it knows comes
    from the rows, so a resumed run gives it those that are there.
    """

    def __init__(self, chance: "Chance", latent: int, steps: int, rows: Iterable[MetricsRow] = ()) -> None:
        self.active: dict[str, str] = {}
        self.chance, self._latent = chance, latent
        self._patience = min(PATIENCE, max(EARLIEST, steps // 4))
        self._at_chance_since: int | None = None
        self._last_step, self._best = 0, float("inf")
        for row in rows:
            self.update(row)

    def update(self, row: MetricsRow) -> list[str]:
        """Take in a row; return the warnings that were not active before it."""
        warnings = self._of_the_game(row)
        if row.evaluation is not None:
            warnings |= self._of_the_networks(row.evaluation, row.step)
        else:
            # the last evaluation holds until the next
            warnings |= {name: text for name, text in self.active.items() if name in _OF_NETWORKS}
        new = [text for name, text in warnings.items() if name not in self.active]
        self.active, self._last_step = warnings, row.step
        return new

    def _of_the_game(self, row: MetricsRow) -> dict[str, str]:
        warnings = {}
        if abs(row.loss_d / self.chance.d - 1) >= CHANCE:
            self._at_chance_since = None
        elif self._at_chance_since is None:
            self._at_chance_since = self._last_step
        if self._at_chance_since is not None:
            lasted = row.step - self._at_chance_since
            if lasted >= self._patience:
                warnings["chance"] = (
                    f"D at chance for {lasted:,} updates: "
                    "it tells no class from another, so E and G learn nothing from it"
                )
        true_class = sum(probs[i] for i, probs in enumerate(row.probs)) / len(row.probs)
        gradient = row.gradient_norms["G"]
        if true_class > SURE and gradient < VANISHED:
            warnings["wins"] = (
                f"D wins: it gives the true class {true_class:.3f} and G a gradient of norm {gradient:.1e}"
            )
        if max(row.loss_d - self.chance.d, row.loss_g - self.chance.g) > FAR * self.chance.d:
            warnings["losses"] = (
                f"losses far above chance (D {row.loss_d:.3g}, chance {self.chance.d:.3g}; G and E {row.loss_g:.3g}, "
                f"chance {self.chance.g:.3g}): "
                "one side has run away from the other; a lower learning rate keeps them together"
            )
        return warnings

    def _of_the_networks(self, e: Evaluation, step: int) -> dict[str, str]:
        warnings = {}
        old = step >= self._patience
        possible_ranks = min(self._latent, e.images - 1)
        if old and ((possible_ranks >= 4 and e.mu_rank < FEW_RANKS) or e.mu_variance < IGNORED * e.sigma**2):
            warnings["ignores"] = (
                f"posterior ignores x: mu has effective rank {e.mu_rank:.1f} and variance {e.mu_variance:.2g}, "
                f"sigma is {e.sigma:.2g}"
            )
        nats = e.kl / self._latent
        far = not 1 / VARIANCE <= e.aggregate_variance <= VARIANCE or e.aggregate_mean > MEAN or nats > NATS
        if old and far:
            warnings["prior"] = (
                f"posterior far from the prior: mean {e.aggregate_mean:.2g} (prior 0), "
                f"variance {e.aggregate_variance:.3g} (prior 1), KL {nats:.2g} nats a dimension"
            )
        if old and e.images > 4 and e.feature_rank < FEW_RANKS:
            warnings["features"] = f"features collapsed: the last hidden layer has effective rank {e.feature_rank:.1f}"
        if old and e.pixel_mse >= e.mean_image_mse:
            warnings["mean"] = (
                f"reconstruction no better than the mean image after {step:,} updates: "
                f"held-out mse {e.pixel_mse:.4f}, of the mean image {e.mean_image_mse:.4f}"
            )
        if e.pixel_mse > WORSE * self._best:
            warnings["worse"] = f"reconstruction got worse: held-out mse {e.pixel_mse:.4f}, after {self._best:.4f}"
        if old and e.sigma_at_bounds > BOUNDED:
            warnings["bounds"] = f"log sigma at its bounds for {100 * e.sigma_at_bounds:.0f}% of the posterior"
        self._best = min(self._best, e.pixel_mse)
        return warnings


def status_line(row: MetricsRow, chance: "Chance") -> str:
    """Describe a row in one line: losses beside chance, D's probability of the true classes, speed, held-out error."""
    true_class = " ".join(f"{probs[i]:.2f}" for i, probs in enumerate(row.probs))
    wait = 100 * row.seconds["data_wait"] / max(row.seconds["interval"], 1e-9)
    held_out = f", held-out mse {row.evaluation.pixel_mse:.4f}" if row.evaluation else ""
    return (
        f"step {row.step} D {row.loss_d:.3f} (chance {chance.d:.3f}) GE {row.loss_g:.3f} (chance {chance.g:.3f}) "
        f"p(true) {true_class} "
        f"sigma {row.sigma:.2f} {row.images_per_second:.0f} img/s, data wait {wait:.0f}%, "
        f"{row.peak_memory_mib:.0f} MiB{held_out}"
    )
