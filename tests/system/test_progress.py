"""Progress of long jobs: a bar on a terminal, lines now and then in a log, nothing from a short job."""

import io
import sys

import pytest
from tqdm import tqdm

from galirep.system import progress
from galirep.system.progress import Lines, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Return a clock in a list of one number, which the lines go by."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_each_once(clock, capsys):
    with progress_bar(10_000, "embed", "images", initial=2000) as bar:
        assert isinstance(bar, Lines)
        for _ in range(8):
            clock[0] += 10
            bar.update(1000)
            bar.set_postfix_str("held-out mse 0.01")
        assert bar.n == 10_000
    assert capsys.readouterr().err.splitlines() == [
        "embed: 5,000 of 10,000 images (50%), 00:50 left; held-out mse 0.01",
        "embed: 8,000 of 10,000 images (80%), 00:20 left; held-out mse 0.01",
    ]


def test_a_short_job_tells_nothing(clock, capsys):
    with progress_bar(10, None, "updates") as bar:
        for _ in range(10):
            clock[0] += 1
            bar.update(1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_of_its_width(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress_bar(10, "embed", "images") as bar:
        assert isinstance(bar, tqdm) and bar.dynamic_ncols and not bar.disable
        bar.update(10)
    assert "embed: 100%" in terminal.getvalue()


def test_a_notebook_gets_lines_where_it_has_no_widgets(monkeypatch):
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    assert isinstance(progress_bar(10, "embed", "images"), Lines)


def test_what_is_not_to_be_shown_is_not(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress_bar(10, "embed", "images", shown=False) as bar:
        bar.update(10)
    assert terminal.getvalue() == ""
