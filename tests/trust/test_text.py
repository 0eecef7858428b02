"""Names of strangers do not reach a terminal or a log as control characters."""

import json
import logging
import re

import h5py
import pytest
from toy_galleries import clusters, write_embeddings

from galirep.runs.directory import RunDirectory
from galirep.runs.log import run_log
from galirep.system.printable import printable
from galirep.visuals.page import render_page

# clears the screen, sets the title of the window, turns the text, begins a line of its own
EVIL = "a\x1b[2J\x1b]0;owned\x07\u202egnp\x9b31m\ngalirep: in order"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    "text,shown",
    (
        ("plain ä 猫 🐈 µ·±", "plain ä 猫 🐈 µ·±"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b1m\x7f", "\\x9b1m\\x7f"),
        ("photo\u202egnp.exe", "photo\\u202egnp.exe"),
        ("a\u2028b\u200bc\ufeff", "a\\u2028b\\u200bc\\ufeff"),
        ("\udcff", "\\udcff"),
        ("\\x1b", "\\x1b"),
    ),
)
def test_escapes(text, shown):
    assert printable(text) == shown
    shown.encode()


def test_lines_may_be_kept():
    assert printable("a\nb\x1b\r", lines=True) == "a\nb\\x1b\\r"


@pytest.fixture
def evil(tmp_path):
    """Make an embedding file whose ids, classes, layers and origin are full of control characters."""
    features, labels = clusters(40)
    ids = [f"{EVIL}{i}" for i in range(40)]
    names = tuple(f"{EVIL}{i}" for i in range(4))
    layers = ((EVIL, 12), ("mu", 4))
    path = write_embeddings(
        tmp_path / "x.h5", features, labels, names=names, ids=ids, layers=layers, source=EVIL, encoder_spec=EVIL
    )
    with h5py.File(path, "r+") as file:
        # repeated, constant and broken rows, so that ids are listed
        file["features"][3] = file["features"][4]
        file["features"][5] = 1
        file["features"][6] = float("nan")
    return path


def test_what_commands_print(evil, tmp_path, cli):
    commands = (
        ("verify", evil),
        ("verify", evil, "--json"),
        ("info", evil),
        ("retrieve", "--gallery", evil, "-k", 2),
        ("retrieve", "--gallery", evil, "-k", 2, "--layers", "nu"),
        ("retrieve", "--gallery", evil, "-k", 2, "--debug"),
        ("retrieve", "--gallery", evil, "--queries", tmp_path / "p.png", "-k", 1),
        ("probe", evil, "--json"),
        ("verify", tmp_path / EVIL),
        ("embed", "--encoder", EVIL, "--data", EVIL, "--out", tmp_path / "o.h5"),
        (EVIL,),
    )
    seen = 0
    for command in commands:
        done = cli(*command)
        for text in (done.stdout, done.stderr):
            assert not RAW.search(text), (command, text)
            assert not re.search("^galirep: in order", text, re.M), (command, text)
            seen += "\\x1b[2J" in text
    assert seen >= 7


def test_data_sets(tmp_path, cli):
    from toy_galleries import draw_pictures

    name = EVIL.replace("/", "")
    draw_pictures(tmp_path / "photos" / name, 6, 0)
    (tmp_path / "photos" / name / "class0" / "broken\x1b[2J.png").write_bytes(b"no image")
    (tmp_path / "photos" / name / "class0" / "notes\x1b[2J.heic").write_bytes(b"none")
    for command in (
        ("info", tmp_path / "photos" / name),
        ("embed", "--encoder", "pixels:2", "--data", tmp_path / "photos" / name, "--out", tmp_path / "x.h5"),
    ):
        done = cli(*command)
        assert "\\x1b[2J" in done.output and not RAW.search(done.output)


def test_the_log_of_a_run(tmp_path):
    run = RunDirectory(tmp_path)
    with run_log(run.log_file) as logger:
        logger.warning("left out %s: %s", EVIL, "broken")
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.exception("a fault")
    logging.getLogger("galirep.runs")
    lines = run.log_file.read_text(encoding="utf-8").splitlines()
    assert "left out a\\x1b[2J\\x1b]0;owned\\x07\\u202egnp\\x9b31m\\ngalirep: in order: broken" in lines[0]
    assert "Traceback" in lines[2]


def test_json_has_the_names_as_they_are(evil, cli):
    result = json.loads(cli("verify", evil, "--json").stdout)
    assert any(EVIL in problem for problem in result["problems"])


def test_pages_show_what_turns_the_direction_of_text_escaped():
    page = render_page("run\u202egnp.exe", {"items": [["a\u202eb.png", {"c\u2066": 1}]]})
    assert not set("\u202e\u2066") & set(page) and "run\\u202egnp" in page
    # JSON has its own escapes: what the script shows are a backslash and letters
    assert "a\\\\u202eb.png" in page and "c\\\\u2066" in page
