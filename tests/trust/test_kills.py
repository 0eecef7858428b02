"""Killed before a change that it makes, a command leaves the old output or the new one; going on ends as never killed.

The kill is SIGKILL, exactly before one renaming, removal, opening for writing ... under the folder of the output:
before each of them, and in the two trainings at those where something could be lost.
"""

import re
import shutil

import numpy as np
import pytest
from ended_processes import changes, end_at, moments, run
from tiny_runs import assert_same_checkpoint, config, info_of, labelled, metrics_of
from toy_galleries import clusters, write_embeddings

import galirep
from galirep.data.arrays import ArraySource
from galirep.embeddings.reader import load_embeddings
from galirep.features.registry import load_extractor
from galirep.networks.saved import load_autoencoder
from galirep.runs.checkpoint import load_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.extractor import load_classifier
from galirep.system.outputs.locks import acquire

OLD, NEW = ({"steps": 2, "checkpoint_every": 1, "holdout": 4, "evaluate_every": 1, "seed": seed} for seed in (0, 1))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def train(out, settings, **options):
    return galirep.train(config(**settings), labelled(20), out=out, **options)


def classify(out, seed, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    source = ArraySource("mine", pixels, np.arange(40) % 2)
    settings = ClassifierConfig("mine", net="compact", width=4, epochs=2, batch_size=8, device="cpu", seed=seed)
    return galirep.train_classifier(settings, source, out=out, **options)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Make a run of each kind, in children like all others, so that the numbers are of one thread."""
    folder = tmp_path_factory.mktemp("references")
    assert run(lambda: (train(folder / "old", OLD), train(folder / "new", NEW))) == 0
    assert run(lambda: (classify(folder / "old-classifier", 0), classify(folder / "new-classifier", 1))) == 0
    return folder


# what is about to happen when a `train` is killed, and which run is there then
TRAIN = {
    r"os.mkdir /\.run\.new\.[^/]+/checkpoints$": "old",
    r"os.rename /\.run\.new\.[^/]+/checkpoints/last\.pt$": "old",
    "galirep.exchange /run$": "old",
    r"os.rmdir /\.run\.new\.[^/]+$": "new",
    "open /run/metrics.jsonl$": "new",
    "os.rename /run/checkpoints/last.pt$": "new",
    "galirep.exchange /run/export$": "new",
    r"os.rename /run/run\.json$": "new",
}


@pytest.mark.parametrize("change", TRAIN)
def test_a_training_that_replaces_another(references, tmp_path, change):
    out = tmp_path / "run"
    copy_run(references / "old", out)
    listed = changes(lambda: train(out, NEW, overwrite=True), tmp_path) if change == next(iter(TRAIN)) else None
    if listed is not None:
        assert all(any(re.match(known, line) for line in listed) for known in TRAIN)
        assert names(tmp_path) == ["run"] and metrics_of(out) == metrics_of(references / "new")
        copy_run(references / "old", out)
    assert killed_before(change, lambda: train(out, NEW, overwrite=True), tmp_path)
    settings = RunDirectory(out).settings()
    assert settings["seed"] == {"old": 0, "new": 1}[TRAIN[change]]
    # whole at once, E and G of one step
    load_checkpoint(RunDirectory(out).last)
    load_autoencoder(out)
    assert run(lambda: train(out, OLD if TRAIN[change] == "old" else NEW, resume=True)) == 0
    assert_same_run(out, references / TRAIN[change])
    assert names(tmp_path) == ["run"]
    assert not [p for p in out.rglob("*") if p.name.endswith(".tmp")]


@pytest.mark.parametrize(
    "change", (r"os.rename /run$", r"open /run/checkpoints/\.last\.pt", r"os.rename /run/checkpoints/last\.pt")
)
def test_a_training_killed_before_its_first_checkpoint_starts_again(references, tmp_path, change, caplog):
    for options in ({"resume": True}, {}):
        out = tmp_path / f"run{len(options)}" / "run"
        assert killed_before(change, lambda out=out: train(out, NEW), out.parent)
        begun = out.exists()
        if not begun and options:
            # nothing is there: a new start it is
            options = {}
        assert run(lambda out=out, options=options: train(out, NEW, **options)) == 0
        assert_same_run(out, references / "new")
        assert names(out.parent) == ["run"]


def test_debris_of_earlier_versions(references, tmp_path, cli):
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / ".last.pt.0123abcd.tmp").write_bytes(b"half")
    assert run(lambda: train(out, NEW, resume=True)) == 0
    assert_same_run(out, references / "new")
    # of the command, which finds the settings there
    galirep.train(config(data="sklearn:digits", steps=1), out=tmp_path / "digits")
    for kept in (("config.yaml",), ("config.yaml", "run.json", "train.log", "tb")):
        for path in (tmp_path / "digits").rglob("*"):
            if path.is_file() and path.relative_to(tmp_path / "digits").parts[0] not in kept:
                path.unlink()
        done = cli("train", "--resume", "--out", tmp_path / "digits")
        assert done.exit_code == 0 and "has no checkpoint yet: the run starts again" in done.stderr, done.output
        assert info_of(tmp_path / "digits")["status"] == "complete"
    # a folder of somebody else's is none
    (tmp_path / "mine" / "checkpoints").mkdir(parents=True)
    (tmp_path / "mine" / "config.yaml").write_text("model: resnet\n")
    for options in ((), ("--overwrite",)):
        done = cli("train", "--data", "sklearn:digits", "--out", tmp_path / "mine", *options)
        assert done.exit_code == 1 and "is not a run of galirep" in done.stderr
    assert (tmp_path / "mine" / "config.yaml").read_text() == "model: resnet\n"


def test_a_run_whose_checkpoint_was_deleted_does_not_start_again(references, tmp_path):
    out = tmp_path / "run"
    copy_run(references / "old", out)
    RunDirectory(out).last.unlink()
    with pytest.raises(galirep.errors.CheckpointError, match=r"the checkpoint .*last\.pt does not exist"):
        train(out, OLD, resume=True)
    assert load_extractor(f"run:{out}").sha256 == load_extractor(f"run:{references / 'old'}").sha256


CLASSIFY = {
    "galirep.exchange /run$": "old",
    "os.rename /run/checkpoints/last.pt$": "new",
    r"os.rename /run/export$": "new",
    r"os.rename /run/run\.json$": "new",
}


@pytest.mark.parametrize("change", CLASSIFY)
def test_a_classifier_that_replaces_another(references, tmp_path, change):
    out = tmp_path / "run"
    copy_run(references / "old-classifier", out)
    assert killed_before(change, lambda: classify(out, 1, overwrite=True), tmp_path)
    left = CLASSIFY[change]
    assert run(lambda: classify(out, 0 if left == "old" else 1, resume=True)) == 0
    reference = references / f"{left}-classifier"
    assert (out / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
    assert load_classifier(out)[1]["sha256"] == load_classifier(reference)[1]["sha256"]
    assert_same_checkpoint(out, reference)
    assert names(tmp_path) == ["run"]


def test_a_classifier_killed_in_its_first_epoch_and_after_a_line_of_metrics(references, tmp_path):
    out = tmp_path / "run"
    assert killed_before("open /run/metrics.jsonl$", lambda: classify(out, 1), tmp_path)
    assert load_checkpoint(RunDirectory(out).last)["step"] == 0
    # the line of the first epoch is there, its checkpoint is not
    work = lambda: classify(out, 1, resume=True)  # noqa: E731
    assert killed_before("os.rename /run/checkpoints/last.pt$", work, tmp_path)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    # a line is lost, as after a power cut
    assert run(work) == 0
    reference = references / "new-classifier"
    assert (out / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
    (out / "metrics.jsonl").write_text("")
    assert run(work) == 0
    assert (out / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()


def outputs(folder, run):
    """Return each command, with what it leaves as a value, and the names of its files."""
    a, b, out, picture = (folder / name for name in ("a.h5", "b.h5", "out", "out.png"))

    def rows(path):
        with load_embeddings(path) as embeddings:
            return embeddings.features[:].tobytes(), tuple(embeddings.ids)

    def tree(path):
        files = sorted(p for p in path.rglob("*") if p.suffix != ".json")
        return {str(p.relative_to(path)): p.read_bytes() for p in files if p.is_file()}

    images = ArraySource("mine", np.arange(48, dtype=np.uint8).reshape(12, 2, 2, 1))
    return {
        "merge": (lambda **o: galirep.merge([a, b], out, **o), rows),
        "embed": (lambda **o: galirep.embed("pixels:2", images, out, batch_size=8, num_workers=0, **o), rows),
        "export": (lambda **o: galirep.export_run(run, out, **o), tree),
        "export of embeddings": (lambda **o: galirep.export_embeddings(a, out, **o), tree),
        "report": (lambda **o: galirep.retrieve(a, b, k=3, report=out, **o), lambda p: "</html>" in p.read_text()),
        "picture": (lambda **o: galirep.sample(run, picture, count=4, **o), lambda p: p.read_bytes()),
    }


@pytest.mark.parametrize("name", outputs(RunDirectory("x").path, None))
def test_outputs_in_place(references, tmp_path, name):
    write_embeddings(tmp_path / "a.h5", *clusters(40))
    write_embeddings(tmp_path / "b.h5", *clusters(20, seed=1), ids=[f"b{i}" for i in range(20)])
    command, value = outputs(tmp_path, references / "new")[name]
    out = tmp_path / ("out.png" if name == "picture" else "out")
    assert run(lambda: command(overwrite=True)) == 0
    whole, left = value(out), names(tmp_path)
    # where locks are written is another matter: tests/system/outputs
    moments = [n for n, text in enumerate(changes(lambda: command(overwrite=True), tmp_path), 1) if ".lock" not in text]
    partial = {"out.partial", "out.partial.new"}
    for moment in moments:
        assert end_at(moment, lambda: command(overwrite=True), tmp_path)
        assert value(out) == whole
        # beside it are temporary files alone, which the next run of a command removes
        assert all(path.startswith(".out") for path in set(names(tmp_path)) - {*left, *partial})
        acquire(out).release()
        assert set(names(tmp_path)) - partial == set(left)
    assert run(lambda: command(overwrite=True)) == 0
    assert names(tmp_path) == left and value(out) == whole and len(moments) >= 2


def test_a_killed_embed_goes_on_to_the_same_file(tmp_path):
    images = ArraySource("mine", (np.arange(400) % 256).astype(np.uint8).reshape(100, 2, 2, 1))

    def embed(**options):
        galirep.embed("pixels:2", images, tmp_path / "x.h5", batch_size=8, num_workers=0, **options)

    embed()
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        whole = embeddings.features[:].tobytes()
    (tmp_path / "x.h5").unlink()
    for _ in moments(embed, tmp_path):
        embed(resume=True)
        with load_embeddings(tmp_path / "x.h5") as embeddings:
            assert embeddings.features[:].tobytes() == whole
        assert names(tmp_path) == ["x.h5"]
        (tmp_path / "x.h5").unlink()


def copy_run(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def assert_same_run(one, other):
    assert_same_checkpoint(one, other)
    assert metrics_of(one) == metrics_of(other)
    assert load_extractor(f"run:{one}").sha256 == load_extractor(f"run:{other}").sha256
    assert (info_of(one)["status"], info_of(one)["best"]) == ("complete", info_of(other)["best"])


def killed_before(change, work, folder):
    """Run a command that is killed when it is about to make a change; return whether it was."""
    return end_at(lambda text: re.match(change, text), work, folder)
