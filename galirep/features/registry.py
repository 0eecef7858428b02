"""Feature extractors: one protocol for M(.) in GALI-PT, `embed --encoder`, baselines and FID; one registry, open to other packages."""

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch

from galirep.errors import GalirepError, PluginError, unknown
from galirep.features.frozen import freeze
from galirep.features.protocol import FeatureExtractor, check

GROUP = "galirep.features"


def installed() -> dict[str, list[EntryPoint]]:
    """Every registered adapter name with the entry points that claim it (more than one is a conflict)."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        claims = found.setdefault(point.name, [])
        if all(point.value != other.value for other in claims):  # an editable install may list its own twice
            claims.append(point)
    return found


def owner(point: EntryPoint) -> str:
    """Where an adapter comes from: `galirep 0.1.0 (galirep.features.raw_pixels:build)`."""
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
        raise PluginError(
            f"the extractor {spec!r} names its layers already: leave #{','.join(chosen)} or the other list of layers out"
        )
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
        raise PluginError(
            f"the extractor {base!r} needs {err.name or 'a library'}, which is not installed: {err}"
        ) from err
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
    if (
        spec and Path(spec).is_dir() and (spec not in found or Path(spec, "run.json").exists())
    ):  # a run may be called 'run'
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
        raise PluginError(
            f"the module {module_name!r} of the extractor {spec!r} cannot be imported: {type(err).__name__}: {err}"
        ) from err
    factory = getattr(module, function_name, None)
    if not callable(factory):
        raise PluginError(f"the module {module_name!r} has no function {function_name!r} (extractor {spec!r})")
    return lambda _, download: factory()  # noqa: ARG005 (a user's function takes nothing)
