"""The documents against the code: links lead somewhere, commands and options exist, Python names are public."""

import importlib
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

import galirep

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])
(POINT,) = entry_points(group="console_scripts", name="galirep")
GROUP = POINT.load()


def _blocks(page, *languages):
    """Return the fenced blocks of a page in one of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return [text for language, text in found if language in languages]


def _commands(page):
    """Yield the `galirep ...` lines, split as a shell does; a line that ends in a backslash goes on."""
    for block in _blocks(page, "", "sh", "bash", "console", "shell", "text"):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ")
            if words.startswith("galirep ") and "[--" not in words:  # a synopsis with optional parts is no command
                yield shlex.split(words, comments=True)


COMMANDS = [(page, words) for page in PAGES for words in _commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_on_the_map():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md" and f"]({page.name})" not in index
    ]
    assert not missing, f"add {missing} to docs/index.md"


def test_there_are_commands_to_check():
    assert {words[1] for _, words in COMMANDS} >= {"train", "embed", "probe"}


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page.stem}-{' '.join(words[1:])[:60]}" for page, words in COMMANDS]
)
def test_commands_and_options_exist(page, words):
    name, *arguments = words[1:]
    if name.startswith("-"):
        return
    command = GROUP.get_command(click.Context(GROUP), name)
    assert command is not None, f"{page.name}: there is no galirep {name}"
    options = {
        text: option
        for option in command.params
        for text in (*option.opts, *option.secondary_opts)
        if text.startswith("-")
    }
    options |= dict.fromkeys(["-h", "--help"])
    for position, word in enumerate(arguments):
        if re.match(r"--?[a-z]", word):
            text, _, value = word.partition("=")
            assert text in options, f"{page.name}: galirep {name} has no option {text}"
            kind = options[text].type if options[text] else None
            if isinstance(kind, click.Choice):
                value = value or arguments[position + 1]
                assert value in kind.choices, (
                    f"{page.name}: galirep {name} {text} takes {', '.join(kind.choices)}, not {value}"
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_names_are_public(page):
    for block in _blocks(page, "python"):
        for name in re.findall(
            r"\bgalirep\.(\w+)", re.sub(r"from galirep[.\w]+ import|import galirep\.\w+|#.*", "", block)
        ):
            assert name in galirep.__all__, f"{page.name}: galirep.{name}"
        for module, names in re.findall(r"from (galirep(?:\.\w+)+) import ([\w, ]+)", block):
            for public in names.split(", "):
                assert hasattr(importlib.import_module(module), public), f"{page.name}: {module}.{public}"
