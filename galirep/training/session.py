"""A training run in memory: players, optimizers, averages, position in the data; and the step that moves them all."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from galirep.data.batches import Batches, derive_seed
from galirep.game.discriminator import Discriminator
from galirep.game.expression import Expr
from galirep.game.step import Game, Rules, compute_gradients, frozen_statistics
from galirep.networks.body import Body, BodyEncoder
from galirep.networks.families import NETWORKS
from galirep.networks.parts import projector
from galirep.runs.initial_weights import InitialWeights
from galirep.runs.metrics import MetricsRow
from galirep.system.devices import autocast_of, peak_memory
from galirep.training.averaging import Average
from galirep.training.knowledge import Knowledge
from galirep.training.optimizers import Optimizers, norms, rate_factor
from galirep.training.plan import RunPlan, rules_of

# positions of `derive_seed`: what each random stream of a run is for (0 is the order of the images)
_INIT, _STEP, _CALIBRATE, _SHOW = 1, 2, 3, 4
_CALIBRATION = (16, 256)  # batches, and images in each, that BatchNorm's statistics are re-estimated on
_SHOWN = 32  # images, and half as many as samples, in the pictures
_STANDARDIZED = 4096  # images that the body's layers are standardised on
_MEAN_IMAGE = 1000  # images that G's output bias starts from
_M_OF_X = Expr("M", (Expr("x"),))


class Session:
    """The state of a run at `step`.

    Everything random is derived from the seed and the step, so `state_dict` holds no random state. `knowledge` holds
    M(.) and its features of the images of `batches`; E stands on `body` if there is one, and the weights are those of
    `start` where they fit.
    """

    def __init__(
        self,
        plan: RunPlan,
        batches: Batches,
        knowledge: Knowledge | None = None,
        body: Body | None = None,
        start: InitialWeights | None = None,
    ) -> None:
        self.plan, self.config, self.batches = plan, plan.config, batches
        self.knowledge = knowledge or Knowledge()
        self.body_files = {} if body is None else body.files
        self.step = 0
        self.lr_scale, self.rollbacks = 1.0, 0
        self.best: dict[str, Any] | None = None  # step and value of the best evaluation so far
        self._calibrated_step = -1
        config, device = self.config, batches.device

        # networks; D's spectral norm wraps weights that are initialised already
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, _INIT))
            parts = NETWORKS[config.networks].build(plan.shapes)
            discriminator = Discriminator(plan.variant, parts, config.d_regularizer)
            projection = projector(parts.encoder.hidden) if plan.variant.needs_projector else None
            # after G and D, which so begin as they would without a body
            encoder = parts.encoder if body is None else body.encoder(parts, plan.shapes)
        parts.generator.start_from(batches.images(batches.evenly_spaced(_MEAN_IMAGE)).mean(0).cpu())
        self.game = Game(
            plan.variant,
            encoder,
            parts.generator,
            discriminator,
            self.knowledge.extract,
            config.view_names,
            projection,
        )
        for net in self.game.trained().values():
            net.to(device).to(memory_format=torch.channels_last)
        if isinstance(encoder, BodyEncoder):
            encoder.standardize(batches.blocks(batches.evenly_spaced(_STANDARDIZED)))
        self.initial = None if start is None else start.load_into(self.game.players(), config.networks)

        # what moves them
        self.optimizers = Optimizers(self.game, config, device)
        self.average = Average(self.game, config.ema_half_life)
        self._autocast, self._generator = autocast_of(device, config.precision), torch.Generator(device)

        # what is shown of them
        self.shown_images = batches.images(batches.evenly_spaced(_SHOWN))
        shown = torch.Generator().manual_seed(derive_seed(config.seed, _SHOW))
        self.shown_z = torch.randn(2 * _SHOWN, plan.shapes.latent, generator=shown).to(device)
        self._start_interval()
        if config.compile:
            for net in self.game.players().values():
                net.compile()

    def advance(self) -> None:
        """Make one update of G and E, with `d_steps` of D."""
        config, d_steps = self.config, self.config.d_steps
        noise = config.initial_noise * (1 - self.step / self.plan.steps)
        factor = self.lr_scale * rate_factor(config, self.step, self.plan.steps)
        for k in range(d_steps):
            number, d_only = self.step * d_steps + k, k < d_steps - 1

            # data
            before = time.perf_counter()
            indices = self.batches.indices(number)
            x = self.batches.images(indices)
            known = {}
            if self.knowledge.features is not None:
                known[_M_OF_X] = self.batches.to_device(self.knowledge.features[indices])
            self._waited += time.perf_counter() - before

            # gradients
            rules = self._rules(number)
            self._generator.manual_seed(derive_seed(config.seed, _STEP, number))
            statistics = compute_gradients(
                self.game, x, self._generator, rules, noise=noise, known=known, d_only=d_only
            )

            # update
            self.optimizers.step(factor, d_only=d_only)
            for name, value in statistics.items():
                total, count = self._totals.get(name, (torch.zeros_like(value), 0))
                self._totals[name] = (total + value, count + 1)
        self.step += 1
        self._updates += 1
        self.average.update(config.batch_size, self.step * config.batch_size)

    def _rules(self, number: int) -> Rules:
        """Return the rules of update `number`."""
        penalized = self.config.penalized and number % self.config.r1_every == 0
        scale = self.optimizers.scaler.scale
        return rules_of(self.config, penalized=penalized, autocast=self._autocast, scale=scale)

    def _start_interval(self) -> None:
        self._totals: dict[str, tuple[Tensor, int]] = {}
        self._updates, self._waited = 0, 0.0
        self._started = time.perf_counter()

    def report(self) -> MetricsRow:
        """Return the metrics since the last report (waits for the device)."""
        config = self.config
        means: dict[str, Any] = {
            name: (total / count).float().cpu().tolist() for name, (total, count) in self._totals.items()
        }
        # not of the averaged encoder: its BatchNorm statistics are of the last calibration, whenever that was
        encoder = self.game.encoder
        with torch.no_grad(), frozen_statistics(encoder):
            mu, log_sigma = encoder(self.shown_images)
        seconds = time.perf_counter() - self._started
        images = self._updates * config.batch_size * config.d_steps
        row = MetricsRow(
            step=self.step,
            epoch=round(self.step * config.d_steps * config.batch_size / self.batches.n, 3),
            **means,
            weight_norms=norms(self.game, gradients=False),
            gradient_norms=norms(self.game, gradients=True),
            mu_std=float(mu.std()),
            sigma=float(log_sigma.exp().mean()),
            lr=self.optimizers.rates["G"] * self.lr_scale * rate_factor(config, self.step - 1, self.plan.steps),
            seconds={"interval": round(seconds, 3), "data_wait": round(self._waited, 3)},
            images_per_second=round(images / seconds, 1),
            peak_memory_mib=round(peak_memory(self.batches.device), 1),
        )
        self._start_interval()
        return row

    def calibrate(self) -> None:
        """Re-estimate the averaged networks' BatchNorm statistics on images spread over the data set, once a step."""
        if self._calibrated_step == self.step:
            return
        self._calibrated_step = self.step
        count, size = _CALIBRATION
        rows = self.batches.evenly_spaced(count * size)
        # shuffled, so that batches mix the classes
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        parts = [part for part in torch.split(rows, size) if len(part) > 1]
        self.average.calibrate((self.batches.images(p) for p in parts), derive_seed(self.config.seed, _CALIBRATE))

    @torch.no_grad()
    def pictures(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return G(z) for fixed z, fixed x, and G(mu(x)), each (N, C, S, S) in [-1, 1], of the calibrated averages."""
        e, g = self.average.nets["E"], self.average.nets["G"]
        return g(self.shown_z), self.shown_images, g(e(self.shown_images)[0])

    def exported(self) -> dict[str, nn.Module]:
        """Return the networks of an export by kind: the averages of E and G, and D's image trunk where it has one."""
        nets = {"encoder": self.average.nets["E"], "generator": self.average.nets["G"]}
        discriminator = self.game.discriminator
        return {**nets, "discriminator": discriminator.image_trunk()} if "image" in discriminator.trunks else nets

    def record_evaluation(self, value: float) -> None:
        """Note the value of an evaluation (less is better) at this step, if none before was as good."""
        if self.best is None or value < self.best["value"]:
            self.best = {"by": self.config.best_by, "step": self.step, "value": value}

    @property
    def is_best(self) -> bool:
        """True if the best evaluation so far is that of this step."""
        return self.best is not None and self.best["step"] == self.step

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {
            "step": self.step,
            "lr_scale": self.lr_scale,
            "rollbacks": self.rollbacks,
            "best": self.best,
            "nets": {n: net.state_dict() for n, net in self.game.trained().items()},
            "average": {n: net.state_dict() for n, net in self.average.nets.items()},
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.step, self.best = state["step"], state["best"]
        self.lr_scale, self.rollbacks = state["lr_scale"], state["rollbacks"]
        self._calibrated_step = -1
        for name, net in self.game.trained().items():
            net.load_state_dict(state["nets"][name])
        for name, net in self.average.nets.items():
            net.load_state_dict(state["average"][name])
        self.optimizers.load_state_dict(state["optimizers"])
        self._start_interval()
