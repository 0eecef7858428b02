"""Readers of files that may be damaged or hostile: one line each, before time or memory is spent on them."""

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import h5py
import numpy as np
import pytest

from galirep.errors import CheckpointError, ConfigError, DataError
from galirep.networks.header import check_header
from galirep.runs.log import run_log
from galirep.system.reading.arrays import map_npy, open_npz
from galirep.system.reading.documents import parse_json, read_toml, read_yaml
from galirep.system.reading.files import kind_of, read_bytes, read_regular
from galirep.system.reading.hdf5 import attribute, attributes, dataset, require_stored
from galirep.system.reading.heaps import require_sound_heaps
from galirep.system.reading.limits import JSON_DEPTH, LIMITS, SETTINGS_BYTES
from galirep.system.reading.records import Count, check, read_record


class Point(TypedDict):
    x: Count
    y: float | None


@dataclass(frozen=True)
class Box:
    name: str
    corners: tuple[tuple[int, int], ...]
    kind: str = "plain"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": True, "y": None}, "x = True must be a whole number"),
        ({"x": -1, "y": None}, "x = -1 must be a whole number from 0"),
        ({"x": 2**60, "y": None}, "x = 1152921504606846976 must be"),
        ({"x": 10**5000, "y": None}, "x = a number of thousands of digits must be"),
        ({"x": 1, "y": "2"}, "y = '2' must be a number"),
        ({"x": 1}, "y is missing"),
        ([], "must be a table"),
    ],
)
def test_a_value_of_another_type_or_range_is_named(values, message):
    with pytest.raises(DataError, match=rf"file\.json is damaged: .*({message})"):
        check(values, Point, "file.json", DataError, "is damaged")
    assert check({"x": 1, "y": 2, "more": 3}, Point, "", DataError) == {"x": 1, "y": 2, "more": 3}


def test_a_record_has_tuples_for_lists_and_knows_its_keys():
    assert read_record(Box, {"name": "a", "corners": [[1, 2]]}, "", DataError) == Box("a", ((1, 2),))
    with pytest.raises(DataError, match=r"b: .*'nam'.*name"):
        read_record(Box, {"nam": "a", "corners": []}, "b", DataError)
    with pytest.raises(DataError, match=r"corners\[1\] = \[1\] must be a list of 2: a whole number, a whole number"):
        read_record(Box, {"name": "a", "corners": [[1, 2], [1]]}, "b", DataError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ("[" * 5000, "nested too deeply"),
        ("[" * 80 + "]" * 80, "65 levels are over the limit of 64: set GALIREP_MAX_DEPTH"),
        (b"\xff{}", "is not valid JSON"),
        ("{", "is not valid JSON"),
    ],
)
def test_json_is_refused_in_one_line(text, message):
    with pytest.raises(DataError, match=f"^the header.*({message})") as caught:
        parse_json(text, "the header", DataError)
    assert "\n" not in str(caught.value)


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"the alias \*a0 stands for a list or mapping"),
        ("a: 1\na: 2\n", "the key 'a' occurs twice"),
        ("width: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
        ("a: 2001-99-99\n", "is not valid YAML"),
        (f"a: {'[' * 3000}\n", "nested too deeply"),
    ],
)
def test_yaml_cannot_grow_run_or_nest(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"c.yaml.*{message}"):
        read_yaml(tmp_path / "c.yaml", ConfigError)
    (tmp_path / "c.yaml").write_text("a: &w 4\nb: *w\n")
    assert read_yaml(tmp_path / "c.yaml", ConfigError) == {"a": 4, "b": 4}


def test_toml_keys_of_thousands_of_parts_are_refused_before_they_are_parsed(tmp_path):
    """The parser of Python takes gigabytes for 20,000 parts."""
    (tmp_path / "v.toml").write_text(f"a{'.a' * 20_000} = 1\n")
    with pytest.raises(ConfigError, match=r"v.toml is not valid TOML: a line has more than 256 dots"):
        read_toml(tmp_path / "v.toml", ConfigError)
    (tmp_path / "v.toml").write_text(f"a{'.a' * 100} = 1\n")
    with pytest.raises(ConfigError, match="GALIREP_MAX_DEPTH"):
        read_toml(tmp_path / "v.toml", ConfigError)
    (tmp_path / "v.toml").write_text(f"a = [{', '.join(['0.5'] * 1000)}]\n")
    assert len(read_toml(tmp_path / "v.toml", ConfigError)["a"]) == 1000


