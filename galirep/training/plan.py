"""What a run is going to do, with every setting decided that the user left to the data."""

import copy
import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from galirep.data.memory import Images
from galirep.errors import ConfigError
from galirep.game.discriminator import Discriminator
from galirep.game.step import Game, Rules, compute_gradients
from galirep.game.variant import Variant
from galirep.networks.body import Body
from galirep.networks.families import NETWORKS, family
from galirep.networks.parts import Shapes, projector
from galirep.training.config import TrainConfig
from galirep.training.held_out import default_count

_EPOCHS = 100.0  # where neither epochs nor steps are set (Dandi et al. 2021)
_VIEWS = "crop"  # of a variant with view operators, where nothing is set
_EVALUATE_EVERY = 1000  # updates, where nothing is set and images are held out
_SAMPLE_EVERY = 1000


@dataclass(frozen=True)
class RunPlan:
    """A run with nothing left open.

    `config` is what config.yaml and the checkpoints record: the settings with what the data decides filled in. `steps`
    are the updates of G and E, `holdout` the images kept out of training, `evaluate_every` the updates between two
    evaluations on them (0: none).
    """

    config: TrainConfig
    variant: Variant
    shapes: Shapes
    steps: int
    holdout: int = 0
    evaluate_every: int = 0

    def with_features(self, dim: int) -> "RunPlan":
        """Return the plan for an M(.) of `dim` features."""
        return dataclasses.replace(self, shapes=dataclasses.replace(self.shapes, features=dim))


def require_fit(config: TrainConfig, variant: Variant) -> None:
    """Check the settings that depend on the variant.

    Raises:
        ConfigError: views are set for a variant without view operators, or `r1_features` for one whose D reads none.
    """
    if config.r1_features and "features" not in variant.kinds:
        raise ConfigError(
            f"r1_features: no tuple of the variant {variant.name!r} has features of M(.) for the gradient penalty: "
            "leave it out, or take gali-pt"
        )
    if config.views is not None and not variant.views:
        raise ConfigError(
            f"views {config.views!r}: the variant {variant.name!r} has no view operator T1, T2, ...: "
            "leave views out, or take a variant like [['x', 'E(T1(x))'], ['G(z)', 'z']]"
        )


