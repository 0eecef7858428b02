"""Feature extractors: the protocol and base classes for plug-ins, and the registry that finds them."""

from galirep.features.frozen import FrozenExtractor, freeze
from galirep.features.network import NetworkExtractor
from galirep.features.protocol import Description, FeatureExtractor, check, describe, require_gradient
from galirep.features.registry import GROUP, installed, load_extractor, owner
from galirep.system.files import sha256_file

__all__ = [
    "GROUP",
    "Description",
    "FeatureExtractor",
    "FrozenExtractor",
    "NetworkExtractor",
    "check",
    "describe",
    "freeze",
    "installed",
    "load_extractor",
    "owner",
    "require_gradient",
    "sha256_file",
]
