"""Checkpoints of other programs: keys, prefixes, several networks in one file, numpy scalars; nothing is executed."""

import argparse
import logging
import pickle
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import timm
import torch
from galirep.pretrained_adapters.checkpoint import read_checkpoint

from galirep.errors import PluginError
from galirep.features.protocol import describe
from galirep.features.registry import load_extractor

IMAGES = torch.rand(2, 3, 160, 160) * 2 - 1


def _network(seed):
    torch.manual_seed(seed)
    return timm.create_model("test_vit", num_classes=0).eval()


@pytest.fixture
def one():
    return _network(1)


@pytest.fixture
def two():
    return _network(2)


def _save(path, content) -> Path:
    torch.save(content, path)
    return path


def _features(spec, **options):
    with torch.no_grad():
        return load_extractor(spec, **options)(IMAGES)


def _of(network):
    # test_vit normalises with mean and standard deviation 0.5
    with torch.no_grad():
        return network(IMAGES)


def _under(prefix, network):
    return {f"{prefix}{name}": value for name, value in network.state_dict().items()}


def test_a_lightning_checkpoint_with_a_prefix_and_a_loss_weight(tmp_path, one, caplog):
    state = {**_under("model.", one), "loss.weight": torch.ones(5), "model.head.weight": torch.ones(7, 64)}
    state["model.head.bias"] = torch.ones(7)
    moments = {"state": {0: {"exp_avg": torch.ones(3)}}}
    content = {"epoch": 3, "state_dict": state, "optimizer_states": [moments], "hyper_parameters": {"lr": 0.1}}
    file = _save(tmp_path / "last.ckpt", content)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(_features(f"timm:test_vit@{file}"), _of(one))
    assert "under 'state_dict: model' 1 are left out: loss.weight" in caplog.text


def test_a_loss_weight_beside_a_network_without_a_prefix(tmp_path, one, caplog):
    file = _save(tmp_path / "w.ckpt", {"state_dict": {**one.state_dict(), "criterion.weight": torch.ones(5)}})
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(_features(f"timm:test_vit@{file}"), _of(one))
    assert "1 are left out: criterion.weight" in caplog.text
    # what is no part of a training program may be a layer that the model lacks
    file = _save(tmp_path / "w.ckpt", {"state_dict": {**one.state_dict(), "norm_pre.weight": torch.ones(64)}})
    with pytest.raises(PluginError, match=r"norm_pre.weight \(64,\) is not in the model; the file has state_dict \("):
        load_extractor(f"timm:test_vit@{file}")


def test_dino_teacher_and_student(tmp_path, one, two, caplog):
    heads = {"head.mlp.0.weight": torch.ones(8, 64), "head.last_layer.weight": torch.ones(9, 8)}
    content = {
        "student": {**_under("module.backbone.", one), **{f"module.{name}": value for name, value in heads.items()}},
        "teacher": {**_under("backbone.", two), **heads},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
        "args": argparse.Namespace(lr=0.1, out=PurePosixPath("a/b")),
        "dino_loss": {"center": torch.ones(1, 9)},
        "best": np.float64(0.5),
    }
    file = _save(tmp_path / "dino.pth", content)
    with pytest.raises(PluginError) as caught:
        load_extractor(f"timm:test_vit@{file}")
    assert str(caught.value) == (
        f"{file} has more than one set of tensors that fits: student, teacher; "
        f"choose one, as in timm:test_vit@{file}#student"
    )
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(_features(f"timm:test_vit@{file}#teacher"), _of(two))
    assert "2 are left out: head.mlp.0.weight, head.last_layer.weight" in caplog.text
    torch.testing.assert_close(_features(f"timm:test_vit@{file}#student"), _of(one))
    about = describe(load_extractor(f"timm:test_vit@{file}#teacher"))
    assert (about.tag, about.spec) == ("dino.pth#teacher", "test_vit")


def test_a_key_and_layers_in_one_spec(tmp_path, one, two):
    file = _save(tmp_path / "w.pth", {"student": one.state_dict(), "teacher": two.state_dict()})
    expected = _features(f"timm:test_vit@{file}#teacher", layers=["blocks.0", "features"])
    assert torch.equal(_features(f"timm:test_vit@{file}#teacher#blocks.0,features"), expected)
    torch.testing.assert_close(expected[:, 64:], _of(two))
    with pytest.raises(PluginError, match=r"already names its layers: leave out #blocks.0"):
        load_extractor(f"timm:test_vit@{file}#teacher#blocks.0", layers=["features"])
    with pytest.raises(PluginError, match=r"has no tensors under 'taecher', but student \(\d+ tensors: blocks"):
        load_extractor(f"timm:test_vit@{file}#taecher#blocks.0")
    with pytest.raises(PluginError, match=r"more than one set of tensors that fits: student, teacher"):
        load_extractor(f"timm:test_vit@{file}#blocks.0")
    neither = r"#nope: 'nope' is neither a layer of test_vit nor a key of .*w\.pth.* the file has student \(\d+ tensors"
    with pytest.raises(PluginError, match=neither):
        load_extractor(f"timm:test_vit@{file}#nope")
    with pytest.raises(PluginError, match=r"w\.pth: did you mean 'teacher'\? the file has student"):
        load_extractor(f"timm:test_vit@{file}#taecher")


