"""benchmarks/gpu_check.py on a CPU: every check passes; one that is broken is told, and the others run all the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_checks.report import closing, summary_of, table_line, write_json  # noqa: E402
from gpu_checks.runner import NoDevice, Options, run_groups  # noqa: E402

HALVES = ("right,arithmetic", "waiting,state,features,speed")
QUICK = Options("cpu", quick=True)
BROKEN = '''
import os
import time
from functools import partial

from galirep.training.session import Session
from gpu_checks import equality, waiting
from gpu_checks.check import Check, Failed, Figure, Skip, require

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


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """The script on all groups, as from a bare checkout: two processes, one for each half."""
    folder = tmp_path_factory.mktemp("gpu_check")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)]).strip(os.pathsep)}
    env["OMP_NUM_THREADS"] = "1"
    jobs = []
    for i, groups in enumerate(HALVES):
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--device", "cpu", "--quick"]
        command += ["--only", groups, "--out", str(folder / f"{i}.json")]
        jobs.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    texts = [job.communicate(timeout=500)[0] for job in jobs]
    codes = [job.returncode for job in jobs]
    assert codes == [0, 0], "\n".join(texts)
    return texts, [json.loads((folder / f"{i}.json").read_text()) for i in range(len(HALVES))]


def test_everything_that_a_cpu_can_do_passes(halves):
    texts, reports = halves
    results = [result for report in reports for result in report["checks"]]
    assert {result["group"] for result in results} == set(",".join(HALVES).split(","))
    assert not [result for result in results if result["status"] == "FAIL"]
    assert sum(result["status"] == "PASS" for result in results) > 50
    for report in reports:
        assert report["summary"]["fail"] == 0 and report["environment"]["device"] == "cpu"
    for text, report in zip(texts, reports, strict=True):
        assert all(table_line(result) in text for result in report["checks"])


def test_what_is_not_checked_says_why(halves):
    skipped = {r["check"]: r["text"] for report in halves[1] for r in report["checks"] if r["status"] == "SKIP"}
    assert skipped["fp16 with its scaler"] == "a CPU has no fp16" and skipped["--compile"] == "not in --quick"
    assert skipped["peak memory against --dry-run"] == "galirep train --dry-run estimates no memory"
    assert all(skipped.values())


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The results of a group that is broken in every way, by name."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "broken_checks.py").write_text(BROKEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ""), str(ROOT)]))
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
    sleeping = "import time\nfrom gpu_checks.check import *\n"
    sleeping += "CHECKS = [Check(name, lambda setup: time.sleep(600)) for name in 'ab']\n"
    (tmp_path / "sleeping_checks.py").write_text(sleeping)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), str(ROOT)]))
    results, _ = run_groups({"sleeping": "sleeping_checks"}, Options("cpu", quick=True, budget=8.0))
    assert results and {result["status"] for result in results} == {"SKIP"}
    assert all("used up" in result["text"] for result in results)


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(NoDevice, match="cuda:99"):
        run_groups({"right": "gpu_checks.right"}, Options("cuda:99"))
