"""A run that starts from weights that exist: which are taken, which not and why, and what is recorded."""

import json
import shutil

import pytest
import torch
from tiny_bodies import make_classifier
from tiny_runs import TINY, assert_same_checkpoint, config, info_of, stop_at, tiny

from galirep.errors import CheckpointError
from galirep.networks.export_file import load_export, sha256_tensors
from galirep.runs.checkpoint import load_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.runs.initial_weights import load_initial_weights
from galirep.supervised.config import ClassifierConfig
from galirep.supervised.loop import train_classifier
from galirep.training.loop import train
from galirep.training.preparation import prepare


@pytest.fixture
def source(tmp_path):
    train(config(), tiny(), out=tmp_path / "source")
    return tmp_path / "source"


def session_of(settings, data=None):
    return prepare(settings, data or tiny(), None, download=False).session


def layers_of(entry):
    return entry["taken"], entry["of"]


def test_a_run_lends_its_averaged_e_and_g_and_the_d_of_its_last_checkpoint(source):
    session = session_of(config(init_from=str(source), seed=5))
    checkpoint = load_checkpoint(source / "checkpoints" / "last.pt")
    expected = {"E": load_export(source, "encoder")[0], "G": load_export(source, "generator")[0]}
    expected["D"] = checkpoint["nets"]["D"]
    fresh = session_of(config(seed=5))
    for name, state in expected.items():
        own = session.game.players()[name].state_dict()
        assert own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in state)
        entry = session.initial["networks"][name]
        assert entry["sha256"] == sha256_tensors(state) and entry["left_out"] == []
        assert entry["taken"] == entry["of"] > 3
        assert not all(torch.equal(own[key], value) for key, value in fresh.game.players()[name].state_dict().items())
    # the averages start there too
    assert all(torch.equal(value, expected["E"][key]) for key, value in session.average.nets["E"].state_dict().items())
    assert fresh.initial is None


@pytest.mark.parametrize("spec", ("run:{}", "{}/export"))
def test_an_export_has_no_d(spec, source):
    report = session_of(config(init_from=spec.format(source))).initial["networks"]
    assert report["E"]["left_out"] == report["G"]["left_out"] == []
    assert bool(report["D"]["taken"]) is spec.startswith("run:")
    if not report["D"]["taken"]:
        assert report["D"]["left_out"] == [f"{source}/export has none"] and report["D"]["sha256"] is None


def test_layers_that_do_not_fit_are_left_out_and_said(source, tmp_path, caplog):
    run = tmp_path / "run"
    train(config(init_from=str(source), latent_dim=6), tiny(), out=run)
    record = info_of(run)["init_from"]
    assert record["source"] == str(source)
    e, g, d = (record["networks"][name] for name in "EGD")
    assert e["left_out"] == ["head ((8, 32), not (12, 32))"] and e["taken"] == e["of"] - 1
    assert g["left_out"] == ["body.0.0 ((32, 4), not (32, 6))"] and g["taken"] == g["of"] - 1
    # D judges by all of its layers
    assert d["taken"] == 0 and d["left_out"] == ["trunks.latent.0.1 ((32, 4), not (32, 6))"]
    log = (run / "train.log").read_text()
    assert f"weights of {source}: E 6 of 7 layers, G 5 of 6 layers, D 0 of 8 layers; left out: E: head" in log
    assert load_export(run, "encoder")[1]["init_from"] == record
    assert f"began with weights of `{source}`" in (run / "export" / "README.md").read_text()


def test_another_regulariser_of_d_leaves_d_out(source):
    report = session_of(config(init_from=str(source), d_regularizer="sn")).initial["networks"]
    assert report["D"]["taken"] == 0 and "not there" in report["D"]["left_out"][0] and report["E"]["taken"]


def test_nothing_that_fits_is_an_error_and_leaves_nothing(source, tmp_path):
    for settings, why in (
        ({"width": 8}, r"\(4, 1, 4, 4\), not \(8"),
        ({"networks": "resnet"}, "'compact', this one of"),
    ):
        with pytest.raises(CheckpointError, match=f"nothing in it fits the networks of this run .*{why}") as caught:
            train(config(init_from=str(source), **settings), tiny(), out=tmp_path / "run")
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    with pytest.raises(CheckpointError, match="the net 'digits' is no E of a network family"):
        train(config(init_from=make_classifier(tmp_path / "m")), tiny(), out=tmp_path / "run")


