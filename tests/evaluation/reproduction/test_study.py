"""Studies as data: what a file may say, and how each fault is named."""

from pathlib import Path
from typing import Any

import pytest

from galirep.errors import ConfigError
from galirep.evaluation.reproduction.catalog import SCALES, TABLES, load_study
from galirep.evaluation.reproduction.measures import COLUMNS
from galirep.evaluation.reproduction.runner import restricted
from galirep.evaluation.reproduction.study import ImageSet, Row, Study, settings_on

STUDIES = Path(__file__).parents[3] / "benchmarks" / "studies"
SET = {"name": "digits", "data": "digits", "image_size": 8, "updates": 10, "seeds": [0, 1]}


def study(**more: Any) -> Study:
    values = {"name": "mine", "columns": ["pixel_mse"], "rows": [{"name": "a"}, {"name": "b"}], "sets": [SET], **more}
    return Study.from_dict(values)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_each_table_fits_each_scale(table: str, scale: str) -> None:
    made = load_study(table, scale)
    made.check(COLUMNS)
    assert made.sets and made.claims and made.columns
    for image_set in made.sets:
        assert made.rows_on(image_set)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_studies_of_the_benchmarks_fit_together(path: Path) -> None:
    made = load_study(path)
    made.check(COLUMNS)
    assert made.sets and made.rows and made.columns


def test_a_scale_gives_a_table_only_the_rows_that_both_name() -> None:
    reconstruction = load_study("reconstruction", "cpu")
    mnist, celeba = reconstruction.sets
    assert [row.name for row in reconstruction.rows_on(mnist)] == [row.name for row in reconstruction.rows]
    # the paper has no GALI-8 on CelebA
    assert "gali-8" not in [row.name for row in reconstruction.rows_on(celeba)]


def test_settings_of_a_row_are_over_those_of_the_set_and_under_those_of_the_pair() -> None:
    image_set = ImageSet("s", "d", 8, updates=1, settings={"lr": 1, "width": 4}, row_settings={"a": {"width": 16}})
    assert settings_on(Row("a", settings={"lr": 2, "width": 8}), image_set) == {"lr": 2, "width": 16}
    assert settings_on(Row("b", kind="pca", settings={"components": 3}), image_set) == {"components": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colums": []}, "unknown key 'colums': did you mean 'columns'?"),
        ({"columns": ["pixel_mes"]}, "unknown column 'pixel_mes': did you mean 'pixel_mse'?"),
        ({"rows": [{"name": "a", "kind": "trian"}]}, "unknown kind of row 'trian': did you mean 'train'?"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "row 'a' occurs twice"),
        ({"rows": [{"kind": "train"}]}, "name is missing"),
        ({"rows": [{"name": "a", "setings": {}}]}, "row 'a': unknown key 'setings': did you mean 'settings'?"),
        ({"rows": [{"name": "a", "kind": "inverter"}]}, "`of` names the row"),
        ({"rows": [{"name": "a", "kind": "inverter", "of": "c"}]}, "unknown row 'c'"),
        ({"rows": {"name": "a"}}, "rows must be tables"),
        ({"sets": [{**SET, "seeds": []}]}, "give one seed or more"),
        ({"sets": [{**SET, "seeds": [1, 1]}]}, "seed of set 'digits' '1' occurs twice"),
        ({"sets": [{**SET, "seeds": "0"}]}, "seeds = '0' must be a list, each item a whole number"),
        ({"sets": [{**SET, "minutes": 1}]}, "exactly one of minutes, updates and epochs"),
        ({"sets": [{**SET, "updates": 0}]}, "exactly one of minutes, updates and epochs"),
        ({"sets": [{**SET, "image_size": "8"}]}, "image_size = '8' must be a whole number"),
        ({"claims": [{"text": "t", "better": "a", "than": ["z"], "columns": ["pixel_mse"]}]}, "unknown row 'z'"),
        ({"claims": [{"text": "t", "better": "a", "than": ["b"], "columns": ["svm"]}]}, "unknown column 'svm'"),
    ],
)
def test_faults_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study(**change).check(COLUMNS)
    assert message in str(caught.value)


def test_a_file_of_rows_by_name_and_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('columns = ["pixel_mse"]\nrows = ["ali", { name = "wide", settings = { width = 64 } }]\n')
    made = load_study(path, "cpu")
    assert made.name == "mine"
    assert [row.name for row in made.rows] == ["ali", "wide"]
    assert made.rows[0].settings == {"variant": "ali"}


@pytest.mark.parametrize(
    ("name", "scale", "text", "message"),
    [
        ("reconstructoin", None, None, "unknown table 'reconstructoin': did you mean 'reconstruction'?"),
        ("reconstruction", "cpus", None, "unknown scale 'cpus': did you mean 'cpu'?"),
        ("none.toml", None, None, "cannot read"),
        ("mine.toml", None, "rows = [", "is not valid TOML"),
        ("mine.toml", None, 'rows = ["alli"]', "unknown row 'alli'"),
        ("mine.toml", "cpu", "[[sets]]\nname = 's'\ndata = 'd'\nimage_size = 8\nupdates = 1", "leave --scale out"),
    ],
)
def test_faults_of_names_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, scale: str | None, text: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_study(name, scale)
    assert message in str(caught.value)


@pytest.mark.parametrize("budget", [{"updates": 20}, {"minutes": 0.5}])
@pytest.mark.parametrize("scale", SCALES)
def test_another_budget_takes_the_place_of_the_scale_s(scale: str, budget: dict[str, float]) -> None:
    chosen = restricted(load_study("reconstruction", scale), **budget)
    chosen.check(COLUMNS)
    for image_set in chosen.sets:
        assert {name: getattr(image_set, name) for name in ("minutes", "updates", "epochs")} == {
            "minutes": None, "updates": None, "epochs": None, **budget
        }  # fmt: skip


def test_a_restricted_study_keeps_the_claims_that_it_can_still_decide() -> None:
    claims = [
        {"text": "one", "better": "a", "than": ["b"], "columns": ["pixel_mse"]},
        {"text": "two", "better": "a", "than": ["b", "c"], "columns": ["pixel_mse"]},
    ]
    whole = study(rows=[{"name": name} for name in "abc"], claims=claims)
    part = restricted(whole, rows=["a", "b"], seeds=[5], minutes=2.0)
    assert [row.name for row in part.rows] == ["a", "b"]
    assert [claim.text for claim in part.claims] == ["one"]
    assert (part.sets[0].seeds, part.sets[0].minutes, part.sets[0].updates) == ((5,), 2.0, None)
    with pytest.raises(ConfigError, match="unknown set 'digit': did you mean 'digits'"):
        restricted(whole, sets=["digit"])
