"""benchmarks/gpu_check.py on a CPU: every check passes; one that is broken is told, and the others run all the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_checks.harness.report import closing, summary_of, table_line, write_json  # noqa: E402
from gpu_checks.harness.runner import NoDevice, Options, run_groups  # noqa: E402

OTHERS = ("arithmetic", "waiting", "state", "features", "speed")
QUICK = Options("cpu", quick=True)
BROKEN = '''
import os
import time
from functools import partial

from galirep.training.session import Session
from gpu_checks import equality, waiting
from gpu_checks.harness.check import Check, Failed, Figure, Skip, require

compute, advance = equality.compute_gradients, Session.advance


def wrong_gradient(setup):
    """One gradient of G, in the arithmetic of training, is a tenth too large."""

    def scaled(game, x, *args, **options):
        statistics = compute(game, x, *args, **options)
        if x.element_size() == 4:
            next(game.generator.parameters()).grad *= 1.1
        return statistics

    equality.compute_gradients = scaled
    try:
        return equality.one_update(setup, "ali")
    finally:
        equality.compute_gradients = compute


def host_sync(setup):
    """An update asks for the value of a loss."""

    def asking(self):
        advance(self)
        self._totals["loss_d"][0].item()

    Session.advance = asking
    try:
        return waiting.advance(setup, variant="ali")
    finally:
        Session.advance = advance


CHECKS = [
    Check("fine before", lambda setup: Figure("1", {"one": 1})),
    Check("hang", lambda setup: time.sleep(600), 1.0),
    Check("crash", lambda setup: os._exit(9)),
    Check("wrong gradient", wrong_gradient),
    Check("right gradient", lambda setup: equality.one_update(setup, "ali")),
    Check("host sync", host_sync),
    Check("skipped", lambda setup: (_ for _ in ()).throw(Skip("nothing to do"))),
    Check("too far", lambda setup: require(False, "2 is more than 1", {"away": 2})),
    Check("slow", lambda setup: Figure("never"), quick=False),
    Check("fine after", lambda setup: Figure("2")),
]
'''


def _python_path(*folders):
    """PYTHONPATH with some folders before it and the checkout behind it."""
    return os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH", ""), str(ROOT)]))


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Start the script on the first group, as from a bare checkout; it works while the tests go on."""
    out = tmp_path_factory.mktemp("gpu_check") / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--device", "cpu", "--quick"]
    command += ["--only", "right", "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": _python_path(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), out


def test_all_other_groups_pass_and_say_what_they_skip(script, tmp_path, monkeypatch):
    # as one group: starting torch six times would take longer than the checks
    text = f"from gpu_checks import {', '.join(OTHERS)}\nCHECKS = {' + '.join(f'{name}.CHECKS' for name in OTHERS)}\n"
    (tmp_path / "other_checks.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", _python_path(tmp_path))
    results, _ = run_groups({"others": "other_checks"}, QUICK)
    assert not [result for result in results if result["status"] == "FAIL"]
    assert sum(result["status"] == "PASS" for result in results) > 20
    skipped = {result["check"]: result["text"] for result in results if result["status"] == "SKIP"}
    assert skipped["fp16 with its scaler"] == "a CPU has no fp16" and skipped["--compile"] == "not in --quick"
    assert skipped["peak memory against --dry-run"] == "the memory of a process is not that of its tensors"
    assert all(skipped.values())


def test_the_script_prints_a_table_and_writes_json(script):
    job, out = script
    text = job.communicate(timeout=500)[0]
    assert job.returncode == 0, text
    report = json.loads(out.read_text())
    assert set(report) == {"checks", "environment", "summary"} and report["environment"]["device"] == "cpu"
    assert report["summary"]["fail"] == 0 and report["summary"]["pass"] > 30
    assert all(table_line(result) in text for result in report["checks"])


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Run a group that is broken in every way; return its results by name."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "broken_checks.py").write_text(BROKEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", _python_path(folder))
        shown = []
        groups = {"broken": "broken_checks", "missing": "no_such_checks"}
        results, environment = run_groups(groups, QUICK, shown.append)
    assert shown == results and environment["device"] == "cpu"
    return {result["check"]: result for result in results}


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("wrong gradient", "(G "),
        ("host sync", "aten._local_scalar_dense waits for the device"),
        ("hang", "no result within 1 seconds: killed"),
        ("crash", "the process died (exit code 9)"),
        ("too far", "2 is more than 1"),
        ("(begin)", "No module named 'no_such_checks'"),
    ],
)
def test_a_broken_check_is_a_failure_that_says_what_is_wrong(broken, check, text):
    assert broken[check]["status"] == "FAIL" and text in broken[check]["text"]


def test_the_others_run_all_the_same(broken):
    passed = ["fine before", "right gradient", "fine after"]
    assert [name for name, result in broken.items() if result["status"] == "PASS"] == passed
    assert (broken["skipped"]["status"], broken["skipped"]["text"]) == ("SKIP", "nothing to do")
    assert (broken["slow"]["status"], broken["slow"]["text"]) == ("SKIP", "not in --quick")
    assert broken["too far"]["values"] == {"away": 2} and broken["fine before"]["values"] == {"one": 1}


def test_a_failure_is_counted_and_written(broken, tmp_path):
    results = list(broken.values())
    summary = summary_of(results, 5.0)
    assert (summary["pass"], summary["fail"], summary["skip"]) == (3, 6, 2)
    assert "3 passed, 6 failed, 2 skipped" in closing({"device": "cpu"}, summary, 470)
    write_json(tmp_path / "out.json", results, {"device": "cpu"}, summary)
    assert json.loads((tmp_path / "out.json").read_text())["checks"] == results


def test_what_does_not_fit_the_budget_is_skipped_and_says_so(tmp_path, monkeypatch):
    sleeping = "import time\nfrom gpu_checks.harness.check import *\n"
    sleeping += "CHECKS = [Check(name, lambda setup: time.sleep(600)) for name in 'ab']\n"
    (tmp_path / "sleeping_checks.py").write_text(sleeping)
    monkeypatch.setenv("PYTHONPATH", _python_path(tmp_path))
    results, _ = run_groups({"sleeping": "sleeping_checks"}, Options("cpu", quick=True, budget=8.0))
    assert results and {result["status"] for result in results} == {"SKIP"}
    assert all("used up" in result["text"] for result in results)


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(NoDevice, match="cuda:99"):
        run_groups({"right": "gpu_checks.right"}, Options("cuda:99"))
