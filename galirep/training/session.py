"""A training run in memory: the players, their optimizers and averages, the position in the data; and the one step that moves them all."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from galirep.data.batches import Batches, derive_seed
from galirep.game.discriminator import Discriminator
from galirep.game.expression import Expr
from galirep.game.step import Game, Rules, compute_gradients, frozen_statistics
from galirep.game.variant import Variant
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.system.devices import autocast_of, peak_memory
from galirep.training.averaging import Average
from galirep.training.config import TrainConfig
from galirep.training.optimizers import Optimizers, norms, rate_factor

# positions of `derive_seed`: what each random stream of a run is for (0 is the order of the images)
_INIT, _STEP, _CALIBRATE, _SHOW = 1, 2, 3, 4
_CALIBRATION = (16, 256)  # batches, and images in each, that BatchNorm's statistics are re-estimated on
_SHOWN = 32
_M_OF_X = Expr("M", (Expr("x"),))


class Session:
    """The state of a run at `step`. Everything random is derived from the seed and the step, so `state_dict` holds no random state.

    `config` is complete (no setting that `train` fills in is None); `extract` is M(.), `features` its values (N, d) on the images of
    `batches`.
    """

    def __init__(
        self,
        config: TrainConfig,
        variant: Variant,
        shapes: Shapes,
        batches: Batches,
        extract: Callable[[Tensor], Tensor] | None = None,
        features: Tensor | None = None,
    ) -> None:
        assert config.steps is not None
        self.config, self.variant, self.shapes, self.batches, self.features = config, variant, shapes, batches, features
        self.steps, self.step, self.lr_scale, self.rollbacks = config.steps, 0, 1.0, 0
        self.best: dict[str, Any] | None = None  # step and value of the best evaluation so far
        self._calibrated = -1  # the step of the averages that `calibrate` has made ready
        device = batches.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, _INIT))
            parts = NETWORKS[config.networks].build(shapes)
            discriminator = Discriminator(variant, parts, config.d_regularizer)
        parts.generator.start_from(batches.images(batches.evenly_spaced(1000)).mean(0).cpu())
        self.game = Game(variant, parts.encoder, parts.generator, discriminator, extract)
        for net in self.game.players().values():
            net.to(device).to(memory_format=torch.channels_last)
        self.optimizers, self.average = Optimizers(self.game, config, device), Average(self.game, config.ema_half_life)
        self.shown_images = batches.images(batches.evenly_spaced(_SHOWN))
        self._autocast, self._generator = autocast_of(device, config.precision), torch.Generator(device)
        self.shown_z = torch.randn(
            2 * _SHOWN, shapes.latent, generator=torch.Generator().manual_seed(derive_seed(config.seed, _SHOW))
        ).to(device)
        self._begin_interval()
        if config.compile:
            for net in self.game.players().values():
                net.compile()

    def advance(self) -> None:
        """One update of G and E, with `d_steps` of D."""
        config, per_step = self.config, self.config.d_steps
        noise = config.initial_noise * (1 - self.step / self.steps)
        factor = self.lr_scale * rate_factor(config, self.step, self.steps)
        for k in range(per_step):
            d_only, number = k < per_step - 1, self.step * per_step + k
            before = time.perf_counter()
            chosen = self.batches.indices(number)
            x = self.batches.images(chosen)
            known = {} if self.features is None else {_M_OF_X: self.batches.to_device(self.features[chosen])}
            self._waited += time.perf_counter() - before
            gamma = (
                config.r1_gamma * config.r1_every if config.penalized and number % config.r1_every == 0 else 0.0
            )  # lazy: seldom, and that much stronger
            scale = self.optimizers.scaler.scale
            rules = Rules(config.objective, config.penalty_weight, gamma, self._autocast, scale, config.augmentations)
            self._generator.manual_seed(derive_seed(config.seed, _STEP, number))
            statistics = compute_gradients(
                self.game, x, self._generator, rules, noise=noise, known=known, d_only=d_only
            )
            self.optimizers.step(factor, d_only=d_only)
            for name, value in statistics.items():
                total, count = self._totals.get(name, (torch.zeros_like(value), 0))
                self._totals[name] = (total + value, count + 1)
        self.step += 1
        self._since += 1
        self.average.update(config.batch_size, self.step * config.batch_size)

    def _begin_interval(self) -> None:
        self._totals: dict[str, tuple[Tensor, int]] = {}
        self._since, self._waited, self._started = 0, 0.0, time.perf_counter()

    def report(self) -> dict[str, Any]:
        """Means since the last report, as plain numbers (waits for the device); `probs` is D's mean class-probability matrix, row = true
        class; `mu_std` and `sigma` are of E's posterior on fixed images, normalised as in training.
        """
        means = {name: (total / count).float().cpu().tolist() for name, (total, count) in self._totals.items()}
        encoder = (
            self.game.encoder
        )  # the averaged one's BatchNorm statistics are of the last calibration, whenever that was
        with torch.no_grad(), frozen_statistics(encoder):
            mu, log_sigma = encoder(self.shown_images)
        seconds = time.perf_counter() - self._started
        images = self._since * self.config.batch_size * self.config.d_steps
        out = {
            "step": self.step,
            "epoch": round(self.step * self.config.d_steps * self.config.batch_size / self.batches.n, 3),
            **means,
            "weight_norms": norms(self.game, gradients=False),
            "gradient_norms": norms(self.game, gradients=True),
            "mu_std": float(mu.std()),
            "sigma": float(log_sigma.exp().mean()),
            "lr": self.optimizers.rates["G"] * self.lr_scale * rate_factor(self.config, self.step - 1, self.steps),
            "seconds": {"interval": round(seconds, 3), "data_wait": round(self._waited, 3)},
            "images_per_second": round(images / seconds, 1),
            "peak_memory_mib": round(peak_memory(self.batches.device), 1),
        }
        self._begin_interval()
        return out

    def calibrate(self) -> None:
        """Make the averaged networks ready for evaluation: BatchNorm's statistics re-estimated on images spread over the data set."""
        if self._calibrated == self.step:  # pictures and a checkpoint are often due at the same step
            return
        self._calibrated = self.step
        count, size = _CALIBRATION
        spread = self.batches.evenly_spaced(count * size)
        spread = spread[
            torch.randperm(len(spread), generator=torch.Generator().manual_seed(0))
        ]  # batches of mixed classes
        parts = [p for p in torch.split(spread, size) if len(p) > 1]
        self.average.calibrate((self.batches.images(p) for p in parts), derive_seed(self.config.seed, _CALIBRATE))

    @torch.no_grad()
    def pictures(self) -> tuple[Tensor, Tensor, Tensor]:
        """G(z) for fixed z, fixed x, and G(mu(x)), each (N, C, S, S) in [-1, 1], by the averaged networks as `calibrate` left them."""
        e, g = self.average.nets["E"], self.average.nets["G"]
        return g(self.shown_z), self.shown_images, g(e(self.shown_images)[0])

    def take_if_best(self, value: float) -> None:
        """Note the value of an evaluation (less is better) at this step, if none before was as good."""
        if self.best is None or value < self.best["value"]:
            self.best = {"by": self.config.best_by, "step": self.step, "value": value}

    @property
    def is_best(self) -> bool:
        """Whether the best evaluation so far is that of this step."""
        return self.best is not None and self.best["step"] == self.step

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "step": self.step,
            "lr_scale": self.lr_scale,
            "rollbacks": self.rollbacks,
            "best": self.best,
            "nets": {n: net.state_dict() for n, net in self.game.players().items()},
            "average": {n: net.state_dict() for n, net in self.average.nets.items()},
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` gave."""
        self.step, self.lr_scale, self.rollbacks, self.best = (
            state[name] for name in ("step", "lr_scale", "rollbacks", "best")
        )
        self._calibrated = -1
        for name, net in self.game.players().items():
            net.load_state_dict(state["nets"][name])
        for name, net in self.average.nets.items():
            net.load_state_dict(state["average"][name])
        self.optimizers.load_state_dict(state["optimizers"])
        self._begin_interval()
