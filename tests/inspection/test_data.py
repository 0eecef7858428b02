"""`galirep info` on sets of images: splits, classes, sizes, modes, duplicates and the contact sheet."""

import json

import numpy as np
import pytest
from picture_trees import encode, tar_of, write
from PIL import Image

import galirep
from galirep.errors import ConfigError, DataError


@pytest.fixture
def tree(tmp_path):
    root = write(tmp_path / "tree", "train/a/1.png", "train/b/2.png", "train/b/3.jpg", "test/a/4.png", "test/b/x.png")
    (root / "test/a/5.png").write_bytes((root / "train/a/1.png").read_bytes())
    (root / "train/b/6.png").write_bytes((root / "train/a/1.png").read_bytes())
    Image.fromarray(np.zeros((5, 9), np.uint8)).save(root / "train/b/7.png")
    (root / "train/b/8.png").write_bytes(b"junk")
    write(root, "train/a/.hidden.png", "train/a/y.heic", "readme.txt")
    return root


def test_a_folder(cli, tree):
    result = cli("info", tree, "--json")
    assert result.exit_code == 0, result.stderr
    described = json.loads(result.stdout)
    assert (described["kind"], described["images"], list(described["splits"])) == ("data", 9, ["train", "test"])
    assert described["splits"]["train"]["report"]["classes"] == {"a": 1, "b": 5}
    assert described["splits"]["test"]["report"]["classes"] == {"a": 2, "b": 1}
    reasons = [entry["reason"] for entry in described["data_report"]["left_out"]]
    assert reasons == ["hidden file or folder, its name begins with a dot", "type .heic is not read by this Pillow"]
    assert described["modes"] == {"RGB": 7, "L": 1} and described["formats"] == {"PNG": 7, "JPEG": 1}
    sizes = described["sizes"]
    assert (sizes["smallest"], sizes["largest"], sizes["commonest"][0]) == ([9, 5], [8, 8], [8, 8, 7])
    assert described["unreadable"]["first"] == [{"id": "b/8.png", "reason": "not an image of a known type"}]
    assert described["duplicates"] == {
        "groups": 1,
        "images": 3,
        "across_splits": 1,
        "across_classes": 1,
        "first": [["train/a/1.png", "train/b/6.png", "test/a/5.png"]],
    }
    text = cli("info", tree).stdout
    for part in ("split train of train, test: 6 images of 2 classes", "a 1, b 5", "left out, 1: type .heic", "RGB 7"):
        assert part in text
    assert "train/a/1.png = train/b/6.png = test/a/5.png" in text and "other files .txt 1" in text


def test_one_split(tree):
    described = galirep.info(tree, split="test")
    assert described["images"] == 3 and list(described["splits"]) == ["test"]


def test_a_set_without_a_training_split(tmp_path):
    write(tmp_path, "val/a/1.png", "test/a/2.png")
    assert galirep.info(tmp_path)["images"] == 2


def test_python_offers_the_same(tree):
    assert galirep.info(str(tree))["data_report"] == galirep.open_data(tree).report.to_dict()


def test_any_spec(cli, tree, tmp_path):
    assert galirep.info(tar_of(tree, tmp_path / "x.tar"))["images"] == 9
    digits = galirep.info("sklearn:digits")
    assert digits["images"] == 1797 and list(digits["splits"]) == ["train", "test"] and digits["modes"] == {"L": 1797}
    (tmp_path / "list.csv").write_text("path,label\ntree/train/a/1.png,x\n")
    assert galirep.info(f"csv:{tmp_path / 'list.csv'}")["data_report"]["classes"] == {"x": 1}
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4), np.uint8))
    described = galirep.info(f"npz:{tmp_path / 'x.npz'}")
    assert described["images"] == 2 and described["duplicates"]["groups"] == 1


@pytest.mark.parametrize("labelled", [True, False])
def test_the_contact_sheet(cli, tmp_path, labelled):
    folders = ("cat", "dög") if labelled else (".",)
    tree = write(tmp_path / "tree", *(f"{folder}/{k}.png" for folder in folders for k in range(20)))
    (tree / folders[0] / "0.png").write_bytes(b"junk")
    result = cli("info", tree, "--out", tmp_path / "sheet.png", "--json")
    assert result.exit_code == 0, result.stderr
    shown = 16 if labelled else 20
    assert json.loads(result.stdout)["contact_sheet"]["images"] == shown
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width == 530 and sheet.height == (162 if labelled else 200)
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    assert (pixels == (255, 0, 0)).all(axis=1).any()
    again = cli("info", tree, "--out", tmp_path / "sheet.png")
    assert again.exit_code == 1 and "exists" in again.stderr
    assert cli("info", tree, "--out", tmp_path / "sheet.png", "--overwrite").exit_code == 0


def test_a_contact_sheet_inside_the_set_is_refused(tree):
    with pytest.raises(ConfigError, match="would be one of its images"):
        galirep.info(tree, out=tree / "sheet.png")


def test_the_same_from_workers(tree):
    assert galirep.info(tree, num_workers=2) == galirep.info(tree, num_workers=0)


def test_what_is_neither_a_run_nor_images(tmp_path):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(DataError, match=r"is not a run of galirep .*, and as images: .* has no images"):
        galirep.info(tmp_path)
    (tmp_path / "x.png").write_bytes(encode())
    with pytest.raises(DataError, match=r"was not made by galirep.*nor is it a set of images"):
        galirep.info(tmp_path / "x.png")
    with pytest.raises(DataError, match="no such file"):
        galirep.info(tmp_path / "missing")


def test_options_of_data_with_something_else(tmp_path):
    galirep.embed("pixels:2", "sklearn:digits", tmp_path / "e.h5", split="test")
    with pytest.raises(ConfigError, match="is embeddings, not images: leave --split"):
        galirep.info(tmp_path / "e.h5", split="test")
