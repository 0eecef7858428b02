"""The command line as a whole: help, suggestions, exit codes, one-line errors. Commands are tested by room."""

import signal
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

(POINT,) = entry_points(group="console_scripts", name="galirep")
COMMANDS = POINT.load().list_commands(None)
SHARED = {"--json", "--debug"}


def test_help_lists_every_command(cli):
    result = cli("--help")
    assert result.exit_code == 0
    assert COMMANDS and all(f"  {name} " in result.stdout for name in COMMANDS)


def test_version(cli):
    assert cli("--version").stdout.split() == ["galirep,", "version", version("galirep")]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example_and_the_shared_options(cli, name):
    result = cli(name, "--help")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count(f"galirep {name} ") >= 2, "the usage line is there, an example is not"
    assert all(option in result.stdout for option in SHARED)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_bad_usage_with_a_suggestion(cli, name):
    result = cli(name, "--jsn")
    assert result.exit_code == 2
    assert "No such option" in result.stderr and "--json" in result.stderr


@pytest.mark.parametrize(("written", "meant"), [("emebd", "embed"), ("probes", "probe"), ("retreive", "retrieve")])
def test_an_unknown_command_is_bad_usage_with_a_suggestion(cli, written, meant):
    result = cli(written)
    assert result.exit_code == 2
    assert f"unknown command '{written}': did you mean '{meant}'?" in result.stderr


def test_an_error_is_one_line_and_debug_adds_the_traceback(cli, tmp_path):
    missing = tmp_path / "missing.h5"
    result = cli("info", missing)
    assert result.exit_code == 1 and result.stdout == ""
    assert (
        result.stderr.startswith("galirep: error: ")
        and result.stderr.count("\n") == 1
        and str(missing) in result.stderr
    )
    result = cli("info", missing, "--debug")
    assert result.exit_code == 1 and "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("galirep: error: ")


def test_interruption_exits_with_130(tmp_path):
    """A real ^C while a user's extractor is being built, in a process of its own."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n\ndef build():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\n",
        encoding="utf-8",
    )
    arguments = ["embed", "--encoder", "slow:build", "--data", "sklearn:digits", "--out", "out.h5"]
    code = f"import sys\nsys.path.insert(0, '.')\nfrom {POINT.module} import {POINT.attr}\n{POINT.attr}({arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert done.stderr.splitlines()[-1] == "galirep: interrupted"
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".py" and path.name != "__pycache__"] == []


def test_the_installed_script_runs(tmp_path):
    script = Path(sys.executable).with_name("galirep")
    done = subprocess.run([script, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and version("galirep") in done.stdout
    done = subprocess.run([script, "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "unknown command 'nothing'" in done.stderr
