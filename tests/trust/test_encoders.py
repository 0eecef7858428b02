"""What a file names as its encoder is not run: code needs --trust-encoder or the same spec by hand."""

import json
import shutil
import warnings

import h5py
import numpy as np
import pytest
import torch
import yaml
from tiny_runs import config

import galirep
from galirep.data.memory import Images
from galirep.errors import CheckpointError, PluginError
from galirep.evaluation.reproduction.laboratory import Laboratory
from galirep.evaluation.reproduction.runner import reproduce
from galirep.evaluation.reproduction.store import Options
from galirep.evaluation.reproduction.study import ImageSet, Row, Study
from galirep.features.gali import load_run
from galirep.features.registry import load_extractor, require_no_code

# its import leaves a file; two functions, so that each spec can be told from the other
_CODE = """
from pathlib import Path
import torch
Path({mark!r}).write_text("ran")

def build():
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    net.name, net.dim, net.sha256 = "stranger", 12, "12ab"
    return net
"""


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """Return a file that exists once the module `stranger` was imported."""
    path = tmp_path / "mark"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "stranger.py").write_text(_CODE.format(mark=str(path)))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(__import__("sys").modules, "stranger", raising=False)
    return path


def _forget(mark, monkeypatch):
    """Bring back the state before the module ran."""
    monkeypatch.delitem(__import__("sys").modules, "stranger", raising=False)
    mark.unlink()


@pytest.fixture
def gallery(pictured, tmp_path, mark, monkeypatch):
    """Make an embedding file whose encoder is the module `stranger`."""
    galirep.embed("stranger:build", str(pictured / "train"), tmp_path / "g.h5", num_workers=0)
    _forget(mark, monkeypatch)
    return tmp_path / "g.h5"


def _ways(command, gallery, picture, folder):
    """Return the arguments of each command that builds the encoder of a file."""
    return {
        "retrieve": ("retrieve", "--gallery", gallery, "--queries", picture, "-k", 2),
        "index": ("retrieve", "--gallery", folder / "g.faiss", "--queries", picture, "-k", 2),
        "verify": ("verify", gallery, "--data", picture.parent.parent, "--sample", 4),
    }[command]


@pytest.mark.parametrize("command", ("retrieve", "index", "verify"))
def test_code_that_an_embedding_file_or_an_index_names_is_run_only_when_asked(
    command, gallery, pictured, tmp_path, mark, monkeypatch, cli
):
    galirep.build_index(gallery, tmp_path / "g.faiss")
    picture = sorted((pictured / "train").rglob("*.png"))[0]
    arguments = _ways(command, gallery, picture, tmp_path)
    done = cli(*arguments)
    assert done.exit_code == 1 and not mark.exists()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("galirep: error:")]
    assert "'stranger:build' is code" in line and "--trust-encoder" in line and "--encoder stranger:build" in line
    for more in (("--trust-encoder",), ("--encoder", "stranger:build")):
        done = cli(*arguments, *more)
        assert done.exit_code == 0 and mark.exists(), done.stderr
        _forget(mark, monkeypatch)


def test_from_python(gallery, pictured, mark):
    picture = sorted((pictured / "train").rglob("*.png"))[0]
    calls = (
        lambda **more: galirep.retrieve(gallery, picture, k=2, **more),
        lambda **more: galirep.verify(gallery, data=str(pictured / "train"), sample=4, **more),
    )
    for call in calls:
        with pytest.raises(PluginError, match=r"trust_encoder=True"):
            call()
    assert not mark.exists()
    assert calls[0](trust_encoder=True).neighbors.shape == (1, 2) and mark.exists()
    assert calls[1](encoder=load_extractor("stranger:build")).ok


def test_a_sidecar_of_an_index_that_names_other_code(gallery, pictured, tmp_path, mark, cli):
    galirep.embed("pixels:2", str(pictured / "train"), tmp_path / "p.h5", num_workers=0)
    galirep.build_index(tmp_path / "p.h5", tmp_path / "p.faiss")
    sidecar = tmp_path / "p.faiss.json"
    value = json.loads(sidecar.read_text())
    value["embeddings"]["encoder_spec"] = "stranger:build"
    del value["content_sha256"]
    sidecar.write_text(json.dumps(value))
    picture = sorted((pictured / "train").rglob("*.png"))[0]
    done = cli("retrieve", "--gallery", tmp_path / "p.faiss", "--queries", picture)
    assert done.exit_code == 1 and "is not run unasked" in done.stderr and not mark.exists()


def test_other_specs_are_tied_to_the_recorded_hash(pictured, tmp_path, cli):
    picture = sorted((pictured / "train").rglob("*.png"))[0]
    torch.manual_seed(0)
    galirep.embed("random:compact,size=16,channels=3", str(pictured / "train"), tmp_path / "g.h5", num_workers=0)
    assert cli("retrieve", "--gallery", tmp_path / "g.h5", "--queries", picture, "-k", 1).exit_code == 0
    with h5py.File(tmp_path / "g.h5", "r+") as file:
        file.attrs["encoder_spec"] = "random:compact,size=16,channels=3,seed=1"
        file.attrs["encoder"] = file.attrs["encoder"].decode().replace("seed=0", "seed=1")
        file.attrs["encoder_tag"] = "seed 1"
    done = cli("retrieve", "--gallery", tmp_path / "g.h5", "--queries", picture, "-k", 1)
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 1 and "is not the one that made the file: encoder_sha256" in line


