"""`timm:NAME[,size=N][@WEIGHTS]`: a timm model with pooled features as an extractor."""

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

from .weights import match_by_order, mismatches, read_weights

_log = logging.getLogger(__name__)
_create: Callable[..., Any] = timm.create_model
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def build(argument: str, *, download: bool = False) -> NetworkExtractor:
    """Build `timm:NAME[,size=N][@WEIGHTS]`: the pooled features of a timm model.

    Other layers are the names of its modules.
    WEIGHTS is a .safetensors, .pth, .pt or .bin file with the state dict of that model, with or without its
    classification head; without it the weights that timm names are taken from the local cache, or downloaded if
    `download` is true. Image size, interpolation, mean and standard deviation are those of the model's pretrained
    configuration; `size=N` sets another image size. Nothing is cropped.

    Raises:
        PluginError: the model is unknown, its weights are missing or do not fit, or it cannot take the size.
    """
    model_spec, _, weights = argument.partition("@")
    match = re.fullmatch(r"([^,]+)(?:,size=([1-9]\d{0,3}))?", model_spec)
    if not match:
        raise PluginError(
            f"timm:{argument}: write timm:NAME[,size=N][@WEIGHTS], as in timm:resnet18@resnet18.safetensors"
        )
    name, size = match[1], int(match[2] or 0)
    config = _pretrained_config(name)
    path = Path(weights) if weights else _timm_weights(name, config, download)
    model = _load(name, config, path, size)
    data_config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    channels, height, width = data_config["input_size"]
    if height != width or channels not in (1, 3):
        raise PluginError(
            f"timm:{name} takes images {channels}x{height}x{width}: only square ones of 1 or 3 channels are supported"
        )
    return NetworkExtractor(
        model,
        name=name.partition(".")[0],
        tag=path.name if weights else config.get("tag") or "",
        sha256=sha256_file(path),
        image_size=size or height,
        channels=channels,
        mean=data_config["mean"],
        std=data_config["std"],
        interpolation="bilinear" if data_config["interpolation"] == "bilinear" else "bicubic",
        channels_last=str(getattr(model, "output_fmt", "NCHW")) == "NHWC",
    )


def _pretrained_config(name: str) -> dict[str, Any]:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f": did you mean {near[0]!r}?" if near else "; timm.list_models() lists them"
        raise PluginError(f"timm has no model {name!r}{hint}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        available = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "no weights"
        raise PluginError(f"timm has no weights {name!r}; for {architecture} it has {available}") from None
    return dict(vars(config)) if config else {}


def _timm_weights(name: str, config: dict[str, Any], download: bool) -> Path:
    """Return the file that timm would load: from the local caches, or downloaded if `download` is true."""
    hint = f"give a weight file, timm:{name}@FILE (.safetensors or .pth)"
    hub, url = config.get("hf_hub_id"), config.get("url")
    try:
        if hub:
            for file in [config["hf_hub_filename"]] if config.get("hf_hub_filename") else _HUB_FILES:
                # raised for a file that is not in the cache, too
                with contextlib.suppress(EntryNotFoundError):
                    return Path(hf_hub_download(hub, file, local_files_only=not download))
        elif url:
            path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
            if download and not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), progress=False)
            if path.is_file():
                return path
        else:
            raise PluginError(f"timm has no weights of {name}: {hint}")
    except PluginError:
        raise
    # the client of the hub raises errors of several libraries
    except Exception as err:
        raise PluginError(f"the weights of timm's {name} cannot be downloaded ({type(err).__name__}): {hint}") from err
    raise PluginError(
        f"the weights of timm's {name} are not on this machine: {hint}, or allow the download with --download"
    )


def _load(name: str, config: dict[str, Any], path: Path, size: int) -> Any:
    """Return the model without its classification head, with all its tensors from the file.

    The head is removed at the end. Until then it is as wide as the one in the file, so that timm can load the file
    strictly, whatever number of classes it was trained for.
    """
    state = read_weights(path)
    head = config.get("classifier") or ""
    head = head if isinstance(head, str) else head[0]
    head_in_state = f"{head}.weight" in state
    widths = [state[f"{head}.weight"].shape[0]] if head_in_state else [config.get("num_classes", 1000), 0]
    size_option = {"img_size": size} if size and config.get("fixed_input_size") else {}
    errors = []
    for width in widths:
        overlay = {"state_dict": dict(state), "num_classes": width, "label_offset": 0}
        try:
            model = _create(name, pretrained=True, num_classes=width, pretrained_cfg_overlay=overlay, **size_option)
        except (RuntimeError, KeyError, AttributeError, IndexError, TypeError, ValueError, AssertionError) as err:
            errors.append(err)
            continue
        model.reset_classifier(0)
        return model
    # in a file with other names the head cannot be identified, but it is usually the last tensor
    if not head_in_state:
        widths += list(state.values())[-1].shape[:1]
    for width in widths:
        model = _create_untrained(name, width, size_option)
        renamed = match_by_order(state, model.state_dict())
        if renamed is not None:
            _log.warning(
                "%s has other names for its %d tensors than timm's %s: they were matched by order and shape",
                path,
                len(state),
                name,
            )
            model.load_state_dict(renamed)
            model.reset_classifier(0)
            return model
    problem = mismatches(state, model.state_dict()) or str(errors[0])
    raise PluginError(f"{path} does not fit timm's {name}: {problem}") from errors[0]


def _create_untrained(name: str, classes: int, size_option: dict[str, int]) -> Any:
    try:
        return _create(name, pretrained=False, num_classes=classes, **size_option)
    # the model is timm's own, so any error here is about the size
    except Exception as err:
        raise PluginError(
            f"timm's {name} cannot take {size_option.get('img_size', 'its own')} pixels: {type(err).__name__}: {err}"
        ) from err
