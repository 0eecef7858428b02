"""A study is made once: results are kept, filled up, checked, and become tables and verdicts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import galirep
from galirep.errors import ConfigError, GalirepError
from galirep.evaluation.reproduction import laboratory
from galirep.evaluation.reproduction.made import layer_sets
from galirep.evaluation.reproduction.report import write_report
from galirep.evaluation.reproduction.study import Study
from galirep.features.registry import load_extractor
from galirep.networks.saved import load_autoencoder

STUDY = {
    "name": "mine",
    "columns": ["pixel_mse", "latent_mse"],
    "rows": [
        {"name": "gali-4", "settings": {"variant": "gali-4"}},
        {"name": "ali", "settings": {"variant": "ali"}},
        {"name": "mean image", "kind": "mean-image"},
        {"name": "PCA", "kind": "pca", "settings": {"components": 3}},
    ],
    "claims": [{"text": "GALI-4 beats ALI", "better": "gali-4", "than": ["ali"], "columns": ["pixel_mse"]}],
    "sets": [
        {
            "name": "digits",
            "data": "digits",
            "image_size": 8,
            "updates": 3,
            "seeds": [0, 1],
            "probe_labels": 100,
            "probe_draws": 1,
            "settings": {"width": 4, "latent_dim": 4, "batch_size": 8, "evaluate_every": 0},
        }
    ],
}
DATA = {"digits": "sklearn:digits"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("study")
    return out, galirep.reproduce(Study.from_dict(STUDY), out=out, data=DATA)


def test_each_row_and_seed_has_a_result_with_what_made_it(made: tuple[Path, Any]) -> None:
    out, reproduction = made
    names = sorted(path.name for path in (out / "results" / "digits").iterdir())
    assert names == ["PCA.json", "ali-0.json", "ali-1.json", "gali-4-0.json", "gali-4-1.json", "mean image.json"]
    stored = json.loads((out / "results/digits/gali-4-1.json").read_text())
    assert stored in reproduction.to_dict()["results"]
    assert (stored["row"], stored["seed"], stored["updates"]) == ("gali-4", 1, 3)
    assert stored["identity"]["settings"] == {"variant": "gali-4", **STUDY["sets"][0]["settings"]}
    assert stored["provenance"]["test"]["images"] == 445 and len(stored["provenance"]["date"]) == 10
    assert stored["sha256"]["encoder"] == load_autoencoder(out / "digits/gali-4-1/run")[2]["sha256"]


def test_columns_are_the_metrics_of_evaluate(made: tuple[Path, Any]) -> None:
    out, reproduction = made
    entry = galirep.evaluate(
        out / "digits/ali-0/run", "sklearn:digits", metrics=["pixel-mse", "posterior"], device="cpu"
    ).metrics
    (result,) = (r for r in reproduction.results if (r["row"], r["seed"]) == ("ali", 0))
    assert result["pixel_mse"] == entry["pixel-mse"]["mean"]
    assert result["latent_mse"] == entry["posterior"]["latent_cycle"]["mean"]
    (mean,) = (r for r in reproduction.results if r["row"] == "mean image")
    images = {split: np.asarray(_pixels(split), np.float64) / 255 for split in ("train", "test")}
    # the mean of the training images, rounded nowhere
    expected = ((images["test"] - images["train"].mean(0)) ** 2).mean()
    assert mean["pixel_mse"] == pytest.approx(expected, rel=1e-5) and mean["latent_mse"] is None


def _pixels(split: str) -> Any:
    from galirep.data.memory import load_images

    return load_images(galirep.open_data("sklearn:digits", split), 8).pixels


def test_the_table_and_the_verdict_are_of_the_results(made: tuple[Path, Any]) -> None:
    _, reproduction = made
    (verdict,) = reproduction.verdicts
    values = {(r["row"], r["seed"]): r["pixel_mse"] for r in reproduction.results}
    differences = [values["gali-4", seed] - values["ali", seed] for seed in (0, 1)]
    (comparison,) = verdict.comparisons
    assert comparison.difference == pytest.approx(np.mean(differences))
    # t(0.975, 1) = 12.706
    assert comparison.half_width == pytest.approx(12.7062 * np.std(differences, ddof=1) / np.sqrt(2), rel=1e-4)
    lines = reproduction.text.splitlines()
    assert "| row | seeds | updates | pixel_mse | latent_mse |" in lines
    mean = np.mean([values["ali", 0], values["ali", 1]])
    assert any(line.startswith(f"| ali | 2 | 3 | {mean:.4f} ± ") for line in lines)
    assert any(line.startswith(f"| GALI-4 beats ALI | **{verdict.verdict}** |") for line in lines)


def test_what_is_stored_is_not_made_again(made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    out, reproduction = made

    def fail(*_: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(laboratory, "make", fail)
    # neither runs nor data are needed for the tables
    again = galirep.reproduce(Study.from_dict(STUDY), out=out / "elsewhere", data={}, results=out / "results")
    assert again.text == reproduction.text and again.to_dict() == reproduction.to_dict()


def test_a_new_column_is_measured_on_the_runs_that_are_there(made: tuple[Path, Any], tmp_path: Path) -> None:
    out, reproduction = made
    before = (out / "digits/ali-0/run/metrics.jsonl").read_bytes()
    wider = {**STUDY, "columns": ["pixel_mse", "gradient_norm"]}
    more = galirep.reproduce(Study.from_dict(wider), out=out, data=DATA, rows=["ali"], seeds=[0])
    (result,) = more.results
    (old,) = (r for r in reproduction.results if (r["row"], r["seed"]) == ("ali", 0))
    assert result["gradient_norm"] > 0 and {k: result[k] for k in ("pixel_mse", "latent_mse")} == {
        k: old[k] for k in ("pixel_mse", "latent_mse")
    }
    assert (out / "digits/ali-0/run/metrics.jsonl").read_bytes() == before


def test_a_result_of_other_settings_is_refused(made: tuple[Path, Any]) -> None:
    out, _ = made
    with pytest.raises(
        ConfigError, match=r"gali-4-0.json was made with updates 3, not 4: give another --out and --res"
    ):
        galirep.reproduce(Study.from_dict(STUDY), out=out, data=DATA, updates=4)
    other = [{"name": "gali-4", "settings": {"variant": "gali-4", "lr": 0.1}}]
    with pytest.raises(ConfigError, match=r"gali-4-0.json was made with lr none, not 0.1"):
        galirep.reproduce(Study.from_dict({**STUDY, "rows": other, "claims": []}), out=out, data=DATA)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "needs the data 'digits': give --data digits=SPEC"),
        ({**DATA, "digit": "x"}, "unknown data 'digit': did you mean 'digits'?"),
    ],
)
def test_data_that_is_missing_or_unknown(tmp_path: Path, data: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        galirep.reproduce(Study.from_dict(STUDY), out=tmp_path / "out", data=data)
    assert message in str(caught.value) and not (tmp_path / "out").exists()


def test_a_table_without_sets_needs_a_scale(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a scale"):
        galirep.reproduce("reconstruction", out=tmp_path, data={})


def test_a_dry_run_makes_nothing_and_says_what_it_would_take(tmp_path: Path) -> None:
    said = galirep.reproduce(
        "reconstruction", scale="paper", out=tmp_path / "out", data={}, sets=["svhn"], dry_run=True
    )
    assert not (tmp_path / "out").exists()
    lines = said.text.splitlines()
    # GALI-4: 100 passes over 530,131 of 531,131 images, 100 an update, at 1097.6 M multiplications an image
    assert lines[0].startswith("reconstruction: 9 results are missing; 5 runs take")
    (line,) = (line for line in lines if line.startswith("svhn gali-4-0: "))
    assert "530,131 updates, 1.16e+17 FLOP" in line
    command = lines[lines.index(line) + 1]
    assert "galirep train --out" in command and "--variant gali-4" in command and "--steps 530131" in command
    (ali,) = (line for line in lines if line.startswith("svhn ali-0: "))
    # 300 passes at five images of D's for one of G's
    assert "318,079 updates" in ali


def test_the_command_is_the_function(cli: Any, made: tuple[Path, Any], tmp_path: Path) -> None:
    out, _ = made
    reproduction = galirep.reproduce(Study.from_dict(STUDY), out=tmp_path / "p", results=out / "results", data={})
    study = tmp_path / "mine.toml"
    study.write_text(_toml(STUDY))
    done = cli(
        *("reproduce", study, "--out", tmp_path / "o", "--results", out / "results", "--data", "digits=sklearn:digits"),
        *("--json", "--markdown", tmp_path / "t.md"),
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == reproduction.to_dict()
    assert (tmp_path / "t.md").read_text() == f"<!-- mine -->\n{reproduction.text}\n<!-- end mine -->\n"


def test_tables_are_written_between_their_lines_and_nothing_else_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text("before\n<!-- mine -->\nold\n<!-- end mine -->\nafter\n")
    write_report(path, "mine", "| new |")
    assert path.read_text() == "before\n<!-- mine -->\n| new |\n<!-- end mine -->\nafter\n"
    with pytest.raises(ConfigError, match="lacks the lines <!-- other --> and <!-- end other -->"):
        write_report(path, "other", "| new |")


def test_bad_words_of_the_command(cli: Any, tmp_path: Path) -> None:
    for words, code, message in (
        (["reproduce", "reconstruction", "--out", tmp_path, "--data", "mnist"], 2, "'mnist' is not KEY=SPEC"),
        (["reproduce", "tables", "--out", tmp_path], 1, "unknown table 'tables'"),
        (["reproduce", "reconstruction", "--out", tmp_path, "--seeds", "a"], 1, "seeds a: give whole numbers"),
        (
            ["reproduce", "reconstruction", "--scale", "cpu", "--out", tmp_path, "--rows", "gali4"],
            1,
            "unknown row 'gali4'",
        ),
    ):
        done = cli(*words)
        assert done.exit_code == code and message in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def _toml(study: dict[str, Any]) -> str:
    lines = [f"name = {json.dumps(study['name'])}", f"columns = {json.dumps(study['columns'])}"]
    for key in ("rows", "claims", "sets"):
        lines.append(f"{key} = [{', '.join(map(_inline, study[key]))}]")
    return "\n".join(lines)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_inline(v)}" for key, v in value.items()) + " }"
    return json.dumps(value)


def test_the_sets_of_layers_are_one_rule_for_every_row(tmp_path: Path) -> None:
    untrained = layer_sets(load_extractor("random:compact,size=16,channels=1"))
    assert {name: list(chosen.layers) for name, chosen in untrained.items()} == {
        "paper": ["conv2", "conv3", "fc1", "mu"],
        "first of E": ["conv1:flat"],
        "d2": ["d2:flat"],
        "d2 to d4": ["d2:flat", "d3", "d4"],
        "paper and d2": ["conv2", "conv3", "fc1", "mu", "d2:flat"],
    }
    # 32 channels of 16 x 16 would be more columns than a probe of a thousand rows should read
    large = layer_sets(load_extractor("random:compact,size=32,channels=1"))
    assert list(large["first of E"].layers) == ["conv1:8x8"]
    settings = {"data": "sklearn:digits", "objective": "vicreg", "net": "compact", "image_size": 8, "width": 4}
    galirep.train_classifier(
        galirep.ClassifierConfig(**settings, steps=1, batch_size=8, num_workers=0), out=tmp_path / "m"
    )
    own = layer_sets(load_extractor(f"classifier:{tmp_path / 'm'}"))
    assert {name: list(chosen.layers) for name, chosen in own.items()} == {
        "paper": ["conv1", "conv2", "fc1"],
        "first of E": ["conv1:flat"],
    }
    assert list(layer_sets(load_extractor("pixels:8"))) == ["own"]
    on_body = {**STUDY["sets"][0]["settings"], "data": "sklearn:digits", "image_size": 8, "steps": 1}
    galirep.train(galirep.TrainConfig(**on_body, body=f"classifier:{tmp_path / 'm'}"), out=tmp_path / "b")
    body = layer_sets(load_extractor(f"run:{tmp_path / 'b'}"))
    # a body gives vectors, so E has no map, and a D of 8 pixels has three blocks
    assert list(body) == ["paper"] and list(body["paper"].layers)[-2:] == ["fc1", "mu"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [{"name": "w", "settings": {"body": "classifier:{nope}"}}]}, "row 'w': unknown row 'nope'"),
        ({"rows": [{"name": "w", "settings": {"adapter": "classifier:{knowledge}"}}]}, "the set gives no knowledge"),
        ({"rows": [{"name": "w", "settings": {"variant": "gali-pt"}}]}, "variant 'gali-pt' needs M(.): set adapter"),
        ({"rows": [{"name": "w", "settings": {"body": "run:{p}"}}, {"name": "p", "kind": "pixels"}]}, "has no run"),
        ({"rows": [{"name": "w", "settings": {"body": "run:{w}"}}]}, "rows 'w' need each other's runs in a circle"),
        ({"rows": [{"name": "w", "settings": {"image_size": 16}}]}, "row 'w': image_size 16: the set decides that"),
        ({"rows": [{"name": "w", "settings": {"steps": 9}}]}, "row 'w': steps 9: the set decides that"),
        ({"rows": [{"name": "w", "settings": {"epochs": 9}}]}, "row 'w': epochs 9: the set decides that"),
        ({"rows": [{"name": "w", "settings": {"widht": 9}}]}, "row 'w': unknown setting 'widht': did you mean 'width'"),
        ({"rows": [{"name": "w", "settings": {"variant": "gali4"}}]}, "unknown variant 'gali4'"),
        (
            {"rows": [{"name": "w", "kind": "pixels", "settings": {"width": 4}}]},
            "unknown setting of kind pixels 'width'",
        ),
        ({"rows": [{"name": "w", "kind": "knowledge"}]}, "row 'w' is M itself, and the set gives no knowledge"),
        ({"claims": [{"text": "c", "better": "ali", "than": ["alicee"], "columns": []}]}, "unknown row 'alicee'"),
        (
            {"columns": ["feature_mse"]},
            "gives no judge, which column 'feature_mse' needs: add e.g. judge = { seed = 1 }",
        ),
        ({"columns": ["svm"], "probe_labels": 5000}, "probe_labels 5000 is more than the 1352 training images"),
        ({"judge": {"sed": 1}}, "set 'digits': judge: unknown setting 'sed'"),
        ({"labels": "digits"}, "labels and test_labels are two files of one kind"),
        ({"set_rows": ["alii"]}, "unknown row 'alii': did you mean 'ali'"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_a_study_lacks_is_told_before_anything_is_made(
    tmp_path: Path, change: dict[str, Any], message: str, dry_run: bool
) -> None:
    study = {**STUDY, **{key: value for key, value in change.items() if key in ("rows", "columns", "claims")}}
    if "rows" in change or "columns" in change:
        study["claims"] = []
    of_set = {key.removeprefix("set_"): value for key, value in change.items() if key not in study}
    study["sets"] = [{**STUDY["sets"][0], **of_set}]
    with pytest.raises(GalirepError) as caught:
        galirep.reproduce(Study.from_dict(study), out=tmp_path / "out", data=DATA, dry_run=dry_run)
    assert message in str(caught.value) and not (tmp_path / "out").exists()


def test_results_of_different_images_do_not_stand_side_by_side(made: tuple[Path, Any], tmp_path: Path) -> None:
    out, _ = made
    results = shutil.copytree(out / "results", tmp_path / "results")
    (results / "digits" / "ali-1.json").unlink()
    other = {"digits": str(_pictures(tmp_path / "other"))}
    where = {"out": tmp_path / "out", "results": results}
    with pytest.raises(ConfigError, match=r"was made on other train images .* than --data digits=.*other has"):
        galirep.reproduce(Study.from_dict(STUDY), **where, data=other)
    assert not (tmp_path / "out").exists()
    path = results / "digits" / "ali-0.json"
    stored = json.loads(path.read_text())
    stored["provenance"]["test"]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"ali-0.json was made on other test images .* than .*: delete one of them"):
        galirep.reproduce(Study.from_dict(STUDY), **where, rows=["PCA", "ali"], seeds=[0])


def _pictures(folder: Path) -> Path:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


def test_a_row_waits_for_the_run_that_it_stands_on(tmp_path: Path) -> None:
    rows = [
        {"name": "on vicreg", "settings": {"body": "classifier:{vicreg}"}},
        {
            "name": "vicreg",
            "kind": "views",
            "settings": {"objective": "vicreg", "net": "compact", "width": 4, "batch_size": 8, "num_workers": 0},
        },
    ]
    columns = ["pixel_mse", "svm_chosen"]
    one_seed = {**STUDY["sets"][0], "seeds": [0], "updates": 2}
    study = Study.from_dict({**STUDY, "rows": rows, "columns": columns, "claims": [], "sets": [one_seed]})
    with pytest.raises(ConfigError, match="needs the run of row 'vicreg', which --rows leaves out"):
        galirep.reproduce(study, out=tmp_path, data=DATA, rows=["on vicreg"])
    made = galirep.reproduce(study, out=tmp_path, data=DATA)
    assert [result["row"] for result in made.results] == ["vicreg", "on vicreg"]
    assert all(result["svm_chosen"] < 0.9 for result in made.results)
    # a result whose run is gone is no ground to stand on
    (tmp_path / "results/digits/on vicreg-0.json").unlink()
    with pytest.raises(ConfigError, match=r"whose result is stored, and .* is not there"):
        galirep.reproduce(study, out=tmp_path / "elsewhere", results=tmp_path / "results", data=DATA)


def test_what_is_in_the_folders_is_of_the_same_study(made: tuple[Path, Any], tmp_path: Path) -> None:
    out = shutil.copytree(made[0] / "digits" / "ali-0", tmp_path / "digits" / "ali-0").parents[1]
    with pytest.raises(ConfigError, match="was begun with updates 3, not 4: give another --out"):
        galirep.reproduce(Study.from_dict(STUDY), out=out, data=DATA, rows=["ali"], seeds=[0], updates=4)
    judged = {**STUDY, "columns": ["feature_mse"], "rows": [STUDY["rows"][2]], "claims": []}
    judge = {"seed": 1, "net": "compact", "width": 4, "steps": 1, "batch_size": 8, "num_workers": 0}
    for seed in (1, 2):
        study = Study.from_dict({**judged, "sets": [{**STUDY["sets"][0], "judge": {**judge, "seed": seed}}]})
        where = {"out": out, "results": tmp_path / f"results {seed}", "data": DATA}
        if seed == 1:
            assert galirep.reproduce(study, **where).results[0]["feature_mse"] > 0
            continue
        with pytest.raises(ConfigError, match=r"judge/run was trained with seed 1, not 2: give another --out"):
            galirep.reproduce(study, **where)


def test_bad_places_of_the_command_are_told_first(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(_toml(STUDY))
    for words, message in (
        (["--markdown", tmp_path / "no" / "x.md"], "does not exist"),
        (["--data", "digits=nofolder"], "nofolder"),
        (["--data", "digit=sklearn:digits"], "unknown data 'digit': did you mean 'digits'?"),
    ):
        given = [] if "--data" in words else ["--data", "digits=sklearn:digits"]
        done = cli("reproduce", tmp_path / "mine.toml", "--out", tmp_path / "out", *given, *words)
        assert done.exit_code == 1 and message in done.stderr, done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml"]


def test_several_tables_are_one_new_file(cli: Any, made: tuple[Path, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(_toml({**STUDY, "name": name}))
    studies = (tmp_path / "one.toml", tmp_path / "two.toml")
    stored = ("--out", tmp_path, "--results", made[0] / "results", "--markdown", tmp_path / "t.md", "--json")
    done = cli("reproduce", *studies, *stored)
    assert [study["study"] for study in json.loads(done.stdout)["studies"]] == ["one", "two"]
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("<!-- one -->\n") and text.index("<!-- end one -->") < text.index("<!-- two -->")
    assert cli("reproduce", *studies, *stored).exit_code == 0 and (tmp_path / "t.md").read_text() == text