def test_a_name_that_is_a_layer_and_a_key_is_a_layer(tmp_path, one):
    file = _save(tmp_path / "w.pth", {"state_dict": one.state_dict(), "norm": {"weight": torch.ones(3)}})
    assert load_extractor(f"timm:test_vit@{file}#norm").layers == {"norm": 64}
    # in a plain state dict the names of the tensors begin with those of layers
    assert load_extractor(f"timm:test_vit@{_save(tmp_path / 'v.pth', one.state_dict())}#blocks.1").dim == 64


def test_moco_queries_and_keys_behind_data_parallel(tmp_path, one, two, caplog):
    state = {**_under("module.encoder_q.", one), **_under("module.encoder_k.", two)}
    for encoder in ("encoder_q", "encoder_k"):
        state |= {
            f"module.{encoder}.head.0.weight": torch.ones(8, 64),
            f"module.{encoder}.head.2.weight": torch.ones(8),
        }
    state |= {"module.queue": torch.ones(8, 16), "module.queue_ptr": torch.zeros(1)}
    file = _save(tmp_path / "moco.pth.tar", {"arch": "vit", "state_dict": state})
    with pytest.raises(PluginError, match=r"more than one set .*: encoder_q, encoder_k; choose one, .*#encoder_q$"):
        load_extractor(f"timm:test_vit@{file}")
    torch.testing.assert_close(_features(f"timm:test_vit@{file}#encoder_q"), _of(one))
    torch.testing.assert_close(_features(f"timm:test_vit@{file}#encoder_k"), _of(two))
    assert "2 are left out: head.0.weight, head.2.weight" in caplog.text


def test_one_fitting_network_is_found_wherever_it_is(tmp_path, one):
    file = _save(tmp_path / "w.pth", {"nets": {"critic": {"w": torch.ones(2)}, "image": _under("trunk.", one)}})
    torch.testing.assert_close(_features(f"timm:test_vit@{file}"), _of(one))
    file = _save(tmp_path / "w.pth", {"a": {"w": torch.ones(2)}, "b": {"w": torch.ones(3)}})
    with pytest.raises(PluginError, match=r"no set of tensors that fits timm's test_vit, but a \(1 tensor: w 1\); b"):
        load_extractor(f"timm:test_vit@{file}")


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(2), np.int64(3), np.bool_(True), np.str_("ab")])
def test_numpy_scalars_of_plain_kinds_are_read(tmp_path, one, value):
    file = _save(tmp_path / "w.pth", {"best": value, "state_dict": one.state_dict()})
    torch.testing.assert_close(_features(f"timm:test_vit@{file}"), _of(one))
    assert list(read_checkpoint(file, mmap=True).sets) == ["state_dict"]


class Harmful:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        import os

        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: np.array([x], object), lambda x: argparse.Namespace(x=x)])
def test_code_in_a_file_is_not_run(tmp_path, one, wrap):
    made = tmp_path / "made"
    file = _save(tmp_path / "w.pth", {"state_dict": one.state_dict(), "callback": wrap(Harmful(made))})
    with pytest.raises(PluginError, match=r"is refused: it contains pickled objects other than tensors \(\S+\)"):
        load_extractor(f"timm:test_vit@{file}")
    assert not made.exists()


def test_a_numpy_scalar_of_objects_is_refused(tmp_path):
    class Scalar:
        def __reduce__(self):
            return np.float64(1).__reduce__()[0], (np.dtype(object), b"12345678")

    file = tmp_path / "w.pth"
    torch.save({"x": torch.ones(1), "y": Scalar()}, file, pickle_protocol=2, pickle_module=pickle)
    with pytest.raises(PluginError, match="is refused: it contains pickled objects other than tensors"):
        read_checkpoint(file)


def test_keys_without_tensors_are_listed(tmp_path):
    file = _save(tmp_path / "w.pth", {"epoch": 3, "config": {"lr": 0.1}})
    with pytest.raises(PluginError, match=r"contains no named tensors, neither itself nor under its keys \(epoch, con"):
        read_checkpoint(file)
