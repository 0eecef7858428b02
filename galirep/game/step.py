"""One adversarial update: the gradients of both losses from one forward pass, and statistics.

Which optimizer applies the gradients is up to the caller. The paper's authors descend simultaneously: G and E get their
gradient through D as it was before its step. One forward pass therefore serves both losses: the chains are evaluated
once, D sees their values as detached leaves, dL_D/dl goes back to D's weights only, and dL_G/dl to the leaves only and
from there into E and G. Nothing here waits for the device.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galirep.data.tensors import ImageFunction, as_float32
from galirep.game import augmentation, masks, views
from galirep.game.chains import evaluate
from galirep.game.discriminator import Discriminator
from galirep.game.expression import Expr
from galirep.game.gradient_penalty import add_gradient_penalty
from galirep.game.objectives import MULTIPLES, OBJECTIVES
from galirep.game.variant import Variant
from galirep.game.view_losses import VIEW_LOSSES
from galirep.networks.parts import Encoder, Generator


@dataclass
class Game:
    """The networks that play a variant: E, G, D, and what else it names.

    `extract` is M, any function of images in [-1, 1] that returns features (B, d); `views` names what the view
    operators T1, T2, ... do (keys of `VIEWS`); `projector` (see `networks.parts.projector`) stands between E's last
    hidden layer and the losses between views.
    """

    variant: Variant
    encoder: Encoder
    generator: Generator
    discriminator: Discriminator
    extract: ImageFunction | None = None
    views: Sequence[str] = ()
    projector: nn.Module | None = None

    def players(self) -> dict[str, nn.Module]:
        """Return the players by their letters."""
        return {"E": self.encoder, "G": self.generator, "D": self.discriminator}

    def trained(self) -> dict[str, nn.Module]:
        """Return all that is trained: the players and, where there is one, the projector (P)."""
        return self.players() | ({} if self.projector is None else {"P": self.projector})


@dataclass(frozen=True)
class Rules:
    """How an update is made.

    `objective` is a key of `OBJECTIVES`, `penalty_weight` the weight on the variant's penalties, `r1_gamma` the weight
    of D's gradient penalty (0: none), `scale` multiplies a loss for half precision, `augment` names the augmentations
    of D's images (keys of `AUGMENTATIONS`), and `r1_on` and `r1_features` say what the penalty is of
    (`gradient_penalty`).
    """

    objective: str = "product"
    penalty_weight: float = 1.0
    r1_gamma: float = 0.0
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    scale: Callable[[Tensor], Tensor] = field(default=lambda loss: loss)
    augment: Sequence[str] = ()
    r1_on: str = "mean"
    r1_features: bool = False


def evaluate_expressions(
    game: Game, x: Tensor, generator: torch.Generator, exprs: Iterable[Expr], known: Mapping[Expr, Tensor] | None = None
) -> dict[Expr, Tensor]:
    """Return the values of `exprs` for real images x (B, C, S, S) and fresh z, masks, views and posterior samples.

    `known` gives values that need not be computed.
    """
    (batch, channels, size), device = x.shape[:3], x.device
    latent = game.encoder.latent
    leaves: dict[Expr, Any] = {Expr("x"): x, Expr("z"): torch.randn(batch, latent, generator=generator, device=device)}
    leaves |= {Expr(name): masks.random_boxes(batch, size, generator, device) for name in game.variant.masks}
    leaves |= {
        Expr(name): views.draw(game.views, batch, size, generator, device, channels) for name in game.variant.views
    }
    posteriors: dict[Expr, tuple[Tensor, ...]] = {}

    def posterior(of: Expr, image: Tensor) -> tuple[Tensor, ...]:
        """Return mu, log sigma and, for a variant that projects it, the last hidden layer; E runs once an image."""
        if of not in posteriors:
            # E's running statistics are those of real images, masked or not, because those are what it embeds later
            with frozen_statistics(game.encoder) if "G" in of.heads else nullcontext():
                options = {"with_hidden": True} if game.projector is not None else {}
                posteriors[of] = game.encoder(image, **options)
        return posteriors[of]

    def apply(e: Expr, args: tuple[Any, ...]) -> Tensor:
        result: Tensor
        match e.head:
            case "E":
                mu, log_sigma = posterior(e.args[0], args[0])[:2]
                noise = torch.randn(mu.shape, generator=generator, device=device, dtype=mu.dtype)
                result = torch.addcmul(mu, log_sigma.exp(), noise)
            case "mu":
                result = posterior(e.args[0], args[0])[0]
            case "Project":
                assert game.projector is not None
                result = game.projector(posterior(e.args[0], args[0])[2])
            case "G":
                result = game.generator(args[0])
            case "M":
                assert game.extract is not None
                result = game.extract(as_float32(args[0]))
            case "Erase":
                result = masks.erase(*args)
            case "View":
                image, view = args
                result = view(image)
            case _:  # "Mix"
                result = masks.mix(*args)
        return result

    return evaluate(exprs, leaves | dict(known or {}), apply)


def compute_gradients(
    game: Game,
    x: Tensor,
    generator: torch.Generator,
    rules: Rules,
    *,
    noise: float = 0.0,
    known: Mapping[Expr, Tensor] | None = None,
    d_only: bool = False,
) -> dict[str, Tensor]:
    """Set `.grad` of D and, unless `d_only`, of E, G and the projector to the gradients of one update.

    Gradients are replaced, not added to. `x` are real images (B, C, S, S) in [-1, 1]; `known` gives values of
    expressions that need not be computed. `noise` is the standard deviation of the instance noise on every image that D
    sees: a variable that occurs in several tuples has the same noise in each, which does not change any expectation. An
    augmentation is drawn once for each position in the batch, so that all images of a tuple, real and generated, get
    the same one.

    Returns:
        The update's statistics, tensors on the device: `loss_d`, `loss_g`, `probs` (n, n: row = true class, column =
        named class), and where they apply `penalty` and `r1`, the terms added to the losses.
    """
    variant, d = game.variant, game.discriminator
    d_loss, g_loss = OBJECTIVES[rules.objective]

    # The chains: the variables of D, and for a full update both sides of each penalty.
    with torch.set_grad_enabled(not d_only), rules.autocast():
        values = evaluate_expressions(game, x, generator, variant.variables if d_only else variant.expressions, known)

    # D's view of the variables: augmented, detached from the chains, with instance noise; and its logits l (n, B, n).
    variables = {e: values[e] for e in variant.variables}
    if rules.augment:
        augment = augmentation.draw(rules.augment, len(x), x.shape[-1], generator, x.device)
        with torch.set_grad_enabled(not d_only):
            variables = {e: augment(value) if e.kind == "image" else value for e, value in variables.items()}
    leaves: dict[Expr, Tensor] = {}
    for e, value in variables.items():
        leaf = value.detach()
        if noise and e.kind == "image":
            leaf = leaf + noise * torch.randn(leaf.shape, generator=generator, device=leaf.device, dtype=leaf.dtype)
        leaves[e] = leaf.requires_grad_(e.learned and not d_only)
    with rules.autocast():
        logits = as_float32(d(leaves))
    detached_logits = logits.detach().requires_grad_()

    # D's loss L_D: dL_D/dl, and from there to D's weights.
    loss_d = d_loss(detached_logits)
    (dloss_d,) = torch.autograd.grad(rules.scale(loss_d), detached_logits)
    weights = list(d.parameters())
    for p, g in zip(weights, torch.autograd.grad(logits, weights, dloss_d, retain_graph=not d_only), strict=True):
        p.grad = g
    with torch.no_grad():
        statistics = {"loss_d": loss_d.detach(), "probs": detached_logits.softmax(-1).mean(1)}

    # D's gradient penalty (R1 + R2), added to the gradients of D's weights.
    if rules.r1_gamma:
        statistics["r1"] = add_gradient_penalty(
            *(d, leaves, rules.r1_gamma * MULTIPLES.get(rules.objective, 1.0), generator),
            on=rules.r1_on,
            features=rules.r1_features,
            autocast=rules.autocast,
            scale=rules.scale,
        )
    if d_only:
        return statistics

    # The loss of G and E, L_G: dL_G/dl, and from there to the leaves whose values E or G made.
    loss_g = g_loss(detached_logits)
    (dloss_g,) = torch.autograd.grad(rules.scale(loss_g), detached_logits)
    learned = [e for e in variant.variables if e.learned]
    leaf_gradients = torch.autograd.grad(logits, [leaves[e] for e in learned], dloss_g)
    statistics["loss_g"] = loss_g.detach()

    # Backward through the chains, from D's variables and from the variant's penalties, into E and G.
    for name, net in game.trained().items():
        if name != "D":
            net.zero_grad(set_to_none=True)
    roots = [variables[e] for e in learned]
    gradients = list(leaf_gradients)
    if variant.penalized:
        terms = [
            p.weight * _DISTANCES[p.distance](as_float32(values[left]), as_float32(values[right]))
            for p, left, right in variant.penalized
        ]
        penalty = rules.penalty_weight * torch.stack(terms).sum()
        roots.append(rules.scale(penalty))
        gradients.append(torch.ones_like(roots[-1]))
        statistics["penalty"] = penalty.detach()
    torch.autograd.backward(roots, gradients)
    return statistics


_DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss, **VIEW_LOSSES}


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch without updating its running statistics."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
