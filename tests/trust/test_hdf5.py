"""An HDF5 file is read without opening others: no links, external storage or virtual datasets of strangers."""

import json
import shutil

import h5py
import numpy as np
import pytest

import galirep
from galirep.data.catalog import open_data
from galirep.errors import ConfigError, DataError

SECRET = np.arange(400 * 16, dtype=np.float32).reshape(400, 16)


@pytest.fixture
def secret(tmp_path_factory):
    """Write a file outside, as raw bytes and as HDF5."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.bin").write_bytes(SECRET.tobytes())
    with h5py.File(folder / "secret.h5", "w") as file:
        file["features"] = SECRET
        file["labels"] = np.zeros(400, np.int64)
        file["images"] = np.full((4, 8, 8), 7, np.uint8)
    return folder


def _external(file, name, secret):
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    size = int(np.prod(shape)) * dtype.itemsize
    file.create_dataset(name, shape, dtype, external=[(str(secret / "secret.bin"), 0, size)])


def _external_link(file, name, secret):
    del file[name]
    file[name] = h5py.ExternalLink(str(secret / "secret.h5"), name)


def _soft_through_external(file, name, secret):
    del file[name]
    file["away"] = h5py.ExternalLink(str(secret / "secret.h5"), "/")
    file[name] = h5py.SoftLink(f"/away/{name}")


def _soft(file, name, _):
    file.move(name, "other")
    file[name] = h5py.SoftLink("/other")


def _virtual(file, name, secret):
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource(str(secret / "secret.h5"), name, shape)
    file.create_virtual_dataset(name, layout)


def _virtual_with_parts(file, name, secret):
    """As `merge --virtual` writes it, but the part is elsewhere."""
    if name == "features":
        with h5py.File(secret / "secret.h5", "r+") as other:
            other.attrs["file_id"] = "ab"
        _virtual(file, name, secret)
        part = json.dumps({"path": str(secret / "secret.h5"), "rows": 400, "file_id": "ab"})
        file.create_dataset("parts", (1,), h5py.string_dtype(), [part])
    else:
        _virtual(file, name, secret)


TRICKS = (_external, _external_link, _soft_through_external, _soft, _virtual, _virtual_with_parts)


@pytest.mark.parametrize("name", ("features", "labels"))
@pytest.mark.parametrize("trick", TRICKS)
def test_no_reader_of_an_embedding_file_follows_it_elsewhere(trick, name, galleries, secret, tmp_path, cli):
    with h5py.File(galleries[0], "r+") as file:
        trick(file, name, secret)
    commands = (
        ("verify", galleries[0]),
        ("info", galleries[0]),
        ("probe", galleries[0], "--test", galleries[1]),
        ("retrieve", "--gallery", galleries[0], "-k", 2),
        ("index", galleries[0], "--out", tmp_path / "x.faiss"),
        ("merge", galleries[0], "--out", tmp_path / "m.h5"),
        ("export", galleries[0], "--out", tmp_path / "e"),
    )
    for command in commands:
        done = cli(*command)
        (line,) = done.stderr.splitlines()
        assert done.exit_code == 1 and "Traceback" not in line, command
        assert "is a link to another place" in line or "its values in other files" in line or "points at" in line, line
    assert not (tmp_path / "x.faiss").exists() and not (tmp_path / "m.h5").exists()


@pytest.mark.parametrize("trick", (_external, _external_link, _soft, _virtual))
def test_a_partial_file_is_not_resumed_into_other_files(trick, secret, tmp_path):
    galirep.embed("pixels:2", "sklearn:digits", tmp_path / "x.h5", split="test", num_workers=0)
    (tmp_path / "x.h5").rename(tmp_path / "x.h5.partial")
    with h5py.File(tmp_path / "x.h5.partial", "r+") as file:
        file["progress"][:] = (0, 0)
        trick(file, "features", secret)
    before = (secret / "secret.bin").read_bytes()
    with pytest.raises(DataError, match=r"not followed|not read"):
        galirep.embed("pixels:2", "sklearn:digits", tmp_path / "x.h5", split="test", num_workers=0, resume=True)
    assert (secret / "secret.bin").read_bytes() == before


@pytest.mark.parametrize("trick", (_external, _external_link, _soft, _virtual))
@pytest.mark.parametrize("name", ("ids", "labels"))
def test_the_rows_of_an_index(trick, name, galleries, secret, tmp_path):
    galirep.build_index(galleries[0], tmp_path / "x.faiss")
    with h5py.File(tmp_path / "x.faiss.rows.h5", "r+") as file:
        if name == "ids" and trick is not _external_link and trick is not _soft:
            del file["ids"]
            file["ids"] = np.zeros(400, np.int64)
        trick(file, name, secret)
    from galirep.search.index_file import read_info
    from galirep.search.index_replacing import checksum

    sidecar = tmp_path / "x.faiss.json"
    value = json.loads(sidecar.read_text())
    value["files"]["rows"] = checksum(tmp_path / "x.faiss.rows.h5")
    del value["content_sha256"]
    sidecar.write_text(json.dumps(value))
    read_info(tmp_path / "x.faiss")
    with pytest.raises(DataError, match=r"not followed|not read"):
        galirep.retrieve(tmp_path / "x.faiss", galleries[1], k=1)


@pytest.mark.parametrize("trick", (_external, _external_link, _soft_through_external, _soft, _virtual))
@pytest.mark.parametrize("name", ("images", "labels"))
def test_images_in_hdf5(trick, name, secret, tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = np.zeros((4, 8, 8), np.uint8), np.zeros(4, np.int64)
        trick(file, name, secret)
    for spec in (f"hdf5:{path}", f"hdf5:{path}#images"):
        with pytest.raises(DataError, match=r"not followed|not read"):
            open_data(spec)


def test_a_file_that_changes_after_it_was_opened(secret, tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((4, 8, 8), np.uint8)
    source = open_data(f"hdf5:{path}")
    with h5py.File(path, "r+") as file:
        _external(file, "images", secret)
    with pytest.raises(DataError, match="not read"):
        source.read(0)


def test_a_virtual_merge_reads_parts_under_its_folder_alone(galleries, tmp_path):
    (tmp_path / "parts").mkdir()
    inside = [shutil.move(path, tmp_path / "parts" / path.name) for path in galleries]
    galirep.merge(inside, tmp_path / "all.h5", virtual=True)
    expected = [galirep.load_embeddings(path).features[:] for path in inside]
    with galirep.load_embeddings(tmp_path / "all.h5") as merged:
        np.testing.assert_array_equal(merged.features[:], np.concatenate(expected))
    # of a merge of merges, too
    galirep.merge([tmp_path / "all.h5"], tmp_path / "again.h5", virtual=True)
    with galirep.load_embeddings(tmp_path / "again.h5") as merged:
        np.testing.assert_array_equal(merged.features[:], np.concatenate(expected))
    (tmp_path / "below").mkdir()
    with pytest.raises(ConfigError, match=r"parts of a virtual merge are read only from its own folder"):
        galirep.merge(inside, tmp_path / "below" / "all.h5", virtual=True)
    assert not list((tmp_path / "below").iterdir())
    # a file of the right name and id, but reached by a link
    moved = tmp_path / "below" / "all.h5"
    shutil.copy(tmp_path / "all.h5", moved)
    (tmp_path / "below" / "parts").symlink_to(tmp_path / "parts")
    with pytest.raises(DataError, match=r"parts are read only from its own folder"):
        galirep.load_embeddings(moved)


def test_parts_that_are_tricks_themselves(galleries, secret, tmp_path):
    galirep.merge(galleries, tmp_path / "all.h5", virtual=True)
    with h5py.File(galleries[1], "r+") as file:
        _external(file, "features", secret)
    with pytest.raises(DataError, match=r"queries\.h5: the dataset '/features' is in external storage"):
        galirep.load_embeddings(tmp_path / "all.h5")


def test_parts_that_are_not_those_listed(galleries, secret, tmp_path):
    galirep.merge(galleries, tmp_path / "all.h5", virtual=True)
    with h5py.File(tmp_path / "all.h5", "r+") as file:
        listed = file["parts"][:]
        del file["features"]
        layout = h5py.VirtualLayout((460, 16), np.float32)
        layout[:400] = h5py.VirtualSource(str(secret / "secret.h5"), "features", (400, 16))
        file.create_virtual_dataset("features", layout)
        assert len(listed) == 2
    with pytest.raises(DataError, match=r"the virtual dataset '/features' reads .*secret\.h5"):
        galirep.load_embeddings(tmp_path / "all.h5")


def test_a_merge_of_itself(galleries, tmp_path):
    out = tmp_path / "all.h5"
    galirep.merge(galleries, out, virtual=True)
    with h5py.File(out, "r+") as file:
        shape, file_id = file["features"].shape, file.attrs["file_id"].decode()
        del file["features"], file["parts"]
        layout = h5py.VirtualLayout(shape, np.float32)
        layout[:] = h5py.VirtualSource("all.h5", "features", shape)
        file.create_virtual_dataset("features", layout)
        part = json.dumps({"path": "all.h5", "rows": shape[0], "file_id": file_id})
        file.create_dataset("parts", (1,), h5py.string_dtype(), [part])
    with pytest.raises(DataError, match="points at"):
        galirep.load_embeddings(out)
