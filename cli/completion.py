"""The command `galirep completion`: the shell completes commands, options and words."""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from galirep.errors import ConfigError
from galirep.system.files import write_text

from .common import Choice, emit, shared

# where each shell looks for the completion of a program, under the home folder
FILES = {
    "bash": Path(".local/share/bash-completion/completions/galirep"),
    "zsh": Path(".zfunc/_galirep"),
    "fish": Path(".config/fish/completions/galirep.fish"),
}
_ZSH = "; zsh looks there if ~/.zshrc has, before compinit: fpath+=~/.zfunc"


@click.command("completion")
@click.argument("shell", type=Choice(list(FILES)), required=False)
@click.option("--install", is_flag=True, help="Write the script to the file where the shell looks for it.")
@shared()
@click.pass_context
def completion_command(ctx: click.Context, shell: str | None, install: bool, as_json: bool) -> None:
    """Print the script by which SHELL completes galirep's commands and options, or install it.

    SHELL is bash, zsh or fish (default: the one of $SHELL).

    \b
    Example:
      galirep completion --install
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in FILES:
        raise ConfigError(f"the shell {shell!r} (of $SHELL) is not one of {', '.join(FILES)}: name one of them")
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "galirep", "_GALIREP_COMPLETE").source()
    result = {"shell": shell, "script": script, "file": None}
    if not install:
        emit(as_json, result, script)
        return
    path = Path.home() / FILES[shell]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, script)
    note = _ZSH if shell == "zsh" else ""
    emit(as_json, {**result, "file": str(path)}, f"{path} is written: it works in new shells{note}")