def test_every_limit_is_set_by_its_variable_and_named_in_its_message(monkeypatch, tmp_path):
    for limit in LIMITS:
        monkeypatch.setenv(limit.variable, "7")
        limit.require(7, "it", DataError)
        with pytest.raises(DataError, match=rf"it: 8 {limit.unit} are over the limit of 7: set {limit.variable}"):
            limit.require(8, "it", DataError)
        monkeypatch.setenv(limit.variable, "many")
        with pytest.raises(ConfigError, match=rf"{limit.variable} is 'many'"):
            limit.require(1, "it", DataError)
        monkeypatch.delenv(limit.variable)
    (tmp_path / "big.yaml").write_bytes(b"#" * (SETTINGS_BYTES.value + 1))
    with pytest.raises(ConfigError, match="GALIREP_MAX_SETTINGS_BYTES"):
        read_yaml(tmp_path / "big.yaml", ConfigError)
    assert JSON_DEPTH.value == 64


def _npz(path: Path, header: str, body: bytes = b"", pack: int = zipfile.ZIP_DEFLATED) -> Path:
    text = f"{header}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body
    with zipfile.ZipFile(path, "w", pack) as archive:
        archive.writestr("images.npy", data)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,)}", "1,099,511,627,776 bytes, but has"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8)}", r"declares the shape \(-1, 8\)"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "are Python objects, which are not unpickled"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': 'x'}", "images of a.npz cannot be read"),
        ("{'descr': '|u1'", "images of a.npz cannot be read"),
    ],
)
def test_the_header_of_an_array_is_held_against_the_file(tmp_path, header, message):
    path = _npz(tmp_path / "a.npz", header, bytes(8))
    with open_npz(path, "a.npz") as file, pytest.raises(DataError, match=message):
        file.read("images")


def test_an_npz_bomb_is_refused_by_what_it_declares(tmp_path, monkeypatch):
    monkeypatch.setenv("GALIREP_MAX_INFLATED_BYTES", "1000000")
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2000000,)}"
    with open_npz(_npz(tmp_path / "a.npz", header, bytes(2_000_000)), "a.npz") as file:
        with pytest.raises(DataError, match=r"unpacks to far more.*set GALIREP_MAX_INFLATED_BYTES"):
            file.read("images")
        monkeypatch.setenv("GALIREP_MAX_INFLATED_BYTES", "3000000")
        assert file.read("images").shape == (2_000_000,)


def test_npy_files_equal_numpy_and_declare_no_more_than_they_have(tmp_path):
    for array in (np.arange(6, dtype="f4").reshape(2, 3), np.asfortranarray(np.eye(3)), np.zeros((0, 4))):
        np.save(tmp_path / "a.npy", array)
        assert np.array_equal(map_npy(tmp_path / "a.npy"), array)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 4)})
    (tmp_path / "a.npy").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="declares the shape"):
        map_npy(tmp_path / "a.npy")


@pytest.fixture
def texts(tmp_path):
    """Write an HDF5 file with texts of variable length: in an attribute, in chunks, in one piece and nested."""
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "plain"
        file.attrs["two"] = ["a", "b"]
        names = [f"name {i}" for i in range(500)]
        file.create_dataset("ids", data=names, dtype=h5py.string_dtype(), chunks=(64,))
        file.create_dataset("names", data=names[:3], dtype=h5py.string_dtype())
        file.create_dataset("group/names", data=names[:3], dtype=h5py.string_dtype())
        file.create_dataset("numbers", data=np.zeros((4, 2)))
    return path


def _collections(content: bytes) -> list[int]:
    found, at = [], content.find(b"GCOL")
    while at >= 0:
        found.append(at)
        at = content.find(b"GCOL", at + 4)
    return found


