"""One adversarial update: both losses' gradients from one forward pass, and statistics. Which optimizer takes them is the caller's
business.

The paper's authors descend simultaneously: G and E get their gradient through the D of before its step. So one forward serves both losses:
the chains are evaluated once, D sees their values on detached leaves, dL_D/dl goes back to D's weights only and dL_G/dl to the leaves only,
and from there on into E and G. Nothing here waits for the device.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galirep.data.tensors import ImageFunction
from galirep.game import augmentation as augment
from galirep.game import masks
from galirep.game.chains import evaluate
from galirep.game.discriminator import Discriminator
from galirep.game.expression import Expr
from galirep.game.objectives import OBJECTIVES
from galirep.game.variant import Variant
from galirep.networks.parts import Encoder, Generator


@dataclass
class Game:
    """The players of a variant: E, G, D, and M where the variant names it (any callable: images in [-1, 1] -> features (B, d))."""

    variant: Variant
    encoder: Encoder
    generator: Generator
    discriminator: Discriminator
    extract: ImageFunction | None = None

    def players(self) -> dict[str, nn.Module]:
        """The trained networks by their letters."""
        return {"E": self.encoder, "G": self.generator, "D": self.discriminator}


@dataclass(frozen=True)
class Rules:
    """How an update is made: the objective, D's gradient penalty (0: none), the weight on the variant's penalties, and what augments D's
    images (of `augment.AUGMENTATIONS`).
    """

    objective: str = "product"
    penalty_weight: float = 1.0
    r1_gamma: float = 0.0
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    scale: Callable[[Tensor], Tensor] = field(default=lambda loss: loss)  # of a loss, for half precision
    augment: Sequence[str] = ()


def evaluate_expressions(
    game: Game, x: Tensor, generator: torch.Generator, exprs: Iterable[Expr], known: Mapping[Expr, Tensor] | None = None
) -> dict[Expr, Tensor]:
    """The values of `exprs` for real images x (B, C, S, S) and fresh z, masks and posterior samples; `known` gives values that need no
    computing.
    """
    batch, size, device = x.shape[0], x.shape[-1], x.device
    latent = game.encoder.latent
    leaves = {Expr("x"): x, Expr("z"): torch.randn(batch, latent, generator=generator, device=device)}
    leaves |= {Expr(name): masks.random_boxes(batch, size, generator, device) for name in game.variant.masks}

    def apply(e: Expr, args: tuple[Tensor, ...]) -> Tensor:
        match e.head:
            case "E":
                # E's running statistics are those of real images, masked or not: the stream that it embeds later.
                with frozen_statistics(game.encoder) if "G" in e.heads else nullcontext():
                    mu, log_sigma = game.encoder(args[0])
                noise = torch.randn(mu.shape, generator=generator, device=device, dtype=mu.dtype)
                return torch.addcmul(mu, log_sigma.exp(), noise)
            case "G":
                image: Tensor = game.generator(args[0])
                return image
            case "M":
                assert game.extract is not None
                return game.extract(_full(args[0]))
            case "Erase":
                return masks.erase(*args)
            case _:
                return masks.mix(*args)

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
    """Put the gradients of one update into `.grad` of D and, unless `d_only`, of E and G; give its statistics as tensors on the device.

    `x` are real images (B, C, S, S) in [-1, 1], `noise` the standard deviation of the instance noise on every image that D sees. A variable
    that stands in several tuples carries the same noise in each, which leaves every expectation as it is. An augmentation is drawn once for
    each place in the batch, so that all images of a tuple, real and generated, get the same one. Gradients are replaced, not added to.
    Statistics: `loss_d`, `loss_g`, `probs` (n, n: row = true class, column = named class), and where they apply `penalty` and `r1`, the
    terms added to the losses.
    """
    variant, d = game.variant, game.discriminator
    d_loss, g_loss = OBJECTIVES[rules.objective]
    with torch.set_grad_enabled(not d_only), rules.autocast():
        values = evaluate_expressions(game, x, generator, variant.variables if d_only else variant.expressions, known)
    seen = {e: values[e] for e in variant.variables}
    if rules.augment:
        augmented = augment.draw(rules.augment, len(x), x.shape[-1], generator, x.device)
        with torch.set_grad_enabled(not d_only):
            seen = {e: augmented(value) if e.kind == "image" else value for e, value in seen.items()}

    leaves: dict[Expr, Tensor] = {}
    for e in variant.variables:
        leaf = seen[e].detach()
        if noise and e.kind == "image":
            leaf = leaf + noise * torch.randn(leaf.shape, generator=generator, device=leaf.device, dtype=leaf.dtype)
        leaves[e] = leaf.requires_grad_(e.learned and not d_only)
    with rules.autocast():
        logits = _full(d(leaves))

    scores = logits.detach().requires_grad_()
    loss_d = d_loss(scores)
    (to_d,) = torch.autograd.grad(rules.scale(loss_d), scores)
    weights = list(d.parameters())
    for p, g in zip(weights, torch.autograd.grad(logits, weights, to_d, retain_graph=not d_only), strict=True):
        p.grad = g
    with torch.no_grad():
        statistics = {"loss_d": loss_d.detach(), "probs": scores.softmax(-1).mean(1)}
    if rules.r1_gamma:
        statistics["r1"] = _penalize_gradient(d, leaves, rules)
    if d_only:
        return statistics

    loss_g = g_loss(scores)
    (to_g,) = torch.autograd.grad(rules.scale(loss_g), scores)
    learned = [e for e in variant.variables if e.learned]
    onward = torch.autograd.grad(logits, [leaves[e] for e in learned], to_g)
    for net in (game.encoder, game.generator):
        net.zero_grad(set_to_none=True)
    roots, gradients = [seen[e] for e in learned], list(onward)
    statistics["loss_g"] = loss_g.detach()
    if variant.penalized:
        terms = [p.weight * _DISTANCES[p.distance](_full(values[a]), _full(values[b])) for p, a, b in variant.penalized]
        penalty = rules.penalty_weight * torch.stack(terms).sum()
        roots.append(rules.scale(penalty))
        gradients.append(torch.ones_like(roots[-1]))
        statistics["penalty"] = penalty.detach()
    torch.autograd.backward(roots, gradients)
    return statistics


def _full(value: Tensor) -> Tensor:
    """Float32 where autocast made it less."""
    return value if value.dtype == torch.float64 else value.float()


_DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}


def _penalize_gradient(d: Discriminator, leaves: Mapping[Expr, Tensor], rules: Rules) -> Tensor:
    """Add the gradient of a zero-centred penalty to D's `.grad`; give its value.

    gamma/n sum_y mean ||grad psi_y(t_y)||^2 over the images and latents of each class's own tuple, with psi_y = l_y - mean_{j != y} l_j.
    For n = 2 it is gamma/2 (R1 + R2) (Mescheder et al. 2018; Huang et al. 2024) of the difference of the logits. The tuples share no tensor
    here, so that each gradient is of one class.
    """
    rows = [[leaves[e].detach().clone().requires_grad_() for e in row] for row in d.variant.tuples]
    with rules.autocast():
        logits = _full(d.tuples(rows))
    n = len(rows)
    own = logits.diagonal(dim1=0, dim2=2).T  # (n, B)
    psi = own - (logits.sum(-1) - own) / (n - 1)
    inputs = [leaf for row in rows for leaf, kind in zip(row, d.variant.kinds, strict=True) if kind != "features"]
    gradients = torch.autograd.grad(psi.sum(), inputs, create_graph=True)
    penalty = rules.r1_gamma / n * torch.stack([_full(g).square().sum() / g.shape[0] for g in gradients]).sum()
    weights = list(d.parameters())
    for p, g in zip(weights, torch.autograd.grad(rules.scale(penalty), weights, allow_unused=True), strict=True):
        if g is not None and p.grad is not None:
            p.grad += g
    return penalty.detach()


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """BatchNorm normalises by the batch as always, but leaves its running statistics as they are."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for m in norms:
        m.track_running_stats = False
    try:
        yield
    finally:
        for m in norms:
            m.track_running_stats = True
