"""`galirep list`: everything it lists can be used by that name."""

import json
from importlib.metadata import version

import pytest

import galirep
from galirep.features.registry import installed
from galirep.networks.families import NETWORKS
from galirep.probing.protocols import PROTOCOLS


def _rows(cli, what):
    result = cli("list", what, "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)[what]
    assert all(row["about"] and "\n" not in row["about"] for row in rows)
    return rows


def test_variants_are_found_by_their_names(cli):
    names = [row["name"] for row in _rows(cli, "variants")]
    assert {
        "ali",
        "alice",
        "gali-4",
        "gali-8",
        "gali-mix",
        "gali-pt",
        "masked-ali",
        "masked-alice",
        "masked-gali-4",
    } <= set(names)
    assert [galirep.get_variant(name).name for name in names] == names
    origins = {row["name"]: row["origin"] for row in _rows(cli, "variants")}
    assert (origins["gali-4"], origins["gali-4-l2"], origins["gali-4-cycle"]) == ("paper", "galirep", "galirep")
    lines = cli("list", "variants").stdout.splitlines()
    own = {line.split()[0] for line in lines if line.endswith("(not of the paper: galirep's)")}
    assert own == {"gali-4-l2", "gali-4-cycle"}


def test_networks_protocols_and_data_sets(cli):
    assert {row["name"] for row in _rows(cli, "networks")} == set(NETWORKS) >= {"svhn32", "celeba64", "compact"}
    assert {row["name"] for row in _rows(cli, "protocols")} == set(PROTOCOLS) >= {"linear-svm/v1", "ali-l2svm/v1"}
    assert "knn/v1" in PROTOCOLS
    assert {"sklearn:digits", "torchvision:svhn", "npz:FILE"} <= {row["name"] for row in _rows(cli, "datasets")}


def test_adapters_say_where_they_come_from(cli):
    rows = _rows(cli, "adapters")
    names = {row["name"] for row in rows}
    assert names == set(installed()) >= {"timm", "inception", "torchscript", "classifier", "run", "random", "pixels"}
    assert {row["from"] for row in rows if row["name"] in ("timm", "pixels")} == {f"galirep {version('galirep')}"}
    assert not [row for row in rows if row["about"].startswith("cannot be loaded")]


def test_an_adapter_that_cannot_be_loaded_hides_no_other(cli, tmp_path, monkeypatch):
    info = tmp_path / "stranger-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[galirep.features]\nstrange = no_such_module:build\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = {row["name"]: row for row in _rows(cli, "adapters")}
    assert rows["strange"]["from"] == "stranger 1.2" and "no_such_module" in rows["strange"]["about"]
    assert "timm" in rows


def test_the_text_has_a_line_for_each(cli):
    shown = cli("list", "protocols").stdout.splitlines()
    assert [line.split()[0] for line in shown] == list(PROTOCOLS)


@pytest.mark.parametrize("what", ["variant", ""])
def test_an_unknown_list_is_bad_usage(cli, what):
    result = cli("list", what)
    assert result.exit_code == 2 and "protocols" in result.stderr
