"""What loads no torch, seen in fresh interpreters. import-linter checks which room imports which (`make lint`)."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

TORCH = {"torch", "torchvision", "timm"}
TORCH_FREE = (
    *(
        "errors",
        "version",
        "data.decoding",
        "data.catalog",
        "embeddings.schema",
        "embeddings.writer",
        "embeddings.reader",
    ),
    *("game.expression", "game.variant", "game.variants", "system.files", "system.settings"),
    *("runs.metrics", "supervised.config", "training.config", "training.presets", "training.watch"),
)


def _loaded_after(code: str, folder: Path) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after `code`, away from the source folder."""
    script = f"{code}\nimport sys\nprint('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_torch_free_modules_load_no_torch(tmp_path):
    loaded = _loaded_after("".join(f"import galirep.{name}\n" for name in TORCH_FREE), tmp_path)
    assert "galirep" in loaded and not loaded & TORCH


def test_import_and_help_load_nothing_heavy(tmp_path):
    (point,) = entry_points(group="console_scripts", name="galirep")
    module, _, name = point.value.partition(":")
    group = f"import galirep, {module}\ngroup = {module}.{name}\n"
    heavy = TORCH | {"numpy", "h5py", "sklearn", "faiss", "PIL", "scipy", "safetensors"}
    assert not _loaded_after("import galirep", tmp_path) & (heavy | {"click"})
    loaded = _loaded_after(group + "group(['--help'], standalone_mode=False)", tmp_path)
    assert "click" in loaded and not loaded & heavy
    loaded = _loaded_after(
        group + "for name in group.list_commands(None): assert group.get_command(None, name)", tmp_path
    )
    assert not loaded & heavy, (
        "`galirep COMMAND --help` must not wait for these: import them inside the command's function"
    )
