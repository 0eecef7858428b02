"""`galirep report`: what the page says of one run and of several, while they go on, and bad input."""

import base64
import html
import json
import re
from html.parser import HTMLParser

import pytest
import yaml
from tiny_bodies import make_classifier
from tiny_runs import config, labelled

import galirep
from galirep.errors import CheckpointError, ConfigError
from galirep.game.objectives import chance
from galirep.inspection import run_report


class Page(HTMLParser):
    """The text, pictures and charts of a page."""

    def __init__(self, text):
        super().__init__()
        self.words, self.pictures, self.charts, self.tags = [], [], [], []
        self.feed(text)
        self.text = " ".join(self.words)
        self.data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(attrs["alt"])
            assert attrs["src"].startswith("data:image/png;base64,")
        if attrs.get("class") == "chart":
            self.charts.append(attrs["aria-label"].rpartition(": ")[0])
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("#", "data:")), "nothing is fetched"

    def handle_data(self, data):
        self.words.append(data.strip())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    for name, more in (("a", {}), ("b", {"objective": "misclassification", "lr": 1e-3, "variant": "ali"})):
        settings = config(steps=6, holdout=10, evaluate_every=2, checkpoint_every=2, sample_every=1, **more)
        galirep.train(settings, labelled(), out=folder / name / "run", progress=False)
    return [folder / name / "run" for name in "ab"]


def page_of(runs, out):
    return Page(galirep.report(runs, out, overwrite=True).read_text())


def test_a_page_of_one_run(runs, tmp_path):
    page = page_of(runs[0], tmp_path / "a.html")
    assert "complete at update 6 of 6" in page.text and "gali-4" in page.text and "tiny, 30 images" in page.text
    for title in ("Loss of D", "Loss of G and E", "Held-out pixel-MSE", "Posterior: mean sigma", "Gradient norm of D"):
        assert title in page.charts and title in page.text
    # a rate that never changes is no curve
    assert "Learning rate" not in page.charts
    # six of each kind at most, the last among them
    assert page.pictures == [f"update {step}" for step in (1, 2, 3, 4, 5, 6)] * 2
    assert "2 (G(z), z)" in page.text and "refresh" not in (tmp_path / "a.html").read_text()
    loss = page.data["charts"][page.charts.index("Loss of D")]["series"]
    rows = galirep.load_run(runs[0]).metrics
    assert [point[0] for point in loss[0]["points"]] == [1, 2, 3, 4, 5, 6]
    assert [point[1] for point in loss[0]["points"]] == pytest.approx([row["loss_d"] for row in rows], rel=1e-4)


def test_several_runs_share_charts_and_show_what_differs(runs, tmp_path):
    page = page_of(runs, tmp_path / "both.html")
    series = page.data["charts"][page.charts.index("Loss of G and E")]["series"]
    assert [(line["name"], line["colour"]) for line in series] == [("a/run", 0), ("b/run", 1)]
    assert "What differs:" in page.text and "misclassification" in page.text
    # each objective has its own level
    low, high = page.data["charts"][page.charts.index("Loss of G and E")]["y"]
    for n, objective in ((4, "product"), (2, "misclassification")):
        assert low <= chance(n, objective).g <= high
    assert "chance (a/run)" in page.text and "chance (b/run)" in page.text


def test_names_of_a_run_are_text(runs, tmp_path):
    copy = tmp_path / "<script>alert(1)</script>{{data}}"
    (copy / "..").mkdir(parents=True, exist_ok=True)
    galirep.train(config(steps=1, sample_every=0), labelled(), out=copy.parent / "{{data}}&<b>", progress=False)
    text = galirep.report(copy.parent / "{{data}}&<b>", tmp_path / "x.html").read_text()
    page = Page(text)
    assert html.escape("{{data}}&<b>") in text and "b" not in page.tags and page.tags.count("script") == 2