def test_every_heap_that_texts_refer_to_is_walked_through(texts):
    content = texts.read_bytes()
    places = _collections(content)
    assert len(places) > 1
    with h5py.File(texts) as file:
        require_sound_heaps(file, texts)
        require_sound_heaps(file, texts, ["group/names"])
    for place in places:
        # a free object of size zero, of which HDF5 reads the next for ever
        texts.write_bytes(content[: place + 16] + bytes(16) + content[place + 32 :])
        with h5py.File(texts) as file, pytest.raises(DataError, match="a heap of its texts is damaged"):
            require_sound_heaps(file, texts, [*file, "group/names"])


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 5000])
def test_an_object_of_a_heap_ends_in_it(texts, size):
    content = texts.read_bytes()
    place = _collections(content)[0]
    texts.write_bytes(content[: place + 24] + size.to_bytes(8, "little") + content[place + 32 :])
    with h5py.File(texts) as file, pytest.raises(DataError, match="a heap of its texts is damaged"):
        require_sound_heaps(file, texts)


@pytest.mark.parametrize("latest", [True, False])
def test_heaps_of_packed_texts_and_newer_headers_are_found(tmp_path, latest):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w", libver="latest" if latest else None) as file:
        file.attrs["format"] = "plain"
        file.create_dataset("ids", data=["a", "b"], dtype=h5py.string_dtype(), chunks=(2,), compression="gzip")
    content = path.read_bytes()
    with h5py.File(path) as file:
        require_sound_heaps(file, path)
    place = _collections(content)[-1]
    path.write_bytes(content[: place + 16] + bytes(16) + content[place + 32 :])
    with h5py.File(path) as file, pytest.raises(DataError, match="a heap of its texts is damaged"):
        require_sound_heaps(file, path)


def test_an_attribute_is_one_value_and_a_dataset_what_its_reader_asks_for(texts):
    with h5py.File(texts) as file:
        assert attribute(file, "format") == "plain"
        assert attributes(file) == {"format": "plain"}
        for name, message in (("two", "is not one value"), ("none", "has no attribute")):
            with pytest.raises(ValueError, match=message):
                attribute(file, name)
        assert len(dataset(file, "ids", "O", 1)) == 500
        for name, kinds, axes, message in (
            ("none", "O", 1, "has no dataset"),
            ("group", "O", 1, "has no dataset"),
            ("ids", "i", 1, "has the type"),
            ("numbers", "f", 1, "2 axes|shape"),
        ):
            with pytest.raises(ValueError, match=message):
                dataset(file, name, kinds, axes)


def test_declared_rows_and_chunks_are_held_against_the_file(tmp_path, monkeypatch):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", (2**40, 4), "f4", chunks=(64, 4))
        file.create_dataset("chunk", (4, 4), "f4", chunks=(2**26, 4), maxshape=(None, 4))
        file.create_dataset("packed", (2**20,), "u1", chunks=(2**20,), compression="gzip")[:] = 0
    size = path.stat().st_size
    with h5py.File(path) as file:
        with pytest.raises(ValueError, match="declares 17,592,186,044,416 bytes, more than the file has"):
            require_stored(file["rows"], 2**40, size)
        monkeypatch.setenv("GALIREP_MAX_INFLATED_BYTES", "1000")
        for name, rows in (("chunk", 4), ("packed", 2**20)):
            with pytest.raises(DataError, match="GALIREP_MAX_INFLATED_BYTES"):
                require_stored(file[name], rows, size)


def test_pipes_devices_and_folders_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "file").write_bytes(b"x")
    assert kind_of(tmp_path / "file") is None and kind_of(tmp_path / "nothing") is None
    for name, kind in (("pipe", "a pipe"), ("link", "a pipe"), ("zero", "a device")):
        assert kind_of(tmp_path / name) == kind
        with pytest.raises(DataError, match=f"{name} is {kind}, not a file"):
            read_bytes(tmp_path / name, name, DataError)
        with pytest.raises(OSError, match=f"it is {kind}, not a file"):
            read_regular(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    assert read_regular(tmp_path / "file") == b"x"


def test_an_unknown_size_in_the_header_of_a_network(tmp_path):
    shapes = {"size": 8, "channels": 1, "latent": 4}
    assert check_header({"shapes": shapes}, dict, "e.safetensors")["shapes"] == shapes
    with pytest.raises(CheckpointError, match=r"header of e\.safetensors is damaged: its shapes have an unknown 'xx'"):
        check_header({"shapes": {**shapes, "xx": 1}}, dict, "e.safetensors")


def test_the_log_of_a_run_is_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "train.log")
    with pytest.raises(CheckpointError, match=r"train\.log is a pipe, not a file"), run_log(tmp_path / "train.log"):
        pass
