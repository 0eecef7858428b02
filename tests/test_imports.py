"""The layers of the tree: who may import whom, read from the syntax trees; and what loads no torch, seen in fresh interpreters."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module of galirep imports only modules of lower levels. A new module goes to the lowest level that works.
LEVELS = (
    {"errors", "presets"},
    {
        *("files", "config", "devices", "signals", "batches"),
        *("expr", "masks", "augment", "losses", "network_parts", "classifier_nets", "frozen"),
        *("images", "schema", "distances", "ranking", "neighbors", "watch", "faiss_library", "svm", "projection"),
    },
    {
        *("variant", "chains", "paper_nets", "compact_nets", "resnet_nets"),
        *("checkpoint", "runlog", "summary", "features", "pixels", "sources", "writer", "search"),
    },
    {
        *("networks", "variants", "discriminator", "exports", "feature_cache"),
        *("arrays", "decode", "folders", "torchvision_sets", "store", "curation", "thumbnails", "evaluation"),
    },
    {"step", "encoder", "classifier", "data", "labelled", "index_file", "vectors", "interchange", "merge", "results"},
    {
        *("optimization", "knowledge", "classifier_labels", "pipeline"),
        *("protocols", "gallery", "index_build", "pictures", "transformer", "inspection"),
    },
    {"session", "held_out", "classifier_task", "extraction", "probing"},
    {"preparation"},
    {"training", "classifier_training", "embedding", "verify", "queries"},
    {"report"},
    {"retrieval"},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
TORCH_FREE = {"errors", "presets", "config", "files", "watch", "expr", "variant", "schema", "writer", "store"}
TORCH = {"torch", "torchvision", "timm"}
OUTER = {"click", "cli", "pretrained_adapters", "benchmarks", "tests"}  # what the library must never know of
ADAPTERS_MAY = {"features", "errors", "files"}


@dataclass(frozen=True)
class Import:
    """One imported module: its absolute dotted name, where it stands, and whether only type checkers see it."""

    target: str
    line: int
    typing_only: bool


def _imports(path: Path, package: str) -> list[Import]:
    """Every import of a file, also inside functions and by `import_module("...")`; relative ones made absolute in `package`."""

    def visit(node: ast.AST, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module]))
            yield from (Import(f"{base}.{alias.name}", node.lineno, typing_only) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__"):
            if isinstance(node.args[0], ast.Constant):
                yield Import(str(node.args[0].value), node.lineno, typing_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, True)
            for child in node.orelse:
                yield from visit(child, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, typing_only)

    return list(visit(ast.parse(path.read_text(encoding="utf-8")), False))


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).glob("*.py"))


def _module(target: str) -> str | None:
    """`galirep.expr.parse` -> `expr`; None for what is no module of galirep (`galirep.__version__`, other packages)."""
    parts = target.split(".")
    return parts[1] if parts[0] == "galirep" and len(parts) > 1 and (ROOT / "galirep" / f"{parts[1]}.py").is_file() else None


def _where(path: Path, found: Import) -> str:
    return f"{path.relative_to(ROOT)}:{found.line} imports {found.target}"


MODULES = [path for path in _files("galirep") if path.stem != "__init__"]


def test_every_module_has_a_level():
    modules = {path.stem for path in MODULES}
    missing, gone = modules - LEVEL.keys(), LEVEL.keys() - modules
    assert not missing, f"add {sorted(missing)} to LEVELS in {Path(__file__).name}, at the lowest level that works"
    assert not gone, f"{sorted(gone)} in LEVELS of {Path(__file__).name} are no modules"
    assert sum(map(len, LEVELS)) == len(LEVEL), "a module has one level"
    assert LEVEL.keys() >= TORCH_FREE


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_lower_levels(path):
    own = LEVEL[path.stem]
    for found in _imports(path, "galirep"):
        if (name := _module(found.target)) is not None:
            assert LEVEL[name] < own, f"{_where(path, found)}, of level {LEVEL[name]}; {path.stem} has level {own}"


@pytest.mark.parametrize("path", _files("galirep"), ids=lambda path: path.stem)
def test_the_library_knows_no_command_adapter_or_benchmark(path):
    for found in _imports(path, "galirep"):
        parts = found.target.split(".")
        assert parts[0] not in OUTER and parts[:2] not in (["galirep", "cli"], ["galirep", "pretrained_adapters"]), _where(path, found)


def test_the_package_itself_imports_no_module_of_its_own():
    for found in _imports(ROOT / "galirep" / "__init__.py", "galirep"):
        assert found.typing_only or _module(found.target) is None, _where(ROOT / "galirep" / "__init__.py", found)


@pytest.mark.parametrize("name", sorted(TORCH_FREE))
def test_torch_free_modules_reach_no_torch(name):
    path = ROOT / "galirep" / f"{name}.py"
    for found in _imports(path, "galirep"):
        if not found.typing_only:
            assert found.target.split(".")[0] not in TORCH | {"safetensors"}, _where(path, found)
            assert _module(found.target) in TORCH_FREE | {None}, f"{_where(path, found)}, which is not free of torch"


@pytest.mark.parametrize("path", _files("cli"), ids=lambda path: path.stem)
def test_commands_import_only_the_library(path):
    for found in _imports(path, "galirep.cli"):
        parts = found.target.split(".")
        assert parts[0] not in OUTER - {"click"} and parts[:2] != ["galirep", "pretrained_adapters"], _where(path, found)


@pytest.mark.parametrize("path", _files("pretrained_adapters"), ids=lambda path: path.stem)
def test_adapters_stand_on_the_extractor_protocol(path):
    for found in _imports(path, "galirep.pretrained_adapters"):
        parts = found.target.split(".")
        assert parts[0] not in OUTER and parts[:2] != ["galirep", "cli"], _where(path, found)
        assert _module(found.target) in ADAPTERS_MAY | {None}, f"{_where(path, found)}; adapters may import {sorted(ADAPTERS_MAY)}"


@pytest.mark.parametrize("path", _files("benchmarks"), ids=lambda path: path.stem)
def test_benchmarks_use_public_names(path):
    for found in _imports(path, "benchmarks"):
        parts = found.target.split(".")
        assert parts[:2] not in (["galirep", "cli"], ["galirep", "pretrained_adapters"]), _where(path, found)
        assert parts[0] not in {"cli", "pretrained_adapters", "tests"}, _where(path, found)
        assert parts[0] != "galirep" or not any(part.startswith("_") and not part.endswith("__") for part in parts), _where(path, found)


def _loaded_after(code: str, folder: Path) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `code`; it starts in `folder`, away from the source folder."""
    script = f"{code}\nimport sys\nprint('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_torch_free_modules_load_no_torch(tmp_path):
    loaded = _loaded_after("".join(f"import galirep.{name}\n" for name in sorted(TORCH_FREE)), tmp_path)
    assert "galirep" in loaded and not loaded & TORCH


def test_import_and_help_load_nothing_heavy(tmp_path):
    (point,) = entry_points(group="console_scripts", name="galirep")
    module, _, name = point.value.partition(":")
    group = f"import galirep, {module}\ngroup = {module}.{name}\n"
    heavy = TORCH | {"numpy", "h5py", "sklearn", "faiss", "PIL", "scipy", "safetensors"}
    assert not _loaded_after("import galirep", tmp_path) & (heavy | {"click"})
    loaded = _loaded_after(group + "group(['--help'], standalone_mode=False)", tmp_path)
    assert "click" in loaded and not loaded & heavy
    loaded = _loaded_after(group + "for name in group.list_commands(None): assert group.get_command(None, name)", tmp_path)
    assert not loaded & heavy, "`galirep COMMAND --help` must not wait for these: import them inside the command's function"
