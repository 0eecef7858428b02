"""Settings: types and bounds, all faults at once, files, assignments and differences."""

import dataclasses

import pytest
import yaml

from galirep.errors import ConfigError
from galirep.game import variant as variant_module
from galirep.system.settings import read_settings, setting_types
from galirep.training import config as config_module
from galirep.training.config import TrainConfig


def test_defaults_stand_and_plain_data_gives_the_settings_back():
    config = TrainConfig(data="sklearn:digits")
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config
    assert hash(config) == hash(TrainConfig(data="sklearn:digits"))


def test_every_setting_has_help_a_type_and_a_default_that_fits():
    for field in dataclasses.fields(TrainConfig):
        kind, optional = setting_types(TrainConfig)[field.name]
        assert kind in (str, int, float, bool) and field.metadata["help"].endswith((".", ")", "..."))
        assert optional == (field.default is None), field.name


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lr": "fast"}, "lr 'fast': must be float"),
        ({"lr": None}, "lr None: must be float"),
        ({"lr": float("nan")}, "lr nan: must be from 0 to 10"),
        ({"lr": 11.0}, "lr 11.0: must be from 0 to 10"),
        ({"epochs": float("inf")}, "epochs inf: must be finite"),
        ({"penalty_weight": float("inf")}, "penalty_weight inf: must be finite"),
        ({"lr": True}, "lr True: must be float"),
        ({"steps": 1.5}, "steps 1.5: must be int or null"),
        ({"steps": "10"}, "steps '10': must be int or null"),
        ({"steps": 0}, "steps 0: must be 1 or more"),
        ({"steps": True}, "steps True: must be int or null"),
        ({"compile": 1}, "compile 1: must be bool"),
        ({"batch_size": 1}, "batch_size 1: must be 2 or more"),
        ({"image_size": 7}, "image_size 7: must be from 8 to 1024"),
        ({"width": 3}, "width 3: must be from 4 to 1024"),
        ({"variant": 4}, "variant 4: must be str"),
        ({"seed": -1}, "seed -1: must be from 0 to"),
        ({"channels": 2}, "channels 2: must be 1 or 3"),
        ({"epochs": 0.0}, "epochs 0.0: must be more than 0"),
        ({"steps": 5, "epochs": 2.0}, "steps 5 and epochs 2: give one of them"),
        (
            {"objective": "prodct"},
            "unknown objective 'prodct': did you mean 'product'? "
            "known: minimax, misclassification, product, relativistic",
        ),
        ({"d_regularizer": "r1r2", "compile": True}, "take d_regularizer sn, sn-scale or none with it"),
        ({"d_regularizer": "sn+r1r2", "compile": True}, "d_regularizer sn+r1r2 needs second derivatives"),
        (
            {"d_augment": "color,cutut"},
            "unknown d_augment 'cutut': did you mean 'cutout'? known: color, cutout, none, translation",
        ),
        ({"d_augment": ""}, "unknown d_augment ''"),
        ({"d_augment": "none,color"}, "unknown d_augment 'none'"),
        ({"d_augment": "color,color"}, "d_augment 'color,color': name each once"),
        ({"views": "crop,flop"}, "unknown views 'flop': did you mean 'flip'? known: color, crop, flip, grey, shift"),
        ({"views": "crop,crop"}, "views 'crop,crop': name each once"),
        ({"views": ""}, "unknown views ''"),
        ({"norm": "layer"}, "unknown norm 'layer'"),
        ({"d_regularizer": "r1r2", "precision": "fp16"}, "take precision fp32 or bf16"),
    ],
)
def test_a_value_that_does_not_fit_is_quoted_with_what_would(settings, says):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{"data": "sklearn:digits", **settings})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "field", [f for f in dataclasses.fields(TrainConfig) if f.metadata["low"] is not None], ids=lambda f: f.name
)
def test_bounds_are_inclusive(field):
    kind, _ = setting_types(TrainConfig)[field.name]
    low, high = field.metadata["low"], field.metadata["high"]
    for bound in (low, high):
        if bound is not None and (field.name, bound) != ("epochs", 0):
            assert getattr(TrainConfig(data="d", **{field.name: kind(bound)}), field.name) == bound
    with pytest.raises(ConfigError, match=rf"^{field.name} .*: must be"):
        TrainConfig(data="d", **{field.name: kind(low - 1)})
    if high is not None:
        with pytest.raises(ConfigError, match=rf"^{field.name} .*: must be from {low:g} to"):
            TrainConfig(data="d", **{field.name: kind(high + 1)})


def test_names_that_load_no_torch_are_those_of_the_game():
    from galirep.game.augmentation import AUGMENTATIONS
    from galirep.game.view_losses import MIN_BATCH, VIEW_LOSSES
    from galirep.game.views import VIEWS

    assert tuple(VIEWS) == config_module.VIEWS and tuple(AUGMENTATIONS) == config_module.AUGMENTATIONS
    assert tuple(VIEW_LOSSES) == variant_module.VIEW_LOSSES
    # so no batch is too small for a loss between views
    bounds = {f.name: f.metadata["low"] for f in dataclasses.fields(TrainConfig)}
    assert bounds["batch_size"] >= MIN_BATCH


def test_all_faults_come_in_one_message():
    with pytest.raises(ConfigError) as caught:
        TrainConfig(data="d", lr="fast", batch_size=0, schedule="cosin")
    assert [part.split()[0] for part in str(caught.value).split("; ")] == ["batch_size", "lr", "unknown"]
    assert "did you mean 'cosine'?" in str(caught.value)


def test_unknown_settings_are_answered_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict({"data": "d", "batchsize": 3, "learn": 1})
    assert "unknown setting 'batchsize': did you mean 'batch_size'?" in str(
        caught.value
    ) and "unknown setting 'learn'" in str(caught.value)


def test_numbers_as_yaml_reads_them(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("data: sklearn:digits\nlr: 2e-4\nlr_d: 1\nepochs: 3\ngrad_clip: .5\n")
    assert yaml.safe_load(path.read_text())["lr"] == "2e-4"  # to YAML 1.1 this is text
    config = TrainConfig.from_dict(read_settings(path))
    assert (config.lr, config.lr_d, config.epochs, config.grad_clip) == (2e-4, 1.0, 3.0, 0.5) and isinstance(
        config.lr_d, float
    )


def test_differences_leave_out_what_cannot_change_the_result():
    one = TrainConfig(data="a", steps=5, lr=1e-3, num_workers=1, keep=2)
    other = TrainConfig(data="b", steps=6, lr=1e-3, num_workers=2, keep=3, seed=1)
    assert one.differences(other) == ["steps: 5, not 6", "seed: 0, not 1"]
    assert one.differences(one) == []
