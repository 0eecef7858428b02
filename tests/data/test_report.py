"""`DataReport`: what sources say of themselves, its JSON, and how the commands show and keep it."""

import json
import logging

import numpy as np
import pytest
from picture_trees import HAS_AVIF, write

import galirep
from galirep.data.arrays import ArraySource
from galirep.data.catalog import open_data
from galirep.data.memory import load_images, native_side
from galirep.data.report import DataReport, LeftOut, join_reports
from galirep.errors import DataError
from galirep.inspection.paths import info


@pytest.fixture
def tree(tmp_path):
    """Write 2 x 8 pictures, and beside them one of an unread type and two thumbnails."""
    names = [f"{folder}/{k}.png" for folder in "ab" for k in range(8)]
    return write(tmp_path / "tree", *names, "a/x.heic", "b/@eaDir/1.png", "b/@eaDir/2.png", "a/notes.txt")


LEFT_OUT = [
    {"reason": "housekeeping folder @eaDir", "count": 2, "first": ["b/@eaDir/1.png", "b/@eaDir/2.png"]},
    {"reason": "type .heic is not read by this Pillow", "count": 1, "first": ["a/x.heic"]},
]


def check(report):
    assert report["left_out"] == LEFT_OUT and report["images"] == 16 and report["classes"] == {"a": 8, "b": 8}
    assert report["other_files"] == {".txt": 1} and DataReport.from_dict(report).to_dict() == report


def test_a_source_reports_what_was_left_out(tree):
    source = open_data(tree)
    check(source.report.to_dict())
    lines = source.report.lines()
    assert lines[0].endswith("tree: 16 images of 2 classes")
    assert "left out, 1: type .heic is not read by this Pillow (a/x.heic)" in lines


def test_a_subset_keeps_the_report(tree):
    report = open_data(tree).subset([0, 9, 10]).report
    assert (report.images, report.classes) == (3, {"a": 1, "b": 2}) and len(report.left_out) == 2


def test_sources_without_files_report_plainly():
    source = ArraySource("mine", np.zeros((3, 4, 4), np.uint8), np.array([1, 0, 1]))
    assert source.report == DataReport("mine", images=3, classes={"0": 1, "1": 2}) and not source.report.remarkable
    report = ArraySource("mine", np.zeros((3, 4, 4), np.uint8), np.array([1, -1, 1])).report
    assert report.classes == {"": 1, "1": 2} and report.notes == ("1 of 3 rows have no label",)
    assert ArraySource("mine", np.zeros((3, 4, 4), np.uint8)).report.classes == {"": 3}
    assert open_data("sklearn:digits", "test").report.splits == ("train", "test")


def test_images_that_cannot_be_used_join_the_report(tree):
    for k in range(8):
        (tree / f"b/{k}.png").write_bytes(b"")
    report = load_images(open_data(tree), 8, on_error="skip").report
    assert report.left_out[-1] == LeftOut(
        "cannot be used: the file is empty (0 bytes)", 8, tuple(f"b/{k}.png" for k in range(5))
    )
    assert report.images == 8 and report.classes_lost == ("b",)


def test_a_report_for_a_file_is_short():
    left = [LeftOut.of(f"folder {'x' * 400}{k}", ["y" * 900] * 3) for k in range(300)]
    classes = {f"class {k}": 1 for k in range(5000)}
    report = DataReport("s" * 5000, images=9, left_out=tuple(left), classes=classes, notes=("n" * 4000,) * 30)
    short = report.short_dict(16_000)
    assert len(json.dumps(short)) < 16_000 and sum(entry["count"] for entry in short["left_out"]) == 900
    assert short["left_out"][-1]["reason"] == "280 other reasons"
    assert short["notes"][0] == "5000 classes, not listed here"
    assert len(json.dumps(DataReport("水" * 9000, notes=("水" * 9000,) * 90).short_dict(8_000))) < 8_000
    assert DataReport("x", images=1).short_dict(16_000)["images"] == 1


def test_reports_are_joined():
    one = DataReport("x", "train", ("train", "test"), 2, (LeftOut("r", 2, ("a", "b")),), ("n",), {"c": 2})
    two = DataReport("y", None, (), 1, (LeftOut("r", 1, ("d",)), LeftOut("q", 1, ("e",))), ("n",), {"c": 1, "": 1})
    joined = join_reports([one, two])
    assert joined.left_out == (LeftOut("r", 3, ("a", "b", "d")), LeftOut("q", 1, ("e",)))
    assert (joined.spec, joined.split, joined.images, joined.classes) == ("x; y", None, 3, {"c": 3, "": 1})


def test_junk_files_are_named_with_the_first_reason(cli, tmp_path):
    for k in range(3):
        write(tmp_path, f"{'aab'[k]}/{k}.png")
        (tmp_path / f"{'aab'[k]}/{k}.png").write_bytes(b"junk")
    with pytest.raises(
        DataError, match=r"none of the 3 images of .* the first is a/0\.png: not an image of a known type"
    ):
        native_side(open_data(tmp_path))
    for command in ("train", "train-classifier"):
        result = cli(command, "--data", tmp_path, "--out", tmp_path / "run")
        assert result.exit_code == 1 and "the first is a/0.png: not an image of a known type" in result.stderr
        assert not (tmp_path / "run").exists()


def test_embed_shows_and_keeps_the_report(cli, tree, tmp_path):
    result = cli("embed", "--encoder", "pixels:2", "--data", tree, "--out", tmp_path / "e.h5", "--json")
    assert result.exit_code == 0, result.stderr
    check(json.loads(result.stdout)["data_report"])
    assert result.stderr.count("left out, 2: housekeeping folder @eaDir") == 1
    with galirep.load_embeddings(tmp_path / "e.h5") as embeddings:
        check(dict(embeddings.meta.data_report))
        check(json.loads(embeddings.attributes["data_report"]))
    check(info(tmp_path / "e.h5")["data_report"])


