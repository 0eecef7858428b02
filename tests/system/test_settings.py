"""Settings of any job: types and bounds from one line each, what excludes what, YAML files, KEY=VALUE."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from galirep.errors import ConfigError
from galirep.system.settings import Settings, parse_assignments, read_settings, setting, setting_types


@dataclass(frozen=True)
class Job(Settings):
    """A job of three settings."""

    rate: float = setting(0.1, "A rate.", above=0, below=1)
    channels: int | None = setting(None, "1 or 3.", choices=(1, 3))
    steps: int | None = setting(None, "Updates.", low=1)
    hours: float | None = setting(None, "Or a time.", above=0)
    workers: int = setting(0, "Processes.", low=0, free=True)

    exclusive: ClassVar[tuple[str, ...]] = ("steps", "hours")

    def contradictions(self):
        return ["steps and hours: give one"] if self.steps and self.hours else []


def test_types_are_those_of_the_annotations():
    assert setting_types(Job)["rate"] == (float, False) and setting_types(Job)["channels"] == (int, True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rate": 0.0}, "rate 0.0: must be more than 0 and less than 1"),
        ({"rate": 1.0}, "rate 1.0: must be more than 0 and less than 1"),
        ({"rate": float("nan")}, "rate nan: must be more than 0 and less than 1"),
        ({"hours": 0.0}, "hours 0.0: must be more than 0"),
        ({"channels": 2}, "channels 2: must be 1 or 3"),
        ({"rate": 2.0, "steps": 0}, "rate 2.0: must be more than 0 and less than 1; steps 0: must be 1 or more"),
        ({"steps": 1, "hours": 1.0}, "steps and hours: give one"),
    ],
)
def test_what_does_not_fit_is_quoted_with_what_would(settings, says):
    with pytest.raises(ConfigError) as caught:
        Job(**settings)
    assert str(caught.value) == says


def test_a_setting_that_is_set_removes_those_it_excludes():
    assert Job.merge({"steps": 5, "rate": 0.5}, {"hours": 2.0}) == {"rate": 0.5, "hours": 2.0}
    assert Job.merge({"steps": 5}, {"hours": None}) == {"steps": 5, "hours": None}
    assert Job.merge({"steps": 5}, {"steps": 6}) == {"steps": 6}


def test_free_settings_make_no_difference():
    assert Job(workers=2).differences(Job()) == []
    assert Job(rate=0.2, workers=2).differences(Job()) == ["rate: 0.2, not 0.1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "not list"),
        ("", "is empty"),
        ("a: [", "is not valid YAML"),
        ("just words", "not str"),
        ("\x80", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, says):
    path = tmp_path / "settings.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        read_settings(tmp_path / "none.yaml")


def test_assignments():
    texts = ["lr=2e-4", "steps=5", "lr_e=null", "compile=true", "data=npz:a=b.npz", "batch-size = 7", "split={"]
    assert parse_assignments(texts) == {
        "lr": "2e-4", "steps": 5, "lr_e": None, "compile": True, "data": "npz:a=b.npz", "batch_size": 7, "split": "{",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="--set 'lr': write KEY=VALUE"):
        parse_assignments(["lr"])


@pytest.mark.parametrize(("text", "says"), [("", "is empty"), ("a: " + "[" * 50_000, "nested too deeply")])
def test_a_file_that_is_empty_or_too_deep_is_told(tmp_path, text, says):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_settings(tmp_path / "a.yaml")
