"""Paths between two latents."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_PARALLEL = 1e-6  # sine of an angle below which two directions count as one, or as opposite


def linear_path(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return (1 - t) a + t b: latents (..., d), t (...) in [0, 1], broadcast; the ends are exactly a and b."""
    t = t.unsqueeze(-1)
    return (1 - t) * a + t * b


def spherical_path(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return the spherical interpolation of a and b (Shoemake 1985, section 3.3; White 2016), like `linear_path`.

    It is sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, w the angle between a and b. Where a and b have one norm, all
    points have it. Parallel and opposite latents, and 0, have no such arc: theirs is the linear path.
    """
    cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp(min=torch.finfo(a.dtype).tiny)
    angle = cosine.clamp(-1, 1).arccos()
    sine = angle.sin()
    curved = (torch.sin((1 - t) * angle) / sine).unsqueeze(-1) * a + (torch.sin(t * angle) / sine).unsqueeze(-1) * b
    straight = (sine < _PARALLEL) | (a.norm(dim=-1) == 0) | (b.norm(dim=-1) == 0)
    return torch.where(straight.unsqueeze(-1), linear_path(a, b, t), curved)


PATHS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"linear": linear_path, "spherical": spherical_path}
"""Kind of path -> function of both ends and t."""


def walk(path: str, a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Return `steps` latents from a to b, evenly spaced in t, both ends included: (N, d), (N, d) -> (N, steps, d)."""
    t = torch.linspace(0, 1, steps, dtype=torch.float64)
    points = PATHS[path](a.double().cpu()[:, None], b.double().cpu()[:, None], t)
    return points.to(a.dtype)
