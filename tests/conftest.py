"""Fixtures for all tests: the command as a user gets it."""

import signal
from collections.abc import Callable
from importlib.metadata import entry_points

import pytest
from click.testing import CliRunner, Result

# A shell ignores SIGINT in what it runs in the background, and children inherit that; programs under test must be interruptible.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Run `galirep ARG ...` in this process: exit_code, stdout, stderr."""
    (point,) = entry_points(group="console_scripts", name="galirep")
    group = point.load()

    def run(*args: object) -> Result:
        return CliRunner().invoke(group, [str(a) for a in args], prog_name="galirep")

    return run
