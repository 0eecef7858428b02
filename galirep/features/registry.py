"""The registry of feature extractors: adapters by entry point, run directories, and a user's own `module:function`."""

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch

from galirep.errors import GalirepError, PluginError, unknown
from galirep.features.frozen import freeze
from galirep.features.preparation import prepare_extractor, select_layers
from galirep.features.protocol import FeatureExtractor
from galirep.networks.export_file import run_folder
from galirep.system.offline import offline

GROUP = "galirep.features"


def installed() -> dict[str, list[EntryPoint]]:
    """Return every registered adapter name with the entry points that claim it (more than one is a conflict)."""
    adapters: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        claims = adapters.setdefault(point.name, [])
        # an editable install may list its own entry points twice
        if all(point.value != other.value for other in claims):
            claims.append(point)
    return adapters


def owner(point: EntryPoint) -> str:
    """Return the package and function of an adapter: `galirep 0.1.0 (galirep.features.raw_pixels:build)`."""
    return f"{point.dist.name} {point.dist.version} ({point.value})" if point.dist else f"({point.value})"


def load_extractor(
    spec: str | Path,
    *,
    layers: Sequence[str] | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
    trust_encoder: bool = False,
) -> FeatureExtractor:
    """Build the extractor that `spec` names, frozen and in eval mode if it is a module, and check it on two images.

    `spec` is `NAME[:ARGUMENT]` of a registered adapter (`timm:resnet18@weights.pth`, `inception:weights.pth`,
    `run:runs/x`, `pixels`), a run directory, or a user's `module:function`. `layers` chooses layers by name where the
    extractor has several; so does `#LAYER[,LAYER...]` at the end of the spec. Nothing is downloaded unless `download`
    is true.

    `spec` itself may be code. What the files of a run name in turn, the body of its encoder, is not run as code unless
    `trust_encoder` is true (`require_no_code`).

    An adapter's function may have attributes. `names_key`: called with the text after the colon and the one name after
    `#`, it says whether that is no layer but belongs to the text, as the key of a file does (`timm:NAME@FILE#teacher`).
    `runs_code` (bool): what its text names is a program, so that no file may name it unasked. `takes_trust` (bool): it
    is called with `trust_encoder`, too, because it loads files that name encoders.

    The current folder is at the end of `sys.path` while this function runs, so that `module:function` is found there
    and what its module imports lazily in the function or in the first call on images is, too. An import that a later
    call makes for the first time finds modules of that folder only if the caller has it on `sys.path`.

    Raises:
        PluginError: the name is unknown or claimed by two packages, a library is missing, or what was built is not an
            extractor.
    """
    spec = str(spec)
    base, spec_layers = split_layers(spec)
    with _current_folder_importable(), offline(unless=download):
        factory, argument = _resolve(base)
        names_key = getattr(factory, "names_key", None)
        if names_key is not None and len(spec_layers) == 1 and names_key(argument, spec_layers[0]):
            base, argument, spec_layers = spec, f"{argument}#{spec_layers[0]}", ()
        if spec_layers and layers is not None:
            raise PluginError(
                f"the extractor {spec!r} already names its layers: "
                f"leave out #{','.join(spec_layers)} or the other list of layers"
            )
        try:
            options = {"trust_encoder": trust_encoder} if getattr(factory, "takes_trust", False) else {}
            extractor = factory(argument, download=download, **options)
            extractor = select_layers(extractor, (spec_layers or None) if layers is None else layers, base)
        except GalirepError:
            raise
        except ImportError as err:
            library = err.name or "a library"
            raise PluginError(f"the extractor {base!r} needs {library}, which is not installed: {err}") from err
        # code of the user or of another package may raise anything; the message says whose code it was
        except Exception as err:
            raise PluginError(f"the extractor {base!r} cannot be built: {type(err).__name__}: {err}") from err
        if isinstance(extractor, torch.nn.Module):
            freeze(extractor)
        return prepare_extractor(extractor, spec, device)


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Put the current folder at the end of `sys.path`, where an installed command does not have it, for a while."""
    folder = str(Path.cwd())
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def split_layers(spec: str) -> tuple[str, tuple[str, ...]]:
    """Split `SPEC[#LAYER,...]` into the spec and the layers; a path that has a `#` itself stays whole."""
    base, mark, layers = spec.rpartition("#")
    if not mark or "/" in layers or Path(spec).exists():
        return spec, ()
    return base, tuple(layers.split(","))


def parse(spec: str) -> tuple[str, str]:
    """Return the name in a spec without layers, of an adapter or a module, and the text after the colon."""
    # a run directory may have the name of an adapter, even 'run'
    if spec and run_folder(spec).is_dir() and (spec not in installed() or Path(spec, "run.json").exists()):
        return "run", spec
    name, _, argument = spec.partition(":")
    return name, argument


def require_no_code(spec: str, *, trust_encoder: bool = False, by_hand: str = "") -> None:
    """Refuse a spec that a file names and that would run code, unless its user trusts the file.

    Code is the module of `module:function`, and what an adapter says is a program (`runs_code`: TorchScript, whose
    operations can write files). Whoever loads a file must not run what it names without wanting to. Adapters are
    installed, hence wanted; what they load is compared with the recorded hash by whoever records one. `by_hand` is the
    option that takes the spec by hand, for the message.

    Raises:
        PluginError: the spec is code, or the name of no adapter.
    """
    if trust_encoder:
        return
    name, _ = parse(split_layers(spec)[0])
    claims = installed().get(name)
    if not claims:
        what = "is code, or an adapter that is not installed,"
    elif getattr(_load_adapter(name, claims), "runs_code", False):
        what = "is a program"
    else:
        return
    ways = (
        f"{by_hand} {spec}, or --trust-encoder (trust_encoder=True),"
        if by_hand
        else "--trust-encoder (trust_encoder=True)"
    )
    raise PluginError(
        f"{spec!r} {what} and code that a file names is not run unasked: {ways} runs it, if you know who wrote the file"
    )


def _resolve(spec: str) -> tuple[Callable[..., Any], str]:
    """Return the function that builds the extractor, and the text after the colon of its spec."""
    adapters = installed()
    name, argument = parse(spec)
    if claims := adapters.get(name):
        return _load_adapter(name, claims), argument
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", spec):
        return _load_function(spec, name, argument, adapters), ""
    if re.search(r"[/\\]", spec):
        raise PluginError(f"{spec!r} does not exist: name a run directory, or an extractor ({', '.join(adapters)})")
    raise PluginError(unknown("extractor", name, adapters) + "; or a run directory, or module:function")


def _load_adapter(name: str, claims: Sequence[EntryPoint]) -> Callable[..., Any]:
    if len(claims) > 1:
        owners = " and ".join(sorted(owner(point) for point in claims))
        raise PluginError(
            f"the extractor name {name!r} is claimed by {owners}: "
            "uninstall one of them, or name the function: module:function"
        )
    try:
        factory: Callable[..., Any] = claims[0].load()
    except (ImportError, AttributeError) as err:
        raise PluginError(f"the extractor {name!r} of {owner(claims[0])} cannot be loaded: {err}") from err
    return factory


def _load_function(spec: str, module_name: str, function_name: str, adapter_names: Iterable[str]) -> Callable[..., Any]:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as err:
        if err.name and module_name.split(".")[0] == err.name.split(".")[0]:
            raise PluginError(
                f"{unknown('extractor', module_name, adapter_names)}; "
                f"the module {module_name!r} with the function {function_name!r} does not exist either"
            ) from None
        raise PluginError(f"the module {module_name!r} of the extractor {spec!r} cannot be imported: {err}") from err
    # the module is the user's own code and may raise anything
    except Exception as err:
        raise PluginError(
            f"the module {module_name!r} of the extractor {spec!r} cannot be imported: {type(err).__name__}: {err}"
        ) from err
    function = getattr(module, function_name, None)
    if not callable(function):
        raise PluginError(f"the module {module_name!r} has no function {function_name!r} (extractor {spec!r})")
    # a user's function takes no arguments
    return lambda _argument, download: function()  # noqa: ARG005
