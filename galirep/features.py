"""Feature extractors: one protocol for M(.) in GALI-PT, `embed --encoder`, baselines and FID; one registry, open to other packages."""

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from galirep.errors import GalirepError, PluginError, unknown
from galirep.frozen import FrozenExtractor as FrozenExtractor
from galirep.frozen import NetworkExtractor as NetworkExtractor
from galirep.frozen import freeze

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
    """What is recorded of an extractor wherever it is used.

    Two features are comparable where `name`, `sha256`, `layers` and `preprocessing` agree.
    """

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


def owner(point: EntryPoint) -> str:
    """Where an adapter comes from: `galirep 0.1.0 (galirep.pixels:build)`."""
    return f"{point.dist.name} {point.dist.version} ({point.value})" if point.dist else f"({point.value})"


def load_extractor(
    spec: str, *, layers: Sequence[str] | None = None, download: bool = False, device: str | torch.device = "cpu"
) -> FeatureExtractor:
    """Build the extractor that `spec` names, frozen and in eval mode if it is a module, and check it once on two images.

    `spec` is `NAME[:ARGUMENT]` of a registered adapter (`timm:resnet18@weights.pth`, `inception:weights.pth`, `run:runs/x`, `pixels`), a
    run directory, or `module:function` of a user without a package (found in the current folder too). `layers` chooses layers by name where
    the extractor has several; so does `#LAYER[,LAYER...]` at the end of the spec. Nothing is downloaded unless `download` is true.

    Raises:
        PluginError: unknown name, two packages claim it, its library is missing, or what was built is no extractor.
    """
    base, chosen = _split_layers(spec)
    if chosen and layers is not None:
        raise PluginError(f"the extractor {spec!r} names its layers already: leave #{','.join(chosen)} or the other list of layers out")
    factory, argument = _resolve(base)
    try:
        built = factory(argument, download=download)
        if wanted := tuple(layers or chosen):
            if not hasattr(built, "with_layers"):
                raise PluginError(f"the extractor {base!r} has one layer of features: name no layers")
            built = built.with_layers(wanted)
    except GalirepError:
        raise
    except ImportError as err:
        raise PluginError(f"the extractor {base!r} needs {err.name or 'a library'}, which is not installed: {err}") from err
    except Exception as err:  # whatever a stranger's code raises, the user needs to hear whose code it was
        raise PluginError(f"the extractor {base!r} cannot be built: {type(err).__name__}: {err}") from err
    if isinstance(built, torch.nn.Module):
        built = freeze(built.to(device))
    return check(built, spec, device)


def _split_layers(spec: str) -> tuple[str, tuple[str, ...]]:
    base, mark, layers = spec.rpartition("#")
    if not mark or "/" in layers or Path(spec).exists():
        return spec, ()
    return base, tuple(layers.split(","))


def _resolve(spec: str) -> tuple[Callable[..., Any], str]:
    found = installed()
    if spec and Path(spec).is_dir() and (spec not in found or Path(spec, "run.json").exists()):  # a run may be called 'run'
        spec = f"run:{spec}"
    name, _, argument = spec.partition(":")
    if claims := found.get(name):
        if len(claims) > 1:
            owners = " and ".join(sorted(owner(point) for point in claims))
            raise PluginError(
                f"the extractor name {name!r} is claimed by {owners}: uninstall one of them, or name the function: module:function"
            )
        try:
            return claims[0].load(), argument
        except (ImportError, AttributeError) as err:
            raise PluginError(f"the extractor {name!r} of {owner(claims[0])} cannot be loaded: {err}") from err
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", spec):
        return _function(spec, name, argument, found), ""
    raise PluginError(unknown("extractor", name, found) + "; or a run directory, or module:function")


def _function(spec: str, module_name: str, function_name: str, known: Iterable[str]) -> Callable[..., Any]:
    if str(Path.cwd()) not in sys.path:  # an installed command does not look into the current folder by itself
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as err:
        if err.name and module_name.split(".")[0] == err.name.split(".")[0]:
            raise PluginError(
                f"{unknown('extractor', module_name, known)}; and there is no module {module_name!r} to take {function_name!r} from"
            ) from None
        raise PluginError(f"the module {module_name!r} of the extractor {spec!r} cannot be imported: {err}") from err
    except Exception as err:  # the module is the user's own code
        raise PluginError(f"the module {module_name!r} of the extractor {spec!r} cannot be imported: {type(err).__name__}: {err}") from err
    factory = getattr(module, function_name, None)
    if not callable(factory):
        raise PluginError(f"the module {module_name!r} has no function {function_name!r} (extractor {spec!r})")
    return lambda _, download: factory()  # noqa: ARG005 (a user's function takes nothing)


def check(built: Any, spec: str, device: str | torch.device = "cpu") -> FeatureExtractor:
    """Probe an extractor with two images; the same object comes back.

    Raises:
        PluginError: it has no name or dim, or does not return (2, dim) finite float32.
    """
    name, dim = getattr(built, "name", None), getattr(built, "dim", None)
    if not callable(built) or not isinstance(name, str) or not isinstance(dim, int):
        got = type(built).__name__
        raise PluginError(f"the extractor {spec!r} gave {got}, which is no extractor: it needs name (str), dim (int) and a call on images")
    about = describe(built, spec)
    side = about.image_size or 32
    images = torch.linspace(-1, 1, 2 * about.channels * side * side, device=device).reshape(2, about.channels, side, side)
    with torch.no_grad():
        try:
            out = built(images)
        except Exception as err:  # whatever a stranger's code raises, the user needs to hear whose code it was
            raise PluginError(f"the extractor {spec!r} fails on two {side}x{side} images: {type(err).__name__}: {err}") from err
    if problem := _problem(out, dim):
        raise PluginError(f"the extractor {spec!r} must give (2, {dim}) finite float32 for two images, not {problem}")
    if (columns := sum(width for _, width in about.layers)) != dim:
        raise PluginError(f"the extractor {spec!r} has dim {dim}, but its layers {dict(about.layers)} have {columns} columns")
    return built  # type: ignore[no-any-return]


def _problem(out: Any, dim: int) -> str:
    if not isinstance(out, Tensor):
        return type(out).__name__
    if tuple(out.shape) != (2, dim) or out.dtype != torch.float32:
        return f"{tuple(out.shape)} {str(out.dtype).removeprefix('torch.')}"
    return "" if bool(out.isfinite().all()) else "NaN or infinity"


def require_gradient(extractor: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Check that gradients pass through the extractor to `images` (two or more, (B, C, H, W) in [-1, 1]), as training with it needs.

    Raises:
        PluginError: they do not, as with a `torch.no_grad` inside.
    """
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        out = extractor(leaf)
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf, allow_unused=True) if out.requires_grad else (None,)
    if gradient is None or not bool(gradient.isfinite().all()) or not bool(gradient.any()):
        name = getattr(extractor, "name", type(extractor).__name__)
        raise PluginError(f"the extractor {name!r} lets no gradient pass to its input, so G could not learn from it as M(.)")
