"""A short form of `benchmarks/soak.py --part readers`: mutated files of each kind end in a result or in one line."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from soak_parts import children, readers
from soak_parts.samples import make_samples
from soak_parts.tally import Tally, table


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Make small files of every kind, once."""
    work = tmp_path_factory.mktemp("soak")
    make_samples(work / "samples")
    return work


@pytest.mark.parametrize("name", [name for name in readers.READERS if name != "settings"])
def test_mutated_inputs_leave_zeros(samples, name, monkeypatch):
    # that the sound files are read is the business of other tests
    monkeypatch.setattr(readers.Reader, "_require_sound", lambda _: None)
    (tally,) = readers.soak_readers(samples, 12, seed=3, only=[name])
    assert tally.clean, tally.places
    assert tally.counts["survived"] == 12


def test_what_goes_wrong_is_counted_where_it_belongs(monkeypatch):
    monkeypatch.setattr(children, "SECONDS", 0.2)
    monkeypatch.setattr(children, "_WAIT", 2.0)

    def attempt(number):
        if number == 1:
            while True:
                pass
        if number == 2:
            time.sleep(60)
        if number == 3:
            raise KeyError("x")
        return children.Attempt()

    tally = Tally("readers", "none")
    children.survey(tally, 5, attempt)
    assert {name: tally.counts[name] for name in ("tried", "survived", "hangs", "tracebacks")} == {
        "tried": 5,
        "survived": 2,
        "hangs": 2,
        "tracebacks": 1,
    }
    assert not tally.clean and "| readers | none | 5 | 2 |" in table([tally])
