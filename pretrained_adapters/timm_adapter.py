"""`timm:NAME[,size=N][@WEIGHTS]`: a timm model with pooled features as an extractor."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from timm.data.config import resolve_model_data_config

from galirep.errors import PluginError, similar
from galirep.features.network import OUTPUT, NetworkExtractor
from galirep.system.files import sha256_file
from galirep.system.layer_names import split_layer

from .checkpoint import read_checkpoint
from .timm_loading import create_untrained, load_model, size_option_of

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def build(argument: str, *, download: bool = False) -> NetworkExtractor:
    """Build `timm:NAME[,size=N][@WEIGHTS[#KEY]]`: the pooled features of a timm model.

    Other layers are the names of its modules.
    WEIGHTS is a .safetensors, .pth, .pt, .ckpt or .bin file with the state dict of that model, with or without its
    classification head, at the top or under a key, with or without a prefix; KEY names the key or the prefix where
    several would do. Without WEIGHTS the weights that timm names are taken from the local cache, or downloaded if
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
    weights, key = _split_key(weights)
    path = Path(weights) if weights else _timm_weights(name, config, download)
    model = load_model(name, config, path, key, size)
    data_config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    channels, height, width = data_config["input_size"]
    if height != width or channels not in (1, 3):
        raise PluginError(
            f"timm:{name} takes images {channels}x{height}x{width}: only square ones of 1 or 3 channels are supported"
        )
    extractor = NetworkExtractor(
        model,
        name=name.partition(".")[0],
        tag=f"{path.name}#{key}".rstrip("#") if weights else config.get("tag") or "",
        sha256=sha256_file(path),
        image_size=size or height,
        channels=channels,
        mean=data_config["mean"],
        std=data_config["std"],
        interpolation="bilinear" if data_config["interpolation"] == "bilinear" else "bicubic",
        channels_last=str(getattr(model, "output_fmt", "NCHW")) == "NHWC",
    )
    # of a file of weights nothing is known
    extractor.origin = {} if weights else {"license": config.get("license")}
    return extractor


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """Return the known model that a misspelt name is nearest to, as a whole or as the beginning of a name."""
    beginnings = {"_".join(model.split("_")[:count]): model for model in reversed(known) for count in (1, 2, 3)}
    near = difflib.get_close_matches(name, [*known, *beginnings], n=1, cutoff=0.8)
    return [beginnings.get(near[0], near[0])] if near else difflib.get_close_matches(name, known, n=1)


def _names_key(argument: str, word: str) -> bool:
    """Return whether `word`, which follows `timm:argument#`, is a key of the weight file and no layer of the model.

    Raises:
        PluginError: it is neither, and the file has several keys.
    """
    model_spec, _, weights = argument.partition("@")
    weights, key = _split_key(weights)
    if not weights or key:
        return False
    try:
        checkpoint = read_checkpoint(Path(weights), mmap=True)
        is_key = checkpoint.under(word) is not None
        if not is_key and len(checkpoint.sets) == 1:
            return False
        name, _, size = model_spec.partition(",size=")
        config = _pretrained_config(name)
        model = create_untrained(name, 0, size_option_of(config, int(size or 0)), device="meta")
    # what is wrong will be told when the extractor is built
    except (PluginError, ValueError):
        return False
    layers = {OUTPUT, *(module for module, _ in model.named_modules() if module)}
    if split_layer(word)[0] in layers:
        return False
    if not is_key:
        hint = similar(word, {*layers, *checkpoint.sets})
        raise PluginError(
            f"timm:{argument}#{word}: {word!r} is neither a layer of {name} nor a key of {weights}{hint or ';'} "
            f"the file has {checkpoint.describe()}"
        )
    return True


build.__dict__["names_key"] = _names_key


def _split_key(weights: str) -> tuple[str, str]:
    """Split `FILE[#KEY]`; a file whose own name has a `#` is taken as it is."""
    path, mark, key = weights.rpartition("#")
    return (path, key) if mark and not Path(weights).exists() else (weights, "")


def _pretrained_config(name: str) -> dict[str, Any]:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = _nearest(name, timm.list_models())
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
                if download:
                    try:
                        return Path(hf_hub_download(hub, file))
                    except LocalEntryNotFoundError:
                        # no connection, as which it counts as well
                        raise
                    except EntryNotFoundError:
                        continue
                # hf_hub_download asks the hub for more than the file, even with local_files_only
                elif isinstance(cached := try_to_load_from_cache(hub, file), str):
                    return Path(cached)
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