def resolve(config: TrainConfig, variant: Variant, images: Images) -> RunPlan:
    """Decide what `config` leaves to the data: sizes, networks, updates, held-out images and evaluations.

    Raises:
        ConfigError: too many images are held out, there is none to evaluate on, or see `require_fit`.
    """
    require_fit(config, variant)
    n, size, channels = len(images), images.pixels.shape[-1], images.pixels.shape[1]
    holdout = default_count(n, config.batch_size) if config.holdout is None else config.holdout
    if holdout and n - holdout < config.batch_size:
        raise ConfigError(
            f"holdout {holdout} leaves {max(0, n - holdout)} of {n} images, "
            f"fewer than a batch of {config.batch_size}: hold out fewer"
        )
    if config.evaluate_every and not holdout:
        raise ConfigError(
            f"evaluate_every {config.evaluate_every} needs images to evaluate on, and holdout is 0: hold some out"
        )
    evaluate_every = config.evaluate_every
    if evaluate_every is None:
        evaluate_every = _EVALUATE_EVERY if holdout else 0
    networks, chosen = family(config.networks, size)
    latent_dim = config.latent_dim or chosen.latent
    epochs = _EPOCHS if config.epochs is None else config.epochs
    steps = config.steps or max(1, math.ceil(epochs * (n - holdout) / (config.batch_size * config.d_steps)))
    resolved = dataclasses.replace(
        config,
        views=config.views or (_VIEWS if variant.views else None),
        data=images.spec,
        split=images.split,
        image_size=size,
        channels=channels,
        networks=networks,
        latent_dim=latent_dim,
        steps=steps,
        epochs=None,
        holdout=holdout,
        evaluate_every=evaluate_every,
        sample_every=min(_SAMPLE_EVERY, max(1, steps // 4)) if config.sample_every is None else config.sample_every,
    )
    shapes = Shapes(size, channels, latent_dim, config.width, norm=config.norm)
    return RunPlan(resolved, variant, shapes, steps, holdout, evaluate_every)


def rules_of(
    config: TrainConfig,
    *,
    penalized: bool,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Rules:
    """Return the rules of an update with or without the gradient penalty.

    The penalty is lazy: seldom, and that much stronger.
    """
    gamma = config.r1_gamma * config.r1_every if penalized else 0.0
    return Rules(
        config.objective,
        config.penalty_weight,
        gamma,
        autocast,
        scale,
        config.augmentations,
        r1_on=config.r1_on,
        r1_features=config.r1_features,
    )


@dataclass(frozen=True)
class UpdateCost:
    """What an update of G and E takes with its updates of D: `memory` in bytes at its peak, and `flops`.

    `flops` are of products and convolutions, a multiplication with its addition counted as two.
    """

    memory: int
    flops: float


def estimate_update(config: TrainConfig, variant: Variant, shapes: Shapes, body: Body | None = None) -> UpdateCost:
    """Estimate what an update takes in float32, on tensors without data.

    Memory is of weights, gradients, Adam's states, averages and all values of the networks. Left out are the images of
    the data set, M(.) and what the libraries keep for themselves (on a GPU, the workspaces of cuDNN and the rounding of
    the allocator). A gradient penalty counts in `flops` as seldom as it is.

    Raises:
        ConfigError: no network takes images of this size.
    """
    # seconds to import, and nothing else needs it
    from galirep.system.tensor_memory import imagined

    networks, _ = family(config.networks, shapes.size)
    views = config.view_names or ((_VIEWS,) if variant.views else ())
    copies = [] if body is None else [copy.deepcopy(body.function) for _ in range(2)]
    with imagined() as memory:
        parts = NETWORKS[networks].build(shapes)
        discriminator = Discriminator(variant, parts, config.d_regularizer)
        extract = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(shapes.channels * shapes.size**2, 1))
        second = NETWORKS[networks].build(shapes)
        encoder, average = parts.encoder, second.encoder
        if body is not None:
            # a frozen body is there once
            used = copies if body.trained else copies[:1]
            for function in used:
                if isinstance(function, torch.nn.Module):
                    # into imagined tensors, which are counted
                    function._apply(torch.clone)  # type: ignore[no-untyped-call]
            first, other = (dataclasses.replace(body, function=function) for function in (used[0], used[-1]))
            encoder, average = first.encoder(parts, shapes), other.encoder(second, shapes)
        averages = (average, second.generator)
        del second, average
        game = Game(
            variant,
            encoder,
            parts.generator,
            discriminator,
            extract if variant.needs_features else None,
            views,
            projector(encoder.hidden) if variant.needs_projector else None,
        )
        optimizers = [torch.optim.Adam(net.parameters()) for net in game.trained().values()]
        images = torch.rand(config.batch_size, shapes.channels, shapes.size, shapes.size)

        def flops_of(*, penalized: bool, d_only: bool = False) -> int:
            before, rules = memory.flops, rules_of(config, penalized=penalized)
            compute_gradients(game, images, torch.Generator(), rules, noise=config.initial_noise, d_only=d_only)
            for optimizer in optimizers:
                optimizer.step()
            return memory.flops - before

        plain = flops_of(penalized=False)
        # an update with gradients and Adam's states of the one before, and all that one may have
        extra = flops_of(penalized=True) - plain if config.penalized else flops_of(penalized=False) - plain
        of_d = flops_of(penalized=False, d_only=True) if config.d_steps > 1 else 0
        # they were held all the while
        del averages
    flops = plain + (config.d_steps - 1) * of_d + config.d_steps * extra / config.r1_every
    return UpdateCost(memory.peak, flops)
