"""Two processes on one output, for every command that writes: the second is told, nothing of the first is touched."""

import json
import os
import time
from dataclasses import replace

import pytest
from ended_processes import run
from tiny_runs import config, labelled
from toy_galleries import clusters, draw_pictures, write_embeddings

import galirep
from galirep.errors import InUseError
from galirep.supervised.config import ClassifierConfig
from galirep.system.outputs.locks import acquire, lock_file

_TRAIN = (
    "--networks",
    "compact",
    "--width",
    4,
    "--latent-dim",
    4,
    "--batch-size",
    8,
    "--steps",
    1,
    "--sample-every",
    0,
)
_DATA = ("--data", "photos", "--device", "cpu", "--num-workers", 0)
# output, and the command without it
COMMANDS = {
    "train": ("out", ("train", *_DATA, *_TRAIN, "--out")),
    "train-classifier": ("out", ("train-classifier", *_DATA, "--net", "compact", "--epochs", 1, "--out")),
    "embed": ("out.h5", ("embed", "--encoder", "pixels:2", *_DATA, "--out")),
    "merge": ("out.h5", ("merge", "a.h5", "b.h5", "--out")),
    "virtual merge": ("out.h5", ("merge", "a.h5", "b.h5", "--virtual", "--out")),
    "index": ("out.faiss", ("index", "a.h5", "--device", "cpu", "--out")),
    "export": ("out", ("export", "run", "--out")),
    "export of embeddings": ("out", ("export", "a.h5", "--out")),
    "import": ("out.h5", ("export", "table", "--out")),
    "result": ("out.json", ("retrieve", "--gallery", "a.h5", "-k", 3, "--device", "cpu", "--out")),
    "report": ("out.html", ("retrieve", "--gallery", "a.h5", "-k", 3, "--device", "cpu", "--report")),
    "probe": ("out.json", ("probe", "a.h5", "--protocol", "knn/v1", "--out")),
    "evaluate": ("out.json", ("evaluate", "run", *_DATA, "--metrics", "pixel-mse", "--out")),
    "values": ("out.h5", ("evaluate", "run", *_DATA, "--metrics", "pixel-mse", "--save-values")),
    "sample": ("out.png", ("sample", "run", "--device", "cpu", "--count", 2, "--out")),
    "reconstruct": ("out.png", ("reconstruct", "run", *_DATA[:4], "--count", 2, "--out")),
    "inpaint": ("out.png", ("inpaint", "run", *_DATA[:4], "--count", 2, "--out")),
    "interpolate": ("out.png", ("interpolate", "run", "--prior", "--device", "cpu", "--out")),
    "info": ("out.png", ("info", "photos", "--num-workers", 0, "--out")),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    draw_pictures(folder / "photos", 12, 0)
    write_embeddings(folder / "a.h5", *clusters(40))
    write_embeddings(folder / "b.h5", *clusters(20, seed=1), ids=[f"b{i}" for i in range(20)])
    galirep.train(config(steps=1, channels=3), labelled(12), out=folder / "run")
    galirep.export_embeddings(folder / "a.h5", folder / "table")
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_the_second_is_told_and_a_lock_of_another_host_is_taken_over_if_forced(samples, monkeypatch, cli, name):
    monkeypatch.chdir(samples)
    out, command = COMMANDS[name]
    before = sorted(path.name for path in samples.iterdir())
    lock = acquire(out)
    done = cli(*command, out)
    assert done.exit_code == 1 and done.stdout == "", done.output
    assert done.stderr.startswith("galirep: error: ") and done.stderr.count("\n") == 1, done.stderr
    assert f"{out} is in use by another call in this process, since " in done.stderr
    lock_file(samples / out).write_text(json.dumps(vars(replace(lock.owner, machine="node7/x"))))
    done = cli(*command, out)
    assert done.exit_code == 1 and "on node7 has its lock since" in done.stderr, done.stderr
    assert sorted({path.name for path in samples.iterdir()} - {f".{out}.lock"}) == before
    done = cli(*command, out, "--force-unlock")
    assert done.exit_code == 0, done.output
    new = {path.name for path in samples.iterdir()} - set(before)
    assert out in new and all(file.startswith(out) for file in new)
    for file in new:
        (samples / file).rename(samples.parent / f"{time.monotonic_ns()}")


def test_tables_of_a_study(samples, monkeypatch, cli):
    monkeypatch.chdir(samples)
    (samples / "study.toml").write_text(
        'name = "mine"\ncolumns = ["pixel_mse"]\nrows = [{ name = "a", kind = "mean-image" }]\n'
        'sets = [{ name = "digits", data = "digits", image_size = 8, updates = 2, seeds = [0] }]\nclaims = []\n'
    )
    command = ("reproduce", "study.toml", "--data", "digits=sklearn:digits", "--out", "studies", "--markdown", "t.md")
    lock = acquire("studies/digits/a", parents=True)
    done = cli(*command)
    assert "digits a: another process is at it" in done.stderr, done.output
    lock_file(samples / "studies" / "digits" / "a").write_text(json.dumps(vars(replace(lock.owner, machine="node7/x"))))
    done = cli(*command)
    assert done.exit_code == 1 and "on node7 has its lock" in done.stderr, done.output
    assert cli(*command, "--force-unlock").exit_code == 0
    assert "mean-image" not in os.listdir(samples / "studies" / "digits")  # noqa: PTH208
    lock = acquire("t.md")
    assert "t.md is in use" in cli(*command).stderr
    lock.release()


def test_the_functions_raise(samples, monkeypatch):
    monkeypatch.chdir(samples)
    lock = acquire("out")
    for call in (
        lambda: galirep.train(config(), labelled(12), out="out"),
        lambda: galirep.train_classifier(ClassifierConfig("photos", epochs=1, device="cpu"), out="out"),
        lambda: galirep.embed("pixels:2", "photos", "out"),
        lambda: galirep.EmbeddingWriter.create("out", galirep.StoreMeta("x", (("f", 1),), n_expected=1), ["a"]),
    ):
        with pytest.raises(InUseError, match="out is in use by another call in this process"):
            call()
    lock.release()


def test_of_two_at_once_one_trains_and_the_other_is_told(tmp_path):
    images = labelled(20)

    def second():
        with pytest.raises(InUseError, match="out is in use: process"):
            galirep.train(config(steps=2), images, out=tmp_path / "out", overwrite=True)

    def first():
        codes.append(run(second))
        return True

    codes = []
    galirep.train(config(steps=2, log_every=1), images, out=tmp_path / "out", on_row=lambda _: first())
    assert codes == [0, 0] and len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()) == 2
