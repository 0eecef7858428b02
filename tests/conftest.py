"""Fixtures for all tests: the command as a user gets it, and real digits."""

import signal
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from toy_galleries import clusters, draw_pictures, write_embeddings

import galirep
from galirep.data.catalog import open_data
from galirep.data.memory import Images, load_images

pytest.register_assert_rewrite("tiny_runs")

# a shell ignores SIGINT in what it runs in the background, and children inherit that;
# programs under test must be interruptible
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Run `galirep ARG ...` in this process: exit_code, stdout, stderr."""
    (point,) = entry_points(group="console_scripts", name="galirep")
    group = point.load()

    def run(*args: object) -> Result:
        return CliRunner().invoke(group, [str(a) for a in args], prog_name="galirep")

    return run


@pytest.fixture(scope="session")
def digit_images() -> Images:
    """Load the training digits at 8 x 8."""
    return load_images(open_data("sklearn:digits"), 8, num_workers=0)


@pytest.fixture
def galleries(tmp_path: Path) -> tuple[Path, Path]:
    """Embedding files of 400 rows and of 60 queries, of four classes."""
    return write_embeddings(tmp_path / "gallery.h5", *clusters(400)), write_embeddings(
        tmp_path / "queries.h5", *clusters(60, seed=1)
    )


@pytest.fixture(scope="session")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of a gallery `train.h5` and queries `test.h5` with their pictures, embedded as 2 x 2 pixels."""
    folder = tmp_path_factory.mktemp("pictured")
    for name, n, seed in (("train", 60, 0), ("test", 30, 1)):
        draw_pictures(folder / name, n, seed)
        galirep.embed("pixels:2", str(folder / name), folder / f"{name}.h5", num_workers=0)
    return folder
