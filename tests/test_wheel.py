"""The wheel: what a user installs is the whole tree of the three packages, and nothing else."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# folder of the tree -> folder of the wheel
PACKAGES = {"galirep": "galirep", "cli": "galirep/cli", "pretrained_adapters": "galirep/pretrained_adapters"}

DATA = (".html", ".css", ".js", ".toml", "py.typed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the tree, as {name: text}."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (copy / "out").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode("utf-8") for name in archive.namelist()}


def _metadata(wheel, name):
    (text,) = (text for path, text in wheel.items() if path.endswith(f".dist-info/{name}"))
    return text


def test_wheel_holds_the_tree_and_nothing_else(wheel):
    tree = {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.name.endswith((".py", *DATA))
    }
    packed = {name for name in wheel if ".dist-info/" not in name}
    assert not tree - packed, "list the folder in pyproject.toml: [tool.setuptools] packages (or package-data)"
    assert packed == tree


def test_entry_points_lead_to_functions_of_the_wheel(wheel):
    points = configparser.ConfigParser(delimiters="=")
    points.read_string(_metadata(wheel, "entry_points.txt"))
    assert dict(points["console_scripts"]) == {"galirep": "galirep.cli:cli"}
    adapters = dict(points["galirep.features"])
    assert {"timm", "inception", "torchscript", "classifier", "run", "random", "pixels"} <= adapters.keys()
    for value in ["galirep.cli:cli", *adapters.values()]:
        module, _, function = value.partition(":")
        stem = module.replace(".", "/")
        text = wheel.get(f"{stem}.py") or wheel.get(f"{stem}/__init__.py")
        assert text is not None and f"def {function}(" in text, f"{value} is not in the wheel"


def test_metadata_names_licence_python_and_extras(wheel):
    metadata = message_from_string(_metadata(wheel, "METADATA"))
    assert (metadata["Name"], metadata["License-Expression"], metadata["Requires-Python"]) == (
        "galirep",
        "Apache-2.0",
        ">=3.10",
    )
    assert {"gpu", "cpu", "tensorboard", "parquet"} <= set(metadata.get_all("Provides-Extra"))
    assert "Apache License" in _metadata(wheel, "licenses/LICENSE")
