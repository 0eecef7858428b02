"""Feature extractors: one protocol for M(.) in GALI-PT, `embed --encoder`, baselines and FID; one registry, open to other packages."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from galirep.errors import PluginError, unknown

GROUP = "galirep.features"


@runtime_checkable
class FeatureExtractor(Protocol):
    """Images to feature vectors.

    Called with (B, C, H, W) float32 in [-1, 1], it returns (B, dim) finite float32. It owns resizing (antialiased) and normalisation,
    is deterministic, in eval mode with frozen parameters, and lets gradients pass to its input (so: no `torch.no_grad` inside).
    An extractor that is an `nn.Module` is moved to the device it is used on; any other callable must follow its input's device.

    These attributes are read where they exist (see `describe`): `image_size` (the side it works at; larger images may be reduced to it
    before the call), `exact_size` (True: every image must be exactly `image_size`), `channels` (1 or 3, default 3),
    `layers` (name -> width, in the order of the columns), `with_layers(names)` (the same extractor giving other layers),
    `tag`, `sha256` (of its weights) and `preprocessing` (a JSON object).
    """

    name: str
    dim: int

    def __call__(self, images: Tensor, /) -> Tensor:
        """(B, C, H, W) float32 in [-1, 1] -> (B, dim) float32."""
        ...


@dataclass(frozen=True)
class Description:
    """What is recorded of an extractor wherever it is used: two features are comparable where `name`, `sha256`, `layers` and `preprocessing` agree."""

    spec: str
    name: str
    dim: int
    tag: str
    sha256: str
    image_size: int | None
    exact_size: bool
    channels: int
    layers: tuple[tuple[str, int], ...]
    preprocessing: Mapping[str, Any]


def describe(extractor: FeatureExtractor, spec: str = "") -> Description:
    """The extractor's identity, with defaults for what it does not say."""
    layers = getattr(extractor, "layers", None) or {"features": extractor.dim}
    return Description(
        spec=spec or getattr(extractor, "spec", "") or extractor.name,
        name=extractor.name,
        dim=extractor.dim,
        tag=getattr(extractor, "tag", ""),
        sha256=getattr(extractor, "sha256", ""),
        image_size=getattr(extractor, "image_size", None),
        exact_size=getattr(extractor, "exact_size", False),
        channels=getattr(extractor, "channels", 3),
        layers=tuple(layers.items()),
        preprocessing=dict(getattr(extractor, "preprocessing", {})),
    )


def installed() -> dict[str, list[EntryPoint]]:
    """Every registered adapter name with the entry points that claim it (more than one is a conflict)."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        claims = found.setdefault(point.name, [])
        if all(point.value != other.value for other in claims):  # an editable install may list its own twice
            claims.append(point)
    return found


def load_extractor(spec: str, *, layers: Sequence[str] | None = None, download: bool = False, device: str | torch.device = "cpu") -> FeatureExtractor:
    """Build the extractor that `spec` names and check it once on two images.

    `spec` is `NAME[:ARGUMENT]` of a registered adapter (`timm:resnet18@weights.pth`, `inception:weights.pth`, `run:runs/x`, `pixels`), a run
    directory, or `module:function` of a user without a package. `layers` chooses layers by name where the extractor has several.
    Nothing is downloaded unless `download` is true.

    Raises:
        PluginError: unknown name, two packages claim it, its library is missing, or what was built is no extractor.
    """
    factory, argument = _resolve(spec)
    try:
        built = factory(argument, download=download)
    except ImportError as err:
        raise PluginError(f"the extractor {spec!r} needs {err.name or 'a library'}, which is not installed: {err}") from err
    if layers is not None:
        if not hasattr(built, "with_layers"):
            raise PluginError(f"the extractor {spec!r} has one layer of features: leave --layers out")
        built = built.with_layers(tuple(layers))
    if isinstance(built, torch.nn.Module):
        built = built.to(device)
    return check(built, spec, device)


def _resolve(spec: str) -> tuple[Callable[..., Any], str]:
    found = installed()
    if spec not in found and Path(spec).is_dir():
        spec = f"run:{spec}"
    name, _, argument = spec.partition(":")
    if claims := found.get(name):
        if len(claims) > 1:
            owners = " and ".join(sorted(f"{p.dist.name if p.dist else '?'} ({p.value})" for p in claims))
            raise PluginError(f"the extractor name {name!r} is claimed by {owners}: uninstall one of them, or name the function: module:function")
        try:
            return claims[0].load(), argument
        except ImportError as err:
            raise PluginError(f"the extractor {name!r} of {claims[0].value} cannot be loaded: {err}") from err
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", spec):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as err:
            if err.name and name.split(".")[0] == err.name.split(".")[0]:
                raise PluginError(f"{unknown('extractor', name, found)}; and there is no module {name!r} to take {argument!r} from") from None
            raise PluginError(f"the module {name!r} of the extractor {spec!r} cannot be imported: {err}") from err
        factory = getattr(module, argument, None)
        if not callable(factory):
            raise PluginError(f"the module {name!r} has no function {argument!r} (extractor {spec!r})")
        return lambda _, download: factory(), ""
    raise PluginError(unknown("extractor", name, found) + "; or a run directory, or module:function")


def check(built: Any, spec: str, device: str | torch.device = "cpu") -> FeatureExtractor:
    """Probe an extractor with two images; the same object comes back.

    Raises:
        PluginError: it has no name or dim, or does not return (2, dim) finite float32.
    """
    if not callable(built) or not isinstance(getattr(built, "name", None), str) or not isinstance(getattr(built, "dim", None), int):
        raise PluginError(f"the extractor {spec!r} gave {type(built).__name__}, which is no extractor: it needs name (str), dim (int) and a call on images")
    about = describe(built, spec)
    side = about.image_size or 32
    with torch.no_grad():
        images = torch.linspace(-1, 1, 2 * about.channels * side * side, device=device).reshape(2, about.channels, side, side)
        try:
            out = built(images)
        except Exception as err:  # whatever a stranger's code raises, the user needs to hear whose code it was
            raise PluginError(f"the extractor {spec!r} fails on two {side}x{side} images: {type(err).__name__}: {err}") from err
    if not isinstance(out, Tensor) or tuple(out.shape) != (2, about.dim) or out.dtype != torch.float32 or not bool(out.isfinite().all()):
        got = f"{tuple(out.shape)} {out.dtype}" + ("" if bool(out.isfinite().all()) else " with NaN or infinity") if isinstance(out, Tensor) else type(out).__name__
        raise PluginError(f"the extractor {spec!r} must give (2, {about.dim}) finite float32 for two images, not {got}")
    if sum(width for _, width in about.layers) != about.dim:
        raise PluginError(f"the extractor {spec!r} has dim {about.dim}, but its layers {dict(about.layers)} have {sum(w for _, w in about.layers)} columns")
    return built  # type: ignore[no-any-return]
