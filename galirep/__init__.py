"""galirep: train GALI encoders, embed image sets, probe and search the embeddings. Importing it does not import torch."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("galirep")

# public name -> module that defines it; imported on first use, so that `import galirep` stays quick and free of torch
_HOME = {
    "TrainConfig": "galirep.config",
    "Variant": "galirep.variant",
    "get_variant": "galirep.variants",
    "train": "galirep.training",
    "load_encoder": "galirep.transformer",
    "open_data": "galirep.data",
    "embed": "galirep.embedding",
    "load_embeddings": "galirep.store",
    "probe": "galirep.probing",
    "build_index": "galirep.retrieval",
    "retrieve": "galirep.retrieval",
}
__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from galirep.config import TrainConfig as TrainConfig
    from galirep.data import open_data as open_data
    from galirep.embedding import embed as embed
    from galirep.probing import probe as probe
    from galirep.retrieval import build_index as build_index
    from galirep.retrieval import retrieve as retrieve
    from galirep.store import load_embeddings as load_embeddings
    from galirep.training import train as train
    from galirep.transformer import load_encoder as load_encoder
    from galirep.variant import Variant as Variant
    from galirep.variants import get_variant as get_variant


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'galirep' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
