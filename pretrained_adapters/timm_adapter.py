"""`timm:NAME[,size=N][@WEIGHTS]`: any timm model that gives pooled features, with weights from a local file or from timm's own source."""

import contextlib
import difflib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from timm.data.config import resolve_model_data_config

from galirep.errors import PluginError
from galirep.features.network import NetworkExtractor
from galirep.system.files import sha256_file

from .weights import mismatches, read_weights, same_order

_log = logging.getLogger(__name__)
_create: Callable[..., Any] = timm.create_model
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def build(argument: str, *, download: bool = False) -> NetworkExtractor:
    """`timm:NAME[,size=N][@WEIGHTS]`: any timm model, pooled features at its own width; other layers by the names of its modules.

    WEIGHTS is a .safetensors, .pth, .pt or .bin file with the state dict of that model, with or without its classification head; without it
    the weights that timm names are taken from the local cache, or fetched if `download` is true. The image size, the resize, mean and
    standard deviation are those of the model's pretrained configuration; `size=N` chooses another image size. Nothing is cropped.

    Raises:
        PluginError: unknown model, weights that are missing or do not fit it, or a size that it cannot take.
    """
    model_spec, _, weights = argument.partition("@")
    match = re.fullmatch(r"([^,]+)(?:,size=([1-9]\d{0,3}))?", model_spec)
    if not match:
        raise PluginError(
            f"timm:{argument}: write timm:NAME[,size=N][@WEIGHTS], as in timm:resnet18@resnet18.safetensors"
        )
    name, size = match[1], int(match[2] or 0)
    config = _config(name)
    path = Path(weights) if weights else _own_weights(name, config, download)
    model = _load(name, config, path, size)
    own = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    channels, height, width = own["input_size"]
    if height != width or channels not in (1, 3):
        raise PluginError(
            f"timm:{name} takes images {channels}x{height}x{width}; only square ones of 1 or 3 channels can be given to it"
        )
    return NetworkExtractor(
        model,
        name=name.partition(".")[0],
        tag=path.name if weights else config.get("tag") or "",
        sha256=sha256_file(path),
        image_size=size or height,
        channels=channels,
        mean=own["mean"],
        std=own["std"],
        interpolation="bilinear" if own["interpolation"] == "bilinear" else "bicubic",
        channels_last=str(getattr(model, "output_fmt", "NCHW")) == "NHWC",
    )


def _config(name: str) -> dict[str, Any]:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        raise PluginError(
            f"timm has no model {name!r}"
            + (f": did you mean {near[0]!r}?" if near else "; timm.list_models() lists them")
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        known = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise PluginError(f"timm knows no weights {name!r}; of {architecture} it knows {known or 'none'}") from None
    return dict(vars(config)) if config else {}


def _own_weights(name: str, config: dict[str, Any], download: bool) -> Path:
    """The file that timm would load: from the local caches, or from its source if `download` is true."""
    ask = f"give a weight file, timm:{name}@FILE (.safetensors or .pth)"
    hub, url = config.get("hf_hub_id"), config.get("url")
    try:
        if hub:
            for file in [config["hf_hub_filename"]] if config.get("hf_hub_filename") else _HUB_FILES:
                with contextlib.suppress(EntryNotFoundError):  # also what a file that is not in the cache raises
                    return Path(hf_hub_download(hub, file, local_files_only=not download))
        elif url:
            path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
            if download and not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), progress=False)
            if path.is_file():
                return path
        else:
            raise PluginError(f"timm has no weights of {name}: {ask}")
    except PluginError:
        raise
    except Exception as err:  # the hub's client raises errors of several libraries
        raise PluginError(f"the weights of timm's {name} cannot be fetched ({type(err).__name__}): {ask}") from err
    raise PluginError(
        f"the weights of timm's {name} are not on this machine: {ask}, or allow the download with --download"
    )


def _load(name: str, config: dict[str, Any], path: Path, size: int) -> Any:
    """The model without its classification head, every tensor of it from the file."""
    state = read_weights(path)
    head = config.get("classifier") or ""
    head = head if isinstance(head, str) else head[0]
    classes = config.get("num_classes", 1000)
    # the head is dropped in the end; it is built as wide as the file's so that timm loads strictly, whatever the file was tuned for
    known = f"{head}.weight" in state
    widths = [state[f"{head}.weight"].shape[0]] if known else [classes, 0]
    shape = {"img_size": size} if size and config.get("fixed_input_size") else {}
    refusals = []
    for width in widths:
        overlay = {"state_dict": dict(state), "num_classes": width, "label_offset": 0}
        try:
            model = _create(name, pretrained=True, num_classes=width, pretrained_cfg_overlay=overlay, **shape)
        except (RuntimeError, KeyError, AttributeError, IndexError, TypeError, ValueError, AssertionError) as err:
            refusals.append(err)
            continue
        model.reset_classifier(0)
        return model
    if not known:  # under other names the head cannot be told, but it usually stands last
        widths += list(state.values())[-1].shape[:1]
    for width in widths:
        model = _untrained(name, width, shape)
        if (renamed := same_order(state, model.state_dict())) is not None:
            _log.warning(
                "%s names its %d tensors otherwise than timm's %s: they were matched by order and shape",
                path,
                len(state),
                name,
            )
            model.load_state_dict(renamed)
            model.reset_classifier(0)
            return model
    problem = mismatches(state, model.state_dict()) or str(refusals[0])
    raise PluginError(f"{path} does not fit timm's {name}: {problem}") from refusals[0]


def _untrained(name: str, classes: int, shape: dict[str, int]) -> Any:
    try:
        return _create(name, pretrained=False, num_classes=classes, **shape)
    except Exception as err:  # any error here is about the size: the model is timm's own
        raise PluginError(
            f"timm's {name} cannot take {shape.get('img_size', 'its own')} pixels: {type(err).__name__}: {err}"
        ) from err
