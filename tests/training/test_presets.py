"""Presets: settings by name, under those that are given; recorded with what they became."""

import json

import pytest
import yaml

from galirep.errors import ConfigError
from galirep.training.config import TrainConfig
from galirep.training.presets import PRESETS

DATA = {"data": "sklearn:digits"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_valid_settings_that_read_back(name):
    config = TrainConfig.from_dict({"preset": name, **DATA})
    assert config.preset == name
    assert {key: getattr(config, key) for key in PRESETS[name].settings} == dict(PRESETS[name].settings)
    assert TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_the_default_preset_is_the_defaults():
    assert TrainConfig.from_dict({"preset": "default", **DATA}).differences(TrainConfig(**DATA)) == [
        "preset: 'default', not None"
    ]


def test_the_papers_own_numbers():
    """Dandi et al. 2021, SVHN: Adam 2e-4 (0.5, 0.999), batch 100, 100 epochs, spectral norm, noise 0.1, no averages."""
    config = TrainConfig.from_dict({"preset": "paper", **DATA})
    assert (config.lr, config.lr_d, config.lr_e, config.beta1, config.beta2) == (2e-4, 2e-4, None, 0.5, 0.999)
    assert (config.batch_size, config.epochs, config.d_steps, config.schedule, config.warmup) == (
        100,
        100.0,
        1,
        "constant",
        0,
    )
    assert (config.d_regularizer, config.instance_noise, config.ema_half_life, config.objective) == (
        "sn",
        0.1,
        0.0,
        "product",
    )


def test_what_is_given_wins_over_the_preset_and_both_are_recorded(cli, tmp_path):
    (tmp_path / "my.yaml").write_text("preset: small\nlr: 7e-4\n")
    result = cli(
        "train",
        "--config",
        tmp_path / "my.yaml",
        "--data",
        "sklearn:digits",
        "--batch-size",
        "24",
        "--out",
        tmp_path / "run",
        "-n",
        "--json",
    )
    settings = json.loads(result.stdout)
    assert (settings["preset"], settings["lr"], settings["batch_size"]) == ("small", 7e-4, 24)
    assert (
        settings["r1_gamma"] == PRESETS["small"].settings["r1_gamma"]
        and settings["steps"] == PRESETS["small"].settings["steps"]
    )


def test_epochs_that_are_given_drop_the_presets_steps():
    config = TrainConfig.from_dict({"preset": "small", "epochs": 3, **DATA})
    assert (config.epochs, config.steps) == (3.0, None)


def test_an_unknown_preset_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown preset 'smal': did you mean 'small'"):
        TrainConfig.from_dict({"preset": "smal", **DATA})


def test_the_list_shows_settings_and_what_was_measured(cli):
    rows = json.loads(cli("list", "presets", "--json").stdout)["presets"]
    assert [row["name"] for row in rows] == list(PRESETS)
    shown = cli("list", "presets").stdout
    for row in rows:
        preset = PRESETS[row["name"]]
        assert (row["settings"], row["measured"]) == (dict(preset.settings), preset.measured)
        assert row["measured"] in shown and all(f"{name} {value}" in shown for name, value in row["settings"].items())