def _rgb():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), np.uint8)
    return Images(pixels, list(map(str, range(20))), None, (), "0" * 64, "tiny", None)


@pytest.fixture
def run(tmp_path, mark, monkeypatch):
    """Make a run whose encoder stands on the module `stranger`."""
    galirep.train(config(body="stranger:build", channels=3), _rgb(), out=tmp_path / "run")
    _forget(mark, monkeypatch)
    return tmp_path / "run"


def test_the_body_of_a_run_is_run_when_its_user_trusts_it(run, pictured, tmp_path, mark, monkeypatch, cli):
    data = pictured / "test"
    commands = (
        ("embed", "--encoder", run, "--data", data, "--out", tmp_path / "x.h5"),
        ("sample", run, "--out", tmp_path / "s.png", "--count", 2),
        ("reconstruct", run, "--data", data, "--out", tmp_path / "r.png", "--count", 2),
        ("inpaint", run, "--data", data, "--out", tmp_path / "i.png", "--count", 2),
        ("interpolate", run, "--data", data, "--out", tmp_path / "w.png", "--count", 1),
        ("evaluate", run, "--data", data, "--metrics", "pixel-mse"),
    )
    for command in commands:
        done = cli(*command)
        assert done.exit_code == 1 and "is not run unasked" in done.stderr and not mark.exists(), command
        done = cli(*command, "--trust-encoder")
        assert done.exit_code == 0 and mark.exists(), (command, done.stderr)
        _forget(mark, monkeypatch)
    with pytest.raises(CheckpointError, match="is not run unasked"):
        galirep.load_encoder(run)
    assert not mark.exists()
    features = galirep.load_encoder(run, trust_encoder=True).transform(_rgb().pixels)
    by_hand = load_run(run, body="stranger:build")
    np.testing.assert_array_equal(features, by_hand(torch.from_numpy(_rgb().pixels).float() / 127.5 - 1).numpy())


@pytest.mark.parametrize("setting", ("adapter", "body"))
def test_a_file_of_settings_names_no_code_either(setting, tmp_path, mark, monkeypatch, cli):
    variant = {"variant": "gali-pt"} if setting == "adapter" else {}
    values = {"networks": "compact", "width": 4, "steps": 1, "image_size": 8, "channels": 3, setting: "stranger:build"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**values, **variant, "sample_every": 0}))
    monkeypatch.setenv("GALIREP_CACHE", str(tmp_path / "cache"))
    arguments = ("train", "--config", tmp_path / "c.yaml", "--data", "sklearn:digits", "--out", tmp_path / "run")
    done = cli(*arguments)
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 1 and f"--{setting} stranger:build" in line and not mark.exists()
    assert cli(*arguments, "--trust-encoder").exit_code == 0 and mark.exists()
    _forget(mark, monkeypatch)
    again = ("train", "--out", tmp_path / "run", "--resume")
    done = cli(*again)
    assert done.exit_code == 1 and "is not run unasked" in done.stderr and not mark.exists()
    done = cli(*again, f"--{setting}", "stranger:build")
    assert done.exit_code == 0 and mark.exists(), done.stderr


def test_a_study_names_no_code_either(tmp_path, mark, monkeypatch):
    settings = {"body": "stranger:build", "networks": "compact", "width": 4, "checkpoint_every": 1}
    rows = (Row("body", "train", settings=settings),)
    study = Study(
        "strange", rows=rows, columns=("pixel_mse",), sets=(ImageSet("tiny", data="d", image_size=8, updates=1),)
    )
    where = {"data": {"d": "sklearn:digits"}, "out": tmp_path / "runs", "results": tmp_path / "results"}
    with pytest.raises(PluginError, match="is not run unasked"):
        reproduce(study, **where)
    assert not mark.exists()
    made = []
    monkeypatch.setattr(Laboratory, "result", lambda self, work: made.append((work.row.name, self.options)))
    reproduce(study, **where, trust_encoder=True)
    options = Options(where["data"], where["out"], where["results"], trust_encoder=True)
    assert made == [("body", options)]


def test_torchscript_is_a_program(tmp_path):
    with warnings.catch_warnings():
        # torch recommends torch.export instead
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Sequential(torch.nn.Flatten())).save(str(tmp_path / "net.pt"))
    spec = f"torchscript:{tmp_path / 'net.pt'},size=4"
    assert load_extractor(spec).dim == 48
    with pytest.raises(PluginError, match="is a program and code that a file names is not run unasked"):
        require_no_code(spec)
    require_no_code(spec, trust_encoder=True)


def test_specs_that_hide_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger").mkdir()
    for spec in ("stranger:build", "stranger:build#a,b", "#pixels:2", "os.path:abspath", ""):
        with pytest.raises(PluginError, match="is not run unasked"):
            require_no_code(spec)
    for spec in ("pixels:2", "pixels#:2", "timm:resnet18@x.pth#layer1", "stranger", "random:compact"):
        require_no_code(spec)
    shutil.rmtree(tmp_path / "stranger")
