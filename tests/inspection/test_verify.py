"""`galirep verify` of indices and exports: every changed byte is noticed, by verify and by whoever reads the file."""

import json
import random
import shutil
from pathlib import Path

import h5py
import pytest
from tiny_runs import config, tiny

import galirep
from galirep.errors import ConfigError, DataError, GalirepError
from galirep.search.index_replacing import rows_path, sidecar_path
from galirep.training.loop import train

OLD = Path(__file__).parents[1] / "fixtures" / "written_by_04408f9"


@pytest.fixture
def index(galleries, tmp_path):
    (tmp_path / "i").mkdir()
    galirep.build_index(galleries[0], tmp_path / "i" / "x.faiss")
    return tmp_path / "i" / "x.faiss"


@pytest.fixture
def folder(galleries, tmp_path):
    galirep.export_embeddings(galleries[0], tmp_path / "folder", rows_per_file=150)
    return tmp_path / "folder"


@pytest.fixture
def export(tmp_path):
    galirep.export_run(OLD / "run", tmp_path / "export")
    return tmp_path / "export"


def noticed(path):
    """Return whether verify finds a problem, or ends in one line."""
    try:
        return not galirep.verify(path).ok
    except GalirepError as err:
        return "\n" not in str(err)


def flip(path, files, count):
    """Change one bit of a file at a time; return the number of changes that verify did not notice."""
    draw, unseen = random.Random(0), []
    for file in files:
        whole = file.read_bytes()
        for place in draw.sample(range(len(whole)), min(count, len(whole))):
            changed = bytearray(whole)
            changed[place] ^= 1 << draw.randrange(8)
            file.write_bytes(changed)
            if not noticed(path):
                unseen.append((file.name, place))
        file.write_bytes(whole)
    return unseen


def test_an_index(index, galleries, cli):
    done = cli("verify", index, "--json")
    assert done.exit_code == 0 and "index, 400 rows of" in done.stderr and json.loads(done.stdout)["kind"] == "index"
    unseen = flip(index, (index, rows_path(index), sidecar_path(index)), 25)
    # one byte of the sidecar means the same to JSON: a blank between two values
    assert not [name for name, _ in unseen if name != sidecar_path(index).name], unseen
    sidecar = json.loads(sidecar_path(index).read_text())
    sidecar["recall_at_10"] = 0.5
    sidecar_path(index).write_text(json.dumps(sidecar))
    with pytest.raises(DataError, match=r"x\.faiss\.json is damaged: it is not what was written"):
        galirep.retrieve(index, galleries[1], k=1)


def test_the_rows_of_an_index_have_no_strings_of_variable_length(index):
    with h5py.File(rows_path(index)) as file:
        assert file["ids"].dtype.kind == "S" and file["ids"].asstr()[0]
    assert b"GCOL" not in rows_path(index).read_bytes()


def test_an_index_of_schema_one(cli):
    result = galirep.verify(OLD / "digits.faiss")
    assert result.ok and "without a checksum of every byte" in result.warnings[0]
    assert cli("verify", OLD / "digits.faiss").exit_code == 0


def test_an_exported_folder(folder, tmp_path, cli):
    done = cli("verify", folder)
    assert done.exit_code == 0 and "export of embeddings, 400 rows of" in done.stdout
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    unseen = flip(folder, files, 12)
    assert not [name for name, _ in unseen if name != "galirep.json"], unseen
    array = folder / "img_emb" / "img_emb_0001.npy"
    content = bytearray(array.read_bytes())
    content[-3] ^= 4
    array.write_bytes(content)
    match = r"'img_emb/img_emb_0001\.npy' is not the file that galirep\.json was written for: export it again or"
    with pytest.raises(DataError, match=match):
        galirep.import_embeddings(folder, tmp_path / "back.h5")
    (folder / "galirep.json").unlink()
    galirep.import_embeddings(folder, tmp_path / "back.h5")
    assert "no galirep.json with checksums" in galirep.verify(folder).warnings[0]


def test_a_header_names_no_file_elsewhere(folder, tmp_path):
    header = json.loads((folder / "galirep.json").read_text())
    header["files"]["../secret"] = "1-00000000"
    (folder / "galirep.json").write_text(json.dumps(header))
    (tmp_path / "secret").write_text("x")
    with pytest.raises(DataError, match=r"'\.\./secret' is not the file"):
        galirep.verify(folder)


def test_an_export_certifies_nothing_damaged(galleries, tmp_path):
    with h5py.File(galleries[0], "r+") as file:
        file["features"][7, 0] += 1
    with pytest.raises(DataError, match="1 of 400 rows"):
        galirep.export_embeddings(galleries[0], tmp_path / "folder")


def test_the_export_of_a_run(export, tmp_path, cli):
    # written by an earlier version, which had no hash of the header
    done = cli("verify", export)
    assert done.exit_code == 0 and "encoder.safetensors was written without a hash of its header" in done.stdout
    train(config(steps=1), tiny(), out=tmp_path / "run")
    new = tmp_path / "run" / "export"
    result = galirep.verify(tmp_path / "run")
    assert result.ok and not result.warnings and result.kind == "run"
    assert not flip(new, [new / "encoder.safetensors"], 15)
    header = json.loads((new / "encoder.json").read_text())
    (new / "encoder.json").write_text(json.dumps({**header, "step": 7}))
    assert galirep.verify(new).problems == ["encoder.json is not the header of encoder.safetensors"]


@pytest.mark.parametrize(
    "name",
    ["best/encoder.safetensors", "checkpoints/last.pt", "checkpoints/best.pt", "run.json", "config.yaml"]
    + ["metrics.jsonl", "export/generator.safetensors"],
)
def test_every_file_of_a_run_is_read(name, tmp_path, cli):
    shutil.copytree(OLD / "run", tmp_path / "run")
    path = tmp_path / "run" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    done = cli("verify", tmp_path / "run")
    assert done.exit_code == 1 and "not fit for use" in done.stdout
    assert any(name in line for line in done.stdout.splitlines() if line.startswith("problem: "))
    assert name in galirep.verify(tmp_path / "run").checked


def test_an_index_certifies_nothing_damaged(galleries, tmp_path):
    with h5py.File(galleries[0], "r+") as file:
        file["features"][7, 0] += 1
    with pytest.raises(DataError, match="1 of 400 rows"):
        galirep.build_index(galleries[0], tmp_path / "x.faiss")
    assert not list(tmp_path.glob("x.faiss*"))


def test_options_of_embedding_files_alone(index):
    with pytest.raises(ConfigError, match="is no embedding file: leave --encoder and --data out"):
        galirep.verify(index, encoder="pixels:2")
    shutil.rmtree(index.parent)
    with pytest.raises(DataError, match="does not exist"):
        galirep.verify(index)
