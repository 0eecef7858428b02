"""Help of the commands with many options, and completion by the shell."""

import json
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
from galirep.cli.completion import FILES
from galirep.cli.train import train_command
from galirep.cli.train_classifier import train_classifier_command

COMMAND = Path(sysconfig.get_path("scripts"), "galirep")
COMMANDS = {"train": train_command, "train-classifier": train_classifier_command}


def groups_of(text):
    """Return title -> options of a help page."""
    found, title = {}, None
    for line in text.splitlines():
        if heading := re.fullmatch(r"([A-Z][\w ]+):", line):
            title = heading[1]
            found[title] = []
        elif title and (option := re.match(r"  (?:-\w, )?(--[\w-]+)", line)):
            found[title].append(option[1])
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_one_group(cli, name):
    groups = groups_of(cli(name, "--help").stdout)
    listed = [option for options in groups.values() for option in options]
    longest = [max(param.opts, key=len) for param in COMMANDS[name].params]
    assert sorted(listed) == sorted([*longest, "--help"])
    assert next(iter(groups)) == "Common options" and list(groups)[-1] == "Other options"
    assert all(groups.values())


def test_the_ten_common_options_of_train_come_first(cli):
    groups = groups_of(cli("train", "--help").stdout)
    assert groups["Common options"] == [
        *("--out", "--preset", "--data", "--image-size", "--variant", "--adapter", "--steps", "--batch-size"),
        *("--resume", "--overwrite"),
    ]
    assert "--lr" in groups["Optimisation"] and "--holdout" in groups["Evaluation"]


@pytest.mark.parametrize("shell", FILES)
def test_the_script_of_each_shell(cli, shell):
    result = cli("completion", shell)
    assert result.exit_code == 0 and "_GALIREP_COMPLETE" in result.stdout


def test_bash_completes_commands_and_options(tmp_path, cli):
    script = tmp_path / "script"
    script.write_text(cli("completion", "bash").stdout)
    asked = f"""
        source {script}
        COMP_WORDS=({COMMAND} rep)
        COMP_CWORD=1
        _galirep_completion {COMMAND}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    told = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=120)
    assert set(told.stdout.split()) == {"report", "reproduce"}, told.stderr


def test_installing_writes_the_file_where_the_shell_looks(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    result = cli("completion", "--install", "--json")
    assert result.exit_code == 0 and "fpath+=~/.zfunc" in result.stderr
    told = json.loads(result.stdout)
    assert Path(told["file"]) == tmp_path / ".zfunc/_galirep" and Path(told["file"]).read_text() == told["script"]


def test_an_unknown_shell_is_told(cli, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    result = cli("completion")
    assert result.exit_code == 1 and "the shell 'tcsh' (of $SHELL) is not one of bash, zsh, fish" in result.stderr
    result = cli("completion", "bsh")
    assert result.exit_code == 2 and "did you mean 'bash'" in result.stderr
