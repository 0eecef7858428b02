"""Tables of measured runs: what is collected, how it is grouped, where it is written, and bad input."""

import json

import pytest

from galirep.errors import ConfigError, DataError
from galirep.evaluation.tables import collect_evaluations, format_table, write_between

ROWS = [
    {"minutes": 10.0, "recipe": "small", "seed": 0, "pixel_mse": 0.01, "updates": 100},
    {"minutes": 0.0, "recipe": "PCA", "seed": 0, "pixel_mse": 0.0026},
    {"minutes": 10.0, "recipe": "small", "seed": 1, "pixel_mse": 0.03, "updates": None},
]


def _write(folder, row):
    folder.mkdir()
    text = row if isinstance(row, str) else json.dumps(row)
    (folder / "evaluation.json").write_text(text)


def test_evaluations_are_collected_in_the_order_of_their_folders(tmp_path):
    for name, row in zip("bca", ROWS, strict=True):
        _write(tmp_path / name, row)
    (tmp_path / "unfinished").mkdir()
    assert collect_evaluations(tmp_path) == [ROWS[2], ROWS[0], ROWS[1]]
    assert collect_evaluations(tmp_path / "nowhere") == []


@pytest.mark.parametrize(("text", "message"), [("[1]", "must be a JSON object, not list"), ("{", "cannot read")])
def test_a_broken_evaluation_is_named(tmp_path, text, message):
    _write(tmp_path / "a", text)
    with pytest.raises(DataError, match=rf"evaluation\.json.*{message}|{message} .*evaluation\.json"):
        collect_evaluations(tmp_path)


def test_a_line_for_each_group():
    table = format_table(
        ROWS, group_by=("minutes", "recipe"), columns={"updates": 0, "pixel_mse": 4}, listed={"seed": "seeds"}
    )
    # 0.01 and 0.03: mean 0.02, half-width t(0.975, 1) * s / sqrt 2 = 12.7062 * 0.0141421 / 1.41421
    assert table.splitlines() == [
        "| minutes | recipe | seeds | updates | pixel_mse |",
        "|---|---|---|---|---|",
        "| 10 | small | 0, 1 | 100 | 0.0200 ± 0.1271 |",
        "| 0 | PCA | 0 |  | 0.0026 |",
    ]


def test_a_table_without_rows_is_its_head():
    assert format_table([], group_by=["variant"], columns={"error": 2}) == "| variant | error |\n|---|---|"


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"recipe": "small", "seed": 0}], "lacks minutes"),
        ([{"minutes": 1, "recipe": "small"}], "lacks seed"),
        ([{"minutes": 1, "recipe": "a", "seed": 0, "error": "low"}], "error must be a number in a table, not 'low'"),
        ([{"minutes": 1, "recipe": "a", "seed": 0, "error": True}], "error must be a number"),
        ([{"minutes": 1, "recipe": "a", "seed": 0, "error": float("nan")}], "finite values"),
    ],
)
def test_bad_rows(rows, text):
    with pytest.raises(DataError, match=text):
        format_table(rows, group_by=("minutes", "recipe"), columns={"error": 4}, listed={"seed": "seeds"})


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "RESULTS.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- end a -->\nafter é\n", encoding="utf-8")
    write_between(page, "<!-- a -->", "<!-- end a -->", "| new |")
    expected = "before\n<!-- a -->\n| new |\n<!-- end a -->\nafter é\n"
    assert page.read_text(encoding="utf-8") == expected
    write_between(page, "<!-- a -->", "<!-- end a -->", "| new |")
    assert page.read_text(encoding="utf-8") == expected
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize("content", ["", "<!-- a -->\n", "<!-- end a -->\n<!-- a -->\n"])
def test_a_page_without_the_marks_is_refused_and_left_as_it_is(tmp_path, content):
    page = tmp_path / "RESULTS.md"
    page.write_text(content)
    with pytest.raises(ConfigError, match="does not contain the lines <!-- a --> and <!-- end a -->"):
        write_between(page, "<!-- a -->", "<!-- end a -->", "| new |")
    assert page.read_text() == content
    with pytest.raises(ConfigError, match="cannot read"):
        write_between(tmp_path / "missing.md", "<!-- a -->", "<!-- end a -->", "| new |")