def test_a_picture_that_is_none_or_lies_elsewhere_is_not_shown(tmp_path):
    run, secret = tmp_path / "run", tmp_path / "secret"
    galirep.train(config(steps=4, sample_every=1), labelled(), out=run, progress=False)
    secret.write_text("the password")
    samples = run / "samples"
    (samples / "prior-00000001.png").unlink()
    (samples / "prior-00000001.png").symlink_to(secret)
    (samples / "prior-00000002.png").write_bytes(b"no picture")
    with (samples / "prior-00000003.png").open("ab") as file:
        file.write(b"the password")
    text = galirep.report(run, tmp_path / "run.html").read_text()
    assert Page(text).pictures == ["update 3", "update 4", *(f"update {step}" for step in (1, 2, 3, 4))]
    assert "update 1: not shown, it is a link" in text and "update 2: not shown" in text
    pictures = [base64.b64decode(found) for found in re.findall(r"base64,([\w+/=]+)", text)]
    assert pictures and not any(b"password" in content for content in pictures)


def test_runs_without_metrics_or_pictures_have_a_page_too(tmp_path):
    run = tmp_path / "run"
    galirep.train(config(steps=2, sample_every=0), labelled(), out=run, progress=False)
    (run / "metrics.jsonl").unlink()
    page = page_of(run, tmp_path / "run.html")
    assert "No metrics yet." in page.text and "No pictures yet." in page.text and "No D's matrix" in page.text


def test_a_classifier_and_another_version_stand_beside(runs, tmp_path):
    make_classifier(tmp_path / "m")
    info = json.loads((tmp_path / "m/run.json").read_text())
    (tmp_path / "m/run.json").write_text(json.dumps({**info, "galirep": "0.0.9"}))
    page = page_of([tmp_path / "m", runs[0]], tmp_path / "mixed.html")
    assert "val loss" in page.charts and "Loss of D" in page.charts
    assert "Made by different versions of galirep: 0.0.9" in page.text


def test_a_live_page_is_written_until_the_run_ends(runs, tmp_path, monkeypatch):
    run = tmp_path / "run"
    galirep.train(config(steps=1, sample_every=0), labelled(), out=run, progress=False)
    info, seen = json.loads((run / "run.json").read_text()), []

    def sleep(seconds):
        seen.append((seconds, (tmp_path / "live.html").read_text()))
        if len(seen) == 2:
            (run / "run.json").write_text(json.dumps({**info, "status": "complete"}))

    (run / "run.json").write_text(json.dumps({**info, "status": "running"}))
    monkeypatch.setattr(run_report.time, "sleep", sleep)
    galirep.report(run, tmp_path / "live.html", live=True, every=2)
    assert [seconds for seconds, _ in seen] == [2, 2] and all('http-equiv="refresh"' in text for _, text in seen)
    assert 'http-equiv="refresh"' not in (tmp_path / "live.html").read_text()


def test_the_command_writes_the_same_page(cli, runs, tmp_path):
    result = cli("report", *runs, "--out", tmp_path / "command.html", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"out": str(tmp_path / "command.html"), "runs": [str(run) for run in runs]}
    galirep.report(runs, tmp_path / "python.html")
    texts = [
        re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", (tmp_path / f"{name}.html").read_text())
        for name in ("command", "python")
    ]
    assert texts[0] == texts[1]
    again = cli("report", *runs, "--out", tmp_path / "command.html")
    assert again.exit_code == 1 and "exists" in again.stderr


def test_what_no_report_can_be_of(cli, runs, tmp_path):
    for error, message, given in (
        (ConfigError, "name each run once", [runs[0], runs[0]]),
        (ConfigError, "0 runs: a report is of 1 to 8", []),
        (ConfigError, "9 runs: a report is of 1 to 8", [tmp_path / str(i) for i in range(9)]),
        (CheckpointError, "is not a run", [tmp_path]),
    ):
        with pytest.raises(error, match=message):
            galirep.report(given, tmp_path / "x.html")
    with pytest.raises(ConfigError, match="every 0 must be above 0"):
        galirep.report(runs, tmp_path / "x.html", every=0)
    assert not (tmp_path / "x.html").exists()
    result = cli("report", tmp_path / "nowhere", "--out", tmp_path / "x.html")
    assert result.exit_code == 1 and "nowhere" in result.stderr and "Traceback" not in result.stderr


def test_a_short_run_saves_more_than_one_picture(tmp_path):
    galirep.train(config(steps=8, sample_every=None), labelled(), out=tmp_path / "run", progress=False)
    assert list(galirep.load_run(tmp_path / "run").pictures()["prior"]) == [2, 4, 6, 8]
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["sample_every"] == 2