def test_probe_shows_what_the_files_say(cli, tree, tmp_path):
    galirep.embed("pixels:2", str(tree), tmp_path / "e.h5", num_workers=0)
    result = cli("probe", tmp_path / "e.h5", "--json")
    assert result.exit_code == 0, result.stderr
    check(json.loads(result.stdout)["data_report"]["train"])
    assert "left out, 1: type .heic" in result.stderr


def test_merged_files_keep_what_was_left_out(tree, tmp_path):
    other = write(tmp_path / "other", "a/other.png", "b/other.png", "a/y.heic")
    for name, data in (("one", tree), ("two", other)):
        galirep.embed("pixels:2", str(data), tmp_path / f"{name}.h5", num_workers=0)
    galirep.merge([tmp_path / "one.h5", tmp_path / "two.h5"], tmp_path / "both.h5")
    with galirep.load_embeddings(tmp_path / "both.h5") as embeddings:
        report = DataReport.from_dict(embeddings.meta.data_report)
    assert report.images == 18 and [(entry.reason[:10], entry.count) for entry in report.left_out] == [
        ("housekeepi", 2),
        ("type .heic", 2),
    ]


TRAIN = {"networks": "compact", "variant": "ali", "image_size": 8, "width": 4, "batch_size": 4, "holdout": 0}


def test_train_shows_and_keeps_the_report_and_its_own_run_is_not_data(cli, tree):
    out = tree / "run"
    settings = [f"--set={name}={value}" for name, value in TRAIN.items()]
    result = cli("train", "--data", tree, "--out", out, "--steps", 2, *settings, "--json")
    assert result.exit_code == 0, result.stderr
    check(json.loads(result.stdout)["data_report"])
    check(json.loads((out / "run.json").read_text())["data"]["report"])
    assert result.stderr.count("left out, 1: type .heic") == 1
    assert list((out / "samples").glob("*.png"))
    resumed = cli("train", "--out", out, "--resume", "--steps", 3, "--json")
    assert resumed.exit_code == 0, resumed.stderr
    report = json.loads(resumed.stdout)["data_report"]
    assert report["images"] == 16 and "run of galirep 'run'" in [entry["reason"] for entry in report["left_out"]]
    galirep.embed("pixels:2", str(tree), tree / "e.h5", num_workers=0)
    with galirep.load_embeddings(tree / "e.h5") as embeddings:
        assert embeddings.meta.label_names == ("a", "b") and len(embeddings) == 16
    # what is a run and a folder is a run
    assert info(out)["kind"] == "run" and info(tree)["kind"] == "data"


def test_train_classifier_shows_and_keeps_the_report(cli, tree):
    result = cli("train-classifier", "--data", tree, "--out", tree / "m", "--epochs", 1, "--image-size", 16, "--json")
    assert result.exit_code == 0, result.stderr
    check(json.loads(result.stdout)["data_report"])
    check(json.loads((tree / "m" / "run.json").read_text())["data"]["report"])
    assert result.stderr.count("left out, 1: type .heic") == 1


def test_splits_of_every_command(cli, tmp_path):
    tree = write(tmp_path / "tree", *(f"{folder}/{k}.png" for folder in ("bus", "car", "train") for k in range(6)))
    settings = [f"--set={name}={value}" for name, value in TRAIN.items()]
    jobs = {
        "train": ["--data", tree, "--out", tmp_path / "run", "--steps", 1, *settings],
        "train-classifier": ["--data", tree, "--out", tmp_path / "m", "--epochs", 1, "--image-size", 16],
        "embed": ["--data", tree, "--out", tmp_path / "e.h5", "--encoder", "pixels:2"],
        "info": [tree],
    }
    for command, words in jobs.items():
        refused = cli(command, *words)
        assert refused.exit_code == 1 and "may be a split or a class" in refused.stderr, command
        done = cli(command, *words, "--splits", "none", "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["data_report"]["classes"] == {"bus": 6, "car": 6, "train": 6}
    # later commands open the images as the file says
    assert galirep.verify(tmp_path / "e.h5", data=str(tree)).compared == 18
    found = cli("retrieve", "--gallery", tmp_path / "e.h5", "--queries", tree, "--splits", "none", "-k", 1)
    assert found.exit_code == 0, found.stderr


def test_a_plain_set_needs_no_words(cli, tmp_path):
    tree = write(tmp_path / "tree", *(f"{split}/{name}.png" for split in ("train", "test") for name in ("a/1", "b/2")))
    result = cli("embed", "--encoder", "pixels:2", "--data", tree, "--out", tmp_path / "e.h5")
    assert result.exit_code == 0 and result.stderr == ""


def test_the_report_is_a_warning_of_a_logger(tree, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "galirep.data"):
        galirep.embed("pixels:2", str(tree), tmp_path / "e.h5", num_workers=0)
    assert [record.name for record in caplog.records] == ["galirep.data"] * 3


def test_queries_of_any_type(cli, tree, tmp_path):
    galirep.embed("pixels:2", str(tree), tmp_path / "e.h5", num_workers=0)
    write(tmp_path, "x.jfif", "y.avif", "z.heic")
    for name in ["x.jfif", *(["y.avif"] if HAS_AVIF else [])]:
        result = cli("retrieve", "--gallery", tmp_path / "e.h5", "--queries", tmp_path / name, "-k", 1)
        assert result.exit_code == 0, result.stderr
    refused = cli("retrieve", "--gallery", tmp_path / "e.h5", "--queries", tmp_path / "z.heic")
    assert refused.exit_code == 1 and "z.heic is a picture of type .heic, which this Pillow does not" in refused.stderr