@pytest.mark.parametrize("spec", ("none", "classifier:none", "run:none", "{}/checkpoints"))
def test_a_source_that_is_not_there_is_one_line(spec, source):
    with pytest.raises(CheckpointError, match=r"no such folder|has no exported") as caught:
        load_initial_weights(spec.format(source))
    assert "\n" not in str(caught.value)


def test_a_net_whose_trunk_is_an_e_lends_its_blocks_to_e_alone(tmp_path):
    of_e = {"net": "compact", "width": TINY["width"], "image_size": 8}
    settings = {"data": "sklearn:digits", "objective": "vicreg", "steps": 2, "batch_size": 8, "num_workers": 0}
    train_classifier(ClassifierConfig(**of_e, **settings), out=tmp_path / "m")
    own = load_export(tmp_path / "m", "classifier")[0]
    session = session_of(config(init_from=f"classifier:{tmp_path / 'm'}", seed=5))
    report, state = session.initial["networks"], session.game.encoder.state_dict()
    assert report["E"]["left_out"] == ["head (not there)"] and not report["G"]["taken"] and not report["D"]["taken"]
    for name, value in state.items():
        # its own head says something else
        if not name.startswith("head"):
            assert torch.equal(value, own[f"trunk.{name}"]), name


def test_an_e_on_a_body_lends_to_one_on_the_same_body_only(tmp_path):
    body, other = make_classifier(tmp_path / "m"), make_classifier(tmp_path / "o", seed=1)
    train(config(body=body), tiny(), out=tmp_path / "run")
    spec = str(tmp_path / "run")
    same = session_of(config(body=body, init_from=spec)).initial["networks"]["E"]
    assert same["taken"] == same["of"] and same["left_out"] == []
    for settings, says in (({"body": other}, "has other weights or layers"), ({}, "it stands on the body")):
        entry = session_of(config(init_from=spec, **settings)).initial["networks"]["E"]
        assert entry["taken"] == 0 and says in entry["left_out"][0]
    assert "stands on no body" in session_of(config(body=body, init_from=_plain(tmp_path))).initial["networks"]["E"][
        "left_out"
    ][0]  # fmt: skip


def _plain(folder):
    train(config(), tiny(), out=folder / "plain")
    return str(folder / "plain")


def test_resuming_needs_the_source_no_more_and_ends_as_one_never_interrupted(source, tmp_path, monkeypatch):
    settings = config(init_from=str(source), lr_e=5e-5, steps=6, checkpoint_every=2)
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(settings, tiny(), out=whole)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tiny(), out=run)
    recorded = info_of(run)["init_from"]
    shutil.rmtree(source)
    train(settings, tiny(), out=run, resume=True)
    assert_same_checkpoint(run, whole)
    assert info_of(run)["init_from"] == recorded == info_of(whole)["init_from"]


def test_a_discriminator_of_other_values_than_tensors_is_one_line(source):
    last = RunDirectory(source).last
    for name in (next(iter(load_checkpoint(last)["nets"]["D"])), ""):
        content = load_checkpoint(last)
        content["nets"]["D"][name] = True
        torch.save(content, last)
        with pytest.raises(CheckpointError, match=f"last.pt is damaged: '{name}' of D is no tensor"):
            load_initial_weights(str(source))
        del content["nets"]["D"][name]
        torch.save(content, last)


def test_a_record_of_first_weights_without_their_source_is_one_line(source, tmp_path):
    run, settings = tmp_path / "run", config(init_from=str(source), steps=2, checkpoint_every=1)
    train(settings, tiny(), out=run)
    info = info_of(run)
    del info["init_from"]["source"]
    (run / "run.json").write_text(json.dumps(info))
    with pytest.raises(CheckpointError, match=r"run\.json is damaged: .*source"):
        train(settings, tiny(), out=run, resume=True)
