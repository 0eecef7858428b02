"""`galirep.train` from Python: settings as a mapping, data in any form, and each row as it comes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import config, info_of, metrics_of, tiny

import galirep
from galirep.data.handed.datasets import chosen_data, handed_images
from galirep.data.sources import HANDED
from galirep.errors import ConfigError, DataError

SETTINGS = {"networks": "compact", "width": 4, "latent_dim": 4, "batch_size": 8, "steps": 3, "log_every": 1}
SETTINGS |= {"sample_every": 0, "holdout": 0, "device": "cpu", "num_workers": 0}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)


def test_every_form_of_the_same_images_trains_the_same(pixels, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for k, image in enumerate(pixels):
        Image.fromarray(image[:, :, 0]).save(folder / f"{k:02}.png")
    np.savez(tmp_path / "images.npz", images=pixels)
    forms = {
        "array": pixels,
        "tensor": torch.from_numpy(pixels).permute(0, 3, 1, 2),
        "pictures": [Image.fromarray(image[:, :, 0]) for image in pixels],
        "paths": sorted(folder.iterdir()),
        "source": galirep.open_data(folder),
        "spec": str(folder),
        "path": folder,
        "dataset": torch.utils.data.TensorDataset(torch.from_numpy(pixels)),
    }
    rows = {}
    for name, data in forms.items():
        result = galirep.train(SETTINGS, data, out=tmp_path / name)
        assert result.steps == 3
        rows[name] = metrics_of(tmp_path / name)
    assert all(made == rows["array"] for made in rows.values())
    assert info_of(tmp_path / "array")["data"]["spec"] == "images from Python"
    assert info_of(tmp_path / "spec")["data"]["spec"] == str(folder)


def test_a_mapping_is_settings_with_their_preset(pixels, tmp_path):
    galirep.train({**SETTINGS, "preset": "small"}, pixels, out=tmp_path / "run")
    assert "r1_gamma: 0.05" in (tmp_path / "run/config.yaml").read_text()
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        galirep.train({**SETTINGS, "stepss": 2}, pixels, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_each_row_is_handed_out_as_it_is_written(tmp_path):
    seen = []
    galirep.train(config(), tiny(), out=tmp_path / "run", on_row=seen.append)
    assert [row["step"] for row in seen] == [1, 2, 3]
    assert [row["loss_d"] for row in seen] == [row["loss_d"] for row in metrics_of(tmp_path / "run")]


def test_a_run_of_images_from_python_goes_on_with_them_alone(cli, pixels, tmp_path):
    galirep.train(SETTINGS, pixels, out=tmp_path / "run")
    longer = {**SETTINGS, "steps": 5}
    result = cli("train", "--out", tmp_path / "run", "--resume", "--steps", 5)
    assert result.exit_code == 1 and "images from Python, which no file names: give them again" in result.stderr
    galirep.train(longer, pixels, out=tmp_path / "run", resume=True)
    galirep.train(longer, pixels, out=tmp_path / "whole")
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")


def test_no_data_and_a_split_of_images_are_refused(cli, pixels, tmp_path):
    with pytest.raises(ConfigError, match=r"data: give a data set, e\.g\. .*, or images from Python"):
        galirep.train(SETTINGS, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="split 'test' is of a data set that is named, and images were handed over"):
        galirep.train({**SETTINGS, "split": "test"}, pixels, out=tmp_path / "run")
    with pytest.raises(DataError, match="images are arrays, Pillow images or paths, not int"):
        galirep.train(SETTINGS, 7, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for extra in ([], ["--dry-run"]):
        result = cli("train", "--out", tmp_path / "run", *extra)
        assert result.exit_code == 1 and result.stderr.startswith("galirep: error: data: give a data set")


def test_what_is_no_setting_no_image_and_no_function_is_told_before_anything_is_written(pixels, tmp_path):
    out = tmp_path / "run"
    for job, name, callback in ((galirep.train, "TrainConfig", "on_row"), (galirep.train_classifier, "Cl", "on_epoch")):
        for settings, what in ((None, "a NoneType"), ([1], "a list"), ("x.yaml", "'x.yaml'")):
            with pytest.raises(ConfigError, match=f"settings: {what} is no mapping .* no {name}.*read_settings"):
                job(settings, pixels, out=out)
        with pytest.raises(ConfigError, match=f"{callback} 3 must be a function"):
            job({}, pixels, out=out, **{callback: 3})
        with pytest.raises(ConfigError, match="output 3: it must be a path"):
            job({}, pixels, out=3)
    for size in ({}, {"image_size": 8}):
        with pytest.raises(DataError, match="images from Python: there are no images"):
            galirep.train({**SETTINGS, **size}, [], out=out)
    with pytest.raises(DataError, match="images from Python: there are no images"):
        galirep.train_classifier({"objective": "vicreg"}, [], out=out)
    assert not any(tmp_path.iterdir())


def test_embed_and_train_classifier_take_images_too(pixels, tmp_path):
    galirep.embed("pixels:8", pixels, tmp_path / "a.h5", device="cpu")
    with galirep.load_embeddings(tmp_path / "a.h5") as stored:
        expected = galirep.load_encoder("pixels:8", device="cpu").transform(pixels)
        np.testing.assert_array_equal(stored.features[:], expected)
        assert stored.meta.source == "images from Python"
    settings = {"objective": "vicreg", "net": "compact", "width": 4, "steps": 2, "batch_size": 8, "views": "shift"}
    result = galirep.train_classifier({**settings, "device": "cpu"}, pixels, out=tmp_path / "m")
    assert result.run == tmp_path / "m" and (tmp_path / "m/export").exists()


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ({"a.png", "b.png"}, "a set of images has no order"),
        ({"image": ["a.png"]}, "a dict is no images"),
        (b"\x89PNG", "not bytes; of an encoded image"),
        (np.ma.MaskedArray(np.zeros((2, 8, 8, 1), np.uint8), mask=np.arange(128).reshape(2, 8, 8, 1) < 3), "3 masked"),
        ([np.ma.masked_equal(np.zeros((8, 8), np.uint8), 0)], "64 masked values"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_holds_images_and_is_none_is_refused_by_what_it_is(images, says):
    with pytest.raises(DataError, match=says):
        handed_images(images)


def test_a_masked_array_without_a_masked_value_is_an_array(pixels):
    assert len(handed_images(np.ma.MaskedArray(pixels, mask=False))) == len(pixels)


@pytest.mark.parametrize(("configured", "given"), [("pics", "other"), ("pics", ["a.png"])])
def test_data_that_replaces_those_of_the_settings_is_warned_of(configured, given, caplog):
    assert chosen_data(configured, given) is given and "config.data 'pics' is not read" in caplog.text


@pytest.mark.parametrize(("configured", "given"), [("", "a"), ("a", Path("a")), ("a", None), (HANDED, ["a.png"])])
def test_data_that_replaces_nothing_is_not_warned_of(configured, given, caplog):
    assert chosen_data(configured, given) == (configured if given is None else given) and not caplog.text


def test_a_run_on_images_from_python_is_made_again_by_a_call(cli, pixels, tmp_path):
    galirep.train(SETTINGS, pixels, out=tmp_path / "run")
    told = galirep.info(tmp_path / "run", reproduce=True)["reproduce"]
    assert told["command"] == [] and told["shell"] is None and "handed over in Python" in told["notes"][0]
    assert cli("info", tmp_path / "run", "--reproduce").stdout.startswith(told["python"])
    eval(told["python"], {"galirep": galirep, "images": pixels})
    assert metrics_of(tmp_path / "run-again") == metrics_of(tmp_path / "run")
