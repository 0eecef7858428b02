"""A watch on collapse: what goes wrong in adversarial training, read from the lines of metrics.jsonl and told in words."""

from collections.abc import Iterable, Mapping
from typing import Any

PATIENCE, EARLIEST = 2000, 50
"""Updates that a sign must last, or a run be old, before it is told: a quarter of the run, within these. All runs start at chance."""
CHANCE = 0.01
"""Relative distance from chance below which D tells nothing apart: batch noise alone moves its loss by about as much."""
SURE, VANISHED = 0.99, 1e-4
"""D's mean probability of the true class, and the norm of G's gradient, at which D gives G nothing to follow."""
FAR = 10.0
"""Times chance at which losses have left the range of a game that goes on; D wholly wrong by a few nats stays below."""
FEW_RANKS = 2.0
"""Effective rank below which images lie on a line, whatever the dimensions. Told only where 4 or more are possible."""
IGNORED = 0.01
"""Variance of mu over that of the posterior noise below which z says almost nothing of x: at most log(1.01)/2 = .005 nats a dimension."""
VARIANCE, MEAN, NATS = 4.0, 1.0, 10.0
"""How far the posterior of all images together may be from the prior: variance by this factor either way, mean by this many standard
deviations, KL a dimension by this many nats (log sigma at its bound with mu of the prior's size gives 6.5)."""
WORSE = 2.0
"""Times the best held-out error at which a reconstruction is lost, not fluctuating."""
BOUNDED = 0.5
"""Share of log sigma at its bounds above which the bounds, not training, choose the posterior."""


class Watch:
    """Fed with each line of metrics in order. `chance` is D's loss at chance, `latent` the dimension of z, `steps` the run's updates.

    All that it knows comes from the lines, so a resumed run feeds it those that are there.
    """

    def __init__(self, chance: float, latent: int, steps: int, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.standing: dict[str, str] = {}
        self.chance, self._latent, self._patience = chance, latent, min(PATIENCE, max(EARLIEST, steps // 4))
        self._at_chance_since: int | None = None
        self._before, self._best = 0, float("inf")
        for row in rows:
            self.see(row)

    def see(self, row: Mapping[str, Any]) -> list[str]:
        """Take in a line; gives the warnings that did not stand before it. `standing` has all, name -> words."""
        found = self._of_the_game(row)
        if "evaluation" in row:
            found |= self._of_the_networks(row["evaluation"], row["step"])
        else:  # the last evaluation holds until the next
            found |= {name: text for name, text in self.standing.items() if name in _OF_NETWORKS}
        new = [text for name, text in found.items() if name not in self.standing]
        self.standing, self._before = found, row["step"]
        return new

    def _of_the_game(self, row: Mapping[str, Any]) -> dict[str, str]:
        found = {}
        if abs(row["loss_d"] / self.chance - 1) >= CHANCE:
            self._at_chance_since = None
        elif self._at_chance_since is None:
            self._at_chance_since = self._before
        if self._at_chance_since is not None and (lasted := row["step"] - self._at_chance_since) >= self._patience:
            found["chance"] = (
                f"D at chance for {lasted:,} updates: it tells no class from another, so E and G learn nothing from it"
            )
        own = sum(probs[i] for i, probs in enumerate(row["probs"])) / len(row["probs"])
        if own > SURE and row["gradient_norms"]["G"] < VANISHED:
            found["wins"] = (
                f"D wins: it gives the true class {own:.3f} and G a gradient of norm {row['gradient_norms']['G']:.1e}"
            )
        if max(row["loss_d"], row["loss_g"]) > FAR * self.chance:
            found["losses"] = (
                f"losses far above chance (D {row['loss_d']:.3g}, G and E {row['loss_g']:.3g}, chance {self.chance:.3g}): "
                "one side has run away from the other; a lower learning rate keeps them together"
            )
        return found

    def _of_the_networks(self, e: Mapping[str, Any], step: int) -> dict[str, str]:
        found = {}
        ranks, old = min(self._latent, e["images"] - 1), step >= self._patience
        floor, noise = e["mean_image_mse"], e["sigma"] ** 2
        if old and ((ranks >= 4 and e["mu_rank"] < FEW_RANKS) or e["mu_variance"] < IGNORED * noise):
            found["ignores"] = (
                f"posterior ignores x: mu has effective rank {e['mu_rank']:.1f} and variance {e['mu_variance']:.2g}, "
                f"sigma is {e['sigma']:.2g}"
            )
        nats = e["kl"] / self._latent
        if old and (
            not 1 / VARIANCE <= e["aggregate_variance"] <= VARIANCE or e["aggregate_mean"] > MEAN or nats > NATS
        ):
            found["prior"] = (
                f"posterior far from the prior: mean {e['aggregate_mean']:.2g} (prior 0), "
                f"variance {e['aggregate_variance']:.2g} (prior 1), KL {nats:.2g} nats a dimension"
            )
        if old and e["images"] > 4 and e["feature_rank"] < FEW_RANKS:
            found["features"] = f"features collapsed: the last hidden layer has effective rank {e['feature_rank']:.1f}"
        if old and e["pixel_mse"] >= floor:
            found["mean"] = (
                f"reconstruction no better than the mean image after {step:,} updates: held-out mse {e['pixel_mse']:.4f}, {floor:.4f}"
            )
        if e["pixel_mse"] > WORSE * self._best:
            found["worse"] = f"reconstruction got worse: held-out mse {e['pixel_mse']:.4f}, after {self._best:.4f}"
        if old and e["sigma_at_bounds"] > BOUNDED:
            found["bounds"] = f"log sigma at its bounds for {100 * e['sigma_at_bounds']:.0f}% of the posterior"
        self._best = min(self._best, e["pixel_mse"])
        return found


_OF_NETWORKS = {"ignores", "prior", "features", "mean", "worse", "bounds"}
