"""Train GALI encoders, embed image sets, probe and search the embeddings. Importing galirep does not import torch."""

import importlib
from typing import TYPE_CHECKING, Any

from galirep import errors as errors
from galirep.version import __version__

# public name -> module that defines it; imported on first use, so that `import galirep` stays quick and free of torch
_HOME = {
    "TrainConfig": "galirep.training.config",
    "train": "galirep.training.loop",
    "ClassifierConfig": "galirep.supervised.config",
    "train_classifier": "galirep.supervised.loop",
    "Variant": "galirep.game.variant",
    "get_variant": "galirep.game.variants",
    "open_data": "galirep.data.catalog",
    "load_encoder": "galirep.features.sklearn_transformer",
    "load_extractor": "galirep.features.registry",
    "load_generator": "galirep.evaluation.pictures.generator",
    "load_run": "galirep.inspection.opened_run",
    "embed": "galirep.embeddings.embed",
    "load_embeddings": "galirep.embeddings.reader",
    "EmbeddingWriter": "galirep.embeddings.writer",
    "StoreMeta": "galirep.embeddings.schema",
    "merge": "galirep.embeddings.merge",
    "verify": "galirep.inspection.verify",
    "export_embeddings": "galirep.embeddings.interchange.npy_parquet",
    "import_embeddings": "galirep.embeddings.interchange.npy_parquet",
    "export_run": "galirep.networks.saved",
    "probe": "galirep.probing.probe",
    "build_index": "galirep.search.index_build",
    "retrieve": "galirep.retrieval.retrieve",
    "sample": "galirep.evaluation.pictures.samples",
    "reconstruct": "galirep.evaluation.pictures.reconstruct",
    "inpaint": "galirep.evaluation.pictures.inpaint",
    "interpolate": "galirep.evaluation.pictures.interpolate",
    "evaluate": "galirep.evaluation.evaluate",
    "reproduce": "galirep.evaluation.reproduction.runner",
    "info": "galirep.inspection.paths",
    "report": "galirep.inspection.run_report",
    "doctor": "galirep.inspection.doctor",
}
__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from galirep.data.catalog import open_data as open_data
    from galirep.embeddings.embed import embed as embed
    from galirep.embeddings.interchange.npy_parquet import export_embeddings as export_embeddings
    from galirep.embeddings.interchange.npy_parquet import import_embeddings as import_embeddings
    from galirep.embeddings.merge import merge as merge
    from galirep.embeddings.reader import load_embeddings as load_embeddings
    from galirep.embeddings.schema import StoreMeta as StoreMeta
    from galirep.embeddings.writer import EmbeddingWriter as EmbeddingWriter
    from galirep.evaluation.evaluate import evaluate as evaluate
    from galirep.evaluation.pictures.generator import load_generator as load_generator
    from galirep.evaluation.pictures.inpaint import inpaint as inpaint
    from galirep.evaluation.pictures.interpolate import interpolate as interpolate
    from galirep.evaluation.pictures.reconstruct import reconstruct as reconstruct
    from galirep.evaluation.pictures.samples import sample as sample
    from galirep.evaluation.reproduction.runner import reproduce as reproduce
    from galirep.features.registry import load_extractor as load_extractor
    from galirep.features.sklearn_transformer import load_encoder as load_encoder
    from galirep.game.variant import Variant as Variant
    from galirep.game.variants import get_variant as get_variant
    from galirep.inspection.doctor import doctor as doctor
    from galirep.inspection.opened_run import load_run as load_run
    from galirep.inspection.paths import info as info
    from galirep.inspection.run_report import report as report
    from galirep.inspection.verify import verify as verify
    from galirep.networks.saved import export_run as export_run
    from galirep.probing.probe import probe as probe
    from galirep.retrieval.retrieve import retrieve as retrieve
    from galirep.search.index_build import build_index as build_index
    from galirep.supervised.config import ClassifierConfig as ClassifierConfig
    from galirep.supervised.loop import train_classifier as train_classifier
    from galirep.training.config import TrainConfig as TrainConfig
    from galirep.training.loop import train as train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'galirep' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
