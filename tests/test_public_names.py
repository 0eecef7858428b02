"""The names that `import galirep` offers: what is in README and docs stays importable."""

import importlib
from importlib.metadata import entry_points

import pytest

import galirep

NAMES = {
    "__version__",
    *("TrainConfig", "train", "ClassifierConfig", "train_classifier", "Variant", "get_variant", "open_data"),
    *(
        "load_encoder",
        "load_generator",
        "load_run",
        "load_extractor",
        "embed",
        "load_embeddings",
        "EmbeddingWriter",
        "StoreMeta",
    ),
    *("merge", "verify", "export_embeddings", "import_embeddings", "export_run", "probe", "build_index", "retrieve"),
    *("sample", "reconstruct", "inpaint", "interpolate", "evaluate", "reproduce", "info", "report", "doctor"),
}
FEATURES = {
    *("FeatureExtractor", "FrozenExtractor", "NetworkExtractor", "Description", "describe", "check", "freeze"),
    *("require_gradient", "load_extractor", "installed", "owner", "GROUP", "sha256_file"),
}
# the function of a command, where it is called otherwise
FUNCTIONS = {"index": "build_index", "export": "export_embeddings"}


def test_exactly_these_names_are_public():
    assert set(galirep.__all__) == NAMES == set(dir(galirep))
    assert set(importlib.import_module("galirep.features").__all__) == FEATURES


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__"}))
def test_each_is_there_and_documented(name):
    thing = getattr(galirep, name)
    assert thing.__name__ == name and thing.__doc__ and not thing.__doc__.startswith(f"{name}(")


def test_each_command_has_its_function():
    (point,) = entry_points(group="console_scripts", name="galirep")
    for command in set(point.load().list_commands(None)) - {"list", "completion"}:
        name = FUNCTIONS.get(command, command.replace("-", "_"))
        assert callable(getattr(galirep, name)), command


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        galirep.trian  # noqa: B018
