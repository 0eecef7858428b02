"""The log of a run: train.log has all of it, the user's handlers what their levels pass, else stderr the warnings."""

import logging
import subprocess
import sys

from galirep.runs.directory import RunDirectory
from galirep.runs.log import run_log

SCRIPT = """
import logging, sys
from galirep.runs.directory import RunDirectory
from galirep.runs.log import run_log
exec(sys.argv[2])
with run_log(RunDirectory(sys.argv[1]).log_file) as log:
    log.info("step 1")
    log.warning("collapsed")
"""


def stderr_of(folder, setup):
    done = subprocess.run([sys.executable, "-c", SCRIPT, folder, setup], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_handlers_of_galirep_and_of_root_see_what_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "galirep"), run_log(RunDirectory(tmp_path).log_file) as log:
        log.info("step %d", 1)
        log.warning("collapsed")
    assert [record.getMessage() for record in caplog.records] == ["step 1", "collapsed"]
    assert [line.split(" ", 2)[2] for line in (tmp_path / "train.log").read_text().splitlines()] == [
        "INFO step 1",
        "WARNING collapsed",
    ]
    assert log.handlers == [] and log.propagate and log.level == logging.NOTSET


def test_without_configuration_warnings_go_to_stderr_and_with_it_through_the_handlers(tmp_path):
    assert stderr_of(tmp_path, "") == ["collapsed"]
    assert stderr_of(tmp_path, "logging.basicConfig()") == ["WARNING:galirep.runs:collapsed"]
    assert stderr_of(tmp_path, "logging.basicConfig(level=logging.INFO)") == [
        "INFO:galirep.runs:step 1",
        "WARNING:galirep.runs:collapsed",
    ]
    assert stderr_of(tmp_path, "logging.getLogger('galirep').setLevel(logging.ERROR)") == []
