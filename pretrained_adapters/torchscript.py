"""`torchscript:FILE[,size=N][,channels=C]`: a network saved by torch.jit, for those who have no Python code of it."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from galirep.errors import PluginError
from galirep.features.network import NetworkExtractor
from galirep.system.files import sha256_file


class TorchScript(NetworkExtractor):
    """A scripted network."""

    def with_layers(self, layers: Sequence[str]) -> NetworkExtractor:
        """Only the output can be had: hooks do not reach inside.

        Raises:
            PluginError: another layer is named.
        """
        if tuple(layers) != tuple(self.layers):
            raise PluginError(
                f"{self.name} is TorchScript, whose inner layers cannot be reached: name no layers, not {', '.join(layers)}"
            )
        return self


def build(argument: str, *, download: bool = False) -> NetworkExtractor:  # noqa: ARG001 (nothing to download)
    """`torchscript:FILE[,size=N][,channels=C]`: a network saved by torch.jit that takes images in [-1, 1] and returns (B, d).

    Images are given as they are, or resized to (N, N) by `size=N`; with `channels=1` colour is reduced to luma, else grey images are
    replicated to 3 channels. A TorchScript file is a program: load only those you trust.

    Raises:
        PluginError: no such file, no TorchScript, or a network that cannot take such images.
    """
    match = re.fullmatch(r"(.+?)(?:,size=([1-9]\d{0,3}))?(?:,channels=([13]))?", argument)
    if not match:
        raise PluginError(f"torchscript:{argument}: write torchscript:FILE[,size=N][,channels=1]")
    path, size = Path(match[1]), int(match[2] or 0)
    if not path.is_file():
        raise PluginError(f"there is no TorchScript file {path}")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # torch would rather have torch.export; the files that people have are these
        warnings.simplefilter("ignore", FutureWarning)
        try:
            network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as err:
            raise PluginError(
                f"{path} is no readable TorchScript file: {str(err).strip().splitlines()[0].partition('. ')[0]}"
            ) from err
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
        hint = "" if size else f"; if it works at one size only, say which: torchscript:{path},size=N"
        raise PluginError(f"{err}{hint}") from err
