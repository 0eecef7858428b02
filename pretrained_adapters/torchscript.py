"""`torchscript:FILE[,size=N][,channels=C]`: a network saved by torch.jit as an extractor, without its code."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from galirep.errors import PluginError
from galirep.features.network import NetworkExtractor
from galirep.system.files import sha256_file


class TorchScript(NetworkExtractor):
    """A scripted network, whose only layer is its output."""

    def with_layers(self, layers: Sequence[str]) -> NetworkExtractor:
        """Return this extractor if `layers` is the output alone: hooks do not reach inner layers.

        Raises:
            PluginError: another layer is named.
        """
        if tuple(layers) != tuple(self.layers):
            raise PluginError(
                f"{self.name} is TorchScript, whose inner layers cannot be reached: "
                f"name no layers, not {', '.join(layers)}"
            )
        return self


def build(argument: str, *, download: bool = False) -> NetworkExtractor:  # noqa: ARG001 (nothing to download)
    """Build `torchscript:FILE[,size=N][,channels=C]`: a network saved by torch.jit, from images in [-1, 1] to (B, d).

    Images keep their size, or are resized to (N, N) by `size=N`; with `channels=1` colour images are reduced to luma,
    otherwise grey images are replicated to 3 channels. A TorchScript file is a program: load only files that you trust.

    Raises:
        PluginError: the file does not exist or is not TorchScript, or the network cannot take such images.
    """
    match = re.fullmatch(r"(.+?)(?:,size=([1-9]\d{0,3}))?(?:,channels=([13]))?", argument)
    if not match:
        raise PluginError(f"torchscript:{argument}: write torchscript:FILE[,size=N][,channels=1]")
    path, size = Path(match[1]), int(match[2] or 0)
    if not path.is_file():
        raise PluginError(f"the TorchScript file {path} does not exist")
    with warnings.catch_warnings():
        # torch recommends torch.export instead, but existing files are TorchScript
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as err:
            reason = str(err).strip().splitlines()[0].partition(". ")[0]
            raise PluginError(f"{path} is not a readable TorchScript file: {reason}") from err
    try:
        return TorchScript(
            network,
            name=path.stem,
            tag=path.name,
            sha256=sha256_file(path),
            image_size=size or None,
            channels=int(match[3] or 3),
        )
    except PluginError as err:
        hint = "" if size else f"; if it works at one size only, name it: torchscript:{path},size=N"
        raise PluginError(f"{err}{hint}") from err


# its operations can map files for writing (aten::from_file)
build.__dict__["runs_code"] = True
