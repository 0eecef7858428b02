"""`galirep info` on everything that galirep writes, and on other files."""

import json
import shutil

import numpy as np
import pytest

import galirep
from galirep.embeddings.schema import StoreMeta
from galirep.embeddings.writer import EmbeddingWriter
from galirep.errors import GalirepError
from galirep.inspection.paths import info


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train two updates on the digits and return the run directory."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    config = galirep.TrainConfig(
        data="sklearn:digits", variant="ali", networks="compact", image_size=8, width=4, batch_size=8, steps=2
    )
    galirep.train(config, out=out)
    return out


@pytest.fixture
def embeddings(tmp_path):
    meta = StoreMeta(
        encoder="test", layers=(("mu", 3), ("h", 2)), n_expected=4, label_names=("a", "b"), encoder_sha256="12ab"
    )
    with EmbeddingWriter.create(tmp_path / "e.h5", meta, ["w", "x", "y", "z"], [0, 1, 1, -1]) as writer:
        writer.append(np.eye(4, 5, dtype=np.float32))
        writer.finish()
    return tmp_path / "e.h5"


def test_a_run(cli, run):
    result = cli("info", run, "--json")
    assert result.exit_code == 0, result.stderr
    description = json.loads(result.stdout)
    assert (description["kind"], description["status"]) == ("run", "complete")
    assert (description["config"]["variant"], description["config"]["batch_size"]) == ("ali", 8)
    assert description["last_metrics"]["step"] == 2 and description["exports"] == [
        "export/discriminator.safetensors",
        "export/encoder.safetensors",
        "export/generator.safetensors",
    ]
    assert description["checkpoints"]["checkpoints/last.pt"] == (run / "checkpoints" / "last.pt").stat().st_size
    assert description["devices"] == ["cpu"]
    shown = cli("info", run).stdout
    assert "kind" in shown and "sklearn:digits" in shown and "last_metrics" in shown


def test_a_run_of_an_older_galirep_names_no_device(cli, run, tmp_path):
    old = shutil.copytree(run, tmp_path / "old")
    recorded = json.loads((old / "run.json").read_text())
    del recorded["devices"]
    (old / "run.json").write_text(json.dumps(recorded))
    assert "devices" not in info(old) and cli("info", old).exit_code == 0


def test_a_checkpoint_and_an_export(run):
    checkpoint = info(run / "checkpoints" / "last.pt")
    assert (
        checkpoint["kind"] == "checkpoint"
        and checkpoint["galirep_version"] == galirep.__version__
        and "config" in checkpoint["parts"]
    )
    folder, file = info(run / "export"), info(run / "export" / "encoder.safetensors")
    assert (folder["kind"], folder["network"]) == (file["kind"], file["network"]) == ("export", "encoder")
    assert folder["parameters"] == file["parameters"] > 100


def test_embeddings(cli, embeddings):
    description = json.loads(cli("info", embeddings, "--json").stdout)
    assert (
        description["kind"] == "embeddings" and description["complete"] and description["layers"] == {"mu": 3, "h": 2}
    )
    assert (description["rows"], description["dim"], description["labelled"], description["classes"]) == (4, 5, 3, 2)
    assert description["first_ids"] == ["w", "x", "y"] and description["encoder_sha256"] == "12ab"
    assert "12ab" in cli("info", embeddings).stdout


def test_an_interrupted_embedding_file(tmp_path):
    meta = StoreMeta(encoder="test", layers=(("mu", 3),), n_expected=4)
    with EmbeddingWriter.create(tmp_path / "e.h5", meta, ["w", "x", "y", "z"]) as writer:
        writer.append(np.eye(2, 3, dtype=np.float32))
    description = info(tmp_path / "e.h5.partial")
    assert not description["complete"] and description["rows"] == 2 and description["n_expected"] == 4
    with pytest.raises(
        GalirepError, match=r"e\.h5: no such file or directory; an interrupted run left .*e\.h5\.partial"
    ):
        info(tmp_path / "e.h5")


def test_an_index(cli, embeddings):
    index = embeddings.with_name("e.faiss")
    assert cli("index", embeddings, "--out", index).exit_code == 0
    description = json.loads(cli("info", index, "--json").stdout)
    assert description["kind"] == "index" and (
        description["metric"],
        description["n"],
        description["dim"],
        description["exact"],
    ) == ("cosine", 4, 5, True)
    assert description["embeddings"]["encoder_sha256"] == "12ab"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("missing", None, "no such file or directory"),
        ("picture.png", b"\x89PNG\r\n\x1a\n", "was not made by galirep: it is not a run directory"),
        ("empty.h5", b"", "was not made by galirep: it is not a run directory"),
        ("cut.h5", b"\x89HDF\r\n\x1a\n" + bytes(30), "cut.h5"),
        ("foreign.pt", b"PK\x03\x04" + bytes(30), "truncated or damaged"),
        ("foreign.faiss", b"IxFI" + bytes(30), "no sidecar"),
        ("foreign.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "is not a galirep export of kind 'foreign'"),
        ("cut.safetensors", b"\x02\x00\x00", "truncated or damaged"),
    ],
)
def test_files_that_galirep_did_not_make(cli, tmp_path, name, content, text):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = cli("info", path)
    assert result.exit_code == 1 and result.stdout == "" and result.stderr.count("\n") == 1 and text in result.stderr


def test_a_folder_that_is_not_a_run(cli, tmp_path):
    result = cli("info", tmp_path)
    assert result.exit_code == 1 and "is not a run of galirep" in result.stderr


def test_a_run_with_a_damaged_file(cli, tmp_path):
    (tmp_path / "config.yaml").write_text("data: [")
    (tmp_path / "run.json").write_text("{}")
    result = cli("info", tmp_path)
    assert result.exit_code == 1 and "damaged" in result.stderr and result.stderr.count("\n") == 1
