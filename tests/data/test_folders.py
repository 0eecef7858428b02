"""Folders, tars and CSV lists: which files are images, their order, splits, ids, labels and fingerprints."""

import io
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from galirep.data import sources
from galirep.data.catalog import open_data
from galirep.data.files.index import index_files
from galirep.data.files.listing import Listing
from galirep.data.memory import load_images
from galirep.errors import DataError


def write(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, dtype=np.uint8)).save(path)


def tar_of(folder, path, arcname=None):
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=arcname or folder.name)
    return str(path)


@pytest.fixture
def classes(tmp_path):
    """Write a folder of two classes whose images have one value: b/10.png is 10, and so on."""
    root = tmp_path / "set"
    for name in ("b/10", "b/2", "a/30", "a/sub/40"):
        write(root / f"{name}.png", int(name.rpartition("/")[2]))
    return root


def test_class_folders_give_labels_and_sorted_ids(classes):
    source = open_data(str(classes))
    assert list(source.ids) == ["a/30.png", "a/sub/40.png", "b/10.png", "b/2.png"]
    assert (
        source.label_names == ("a", "b") and source.labels.tolist() == [0, 0, 1, 1] and source.labels.dtype == np.int64
    )
    assert [int(source.read(i)[0, 0, 0]) for i in range(4)] == [30, 40, 10, 2]
    assert source.split is None and len(source) == 4


def test_a_flat_folder_has_no_labels(tmp_path):
    for value in (2, 1):
        write(tmp_path / f"{value}.png", value)
    source = open_data(str(tmp_path))
    assert list(source.ids) == ["1.png", "2.png"] and source.labels is None and source.label_names == ()


def test_images_beside_class_folders_are_refused(classes):
    write(classes / "stray.png")
    with pytest.raises(DataError, match=r"'stray.png' beside 'a'"):
        open_data(str(classes))


def test_other_and_hidden_files_are_ignored(classes):
    for name in (".DS_Store", "a/._30.png", "__MACOSX/a/30.png", ".cache/x.png", "labels.csv", "a/notes.txt"):
        (classes / name).parent.mkdir(parents=True, exist_ok=True)
        (classes / name).write_bytes(b"?")
    assert len(open_data(str(classes))) == 4


def test_capitals_in_file_types_do_not_matter(tmp_path):
    write(tmp_path / "A.PNG")
    assert list(open_data(str(tmp_path)).ids) == ["A.PNG"]


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    with pytest.raises(DataError, match=r"has no images: images are \.jpg"):
        open_data(str(tmp_path))
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "README").write_text("")
    with pytest.raises(DataError, match=r"its files are \.csv, without a type"):
        open_data(str(tmp_path))


@pytest.fixture
def splits(tmp_path):
    root = tmp_path / "set"
    for name in ("train/a/1", "train/b/2", "val/a/3", "extra/x/9"):
        write(root / f"{name}.png", int(name[-1]))
    return root


@pytest.mark.parametrize("kind", ["folder", "outer folder", "tar", "rooted tar"])
def test_splits(splits, kind):
    spec = {
        "folder": lambda: str(splits),
        "outer folder": lambda: str(splits.parent),
        "tar": lambda: tar_of(splits, splits.parent / "set.tar"),
        "rooted tar": lambda: tar_of(splits, splits.parent / "set.tar", "."),
    }[kind]()
    if kind == "outer folder":
        (splits.parent / "notes.csv").write_text("")
    train, val = open_data(spec), open_data(spec, "val")
    assert (train.split, list(train.ids)) == ("train", ["a/1.png", "b/2.png"])
    assert (val.split, list(val.ids), val.label_names) == ("val", ["a/3.png"], ("a",))
    assert val.read(0)[0, 0, 0] == 3
    with pytest.raises(DataError, match="no split 'test': its splits are train, val"):
        open_data(spec, "test")


def test_split_errors(splits, classes):
    shutil.rmtree(splits / "train")
    with pytest.raises(DataError, match="a folder 'val' that may be a split or a class, beside 'a'"):
        open_data(str(splits))
    with pytest.raises(DataError, match="no split 'train': its splits are val"):
        open_data(str(splits), "train")
    shutil.rmtree(splits)
    write(splits / "a/1.png")
    with pytest.raises(DataError, match="no split 'train': it has no splits"):
        open_data(str(splits), "train")


def test_one_class_in_a_folder_is_a_class_and_the_leading_folder_of_a_tar_is_none(tmp_path):
    write(tmp_path / "set/a/1.png")
    assert open_data(str(tmp_path / "set")).label_names == ("a",)
    assert list(open_data(tar_of(tmp_path / "set", tmp_path / "x.tar")).ids) == ["a/1.png"]
    assert open_data(tar_of(tmp_path / "set", tmp_path / "y.tar", ".")).label_names == ("a",)
    flat = open_data(tar_of(tmp_path / "set/a", tmp_path / "z.tar"))
    assert list(flat.ids) == ["1.png"] and flat.labels is None


def test_a_tar_reads_as_the_folder_it_was_made_of(classes):
    folder, tar = open_data(str(classes)), open_data(tar_of(classes, classes.parent / "set.tar"))
    assert (
        list(folder.ids) == list(tar.ids)
        and folder.label_names == tar.label_names
        and folder.fingerprint == tar.fingerprint
    )
    np.testing.assert_array_equal(folder.labels, tar.labels)
    np.testing.assert_array_equal(load_images(folder, 16).pixels, load_images(tar, 16).pixels)


def test_links(classes):
    (classes / "c").symlink_to(classes / "a")
    (classes / "a" / "loop").symlink_to(classes)
    (classes / "a" / "dangling.png").symlink_to(classes / "gone.png")
    source = open_data(str(classes))
    assert source.label_names == ("a", "b", "c")
    assert "c/30.png" in source.ids and not any(name.count("loop") > 1 for name in source.ids)
    with pytest.raises(DataError, match=r"^a/dangling.png: No such file"):
        source.read(list(source.ids).index("a/dangling.png"))


def test_links_in_a_tar(tmp_path):
    write(tmp_path / "a/1.png", 7)
    (tmp_path / "a/2.png").hardlink_to(tmp_path / "a/1.png")
    (tmp_path / "a/3.png").symlink_to("1.png")
    source = open_data(tar_of(tmp_path / "a", tmp_path / "x.tar"))
    assert [int(source.read(i)[0, 0, 0]) for i in range(3)] == [7, 7, 7]


@pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_tar_is_refused(classes, mode, kind):
    path = classes.parent / "set.tar.x"
    with tarfile.open(path, mode) as tar:
        tar.add(classes, "set")
    with pytest.raises(DataError, match=f"{kind}-compressed"):
        open_data(str(path))


@pytest.mark.parametrize("keep", [700, 1024, 1100, 3000])  # within a file, between files, within a header, after some
def test_a_truncated_tar_is_refused(classes, keep):
    path = classes.parent / "set.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("b/10.png", "b/2.png", "a/30.png"):
            tar.add(classes / name, name)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="tar"):
        open_data(str(path))


def test_a_file_that_is_not_a_tar_is_refused(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"hello" * 1000)
    with pytest.raises(DataError, match="is not a readable tar"):
        open_data(str(tmp_path / "x.tar"))
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"is not a folder or \.tar: write npz:"):
        open_data(str(tmp_path / "x.npz"))


def test_a_tar_that_shrank_after_it_was_opened_is_an_unreadable_image(classes):
    source = open_data(tar_of(classes, classes.parent / "set.tar"))
    (classes.parent / "set.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"^a/30\.png: .* too early"):
        source.read(0)


def test_a_member_given_twice_is_the_later_one(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for value in (1, 2):
            file = io.BytesIO()
            Image.new("L", (4, 4), value).save(file, "png")
            info = tarfile.TarInfo("set/x.png")
            info.size = len(file.getvalue())
            tar.addfile(info, io.BytesIO(file.getvalue()))
    source = open_data(str(tmp_path / "x.tar"))
    assert len(source) == 1 and source.read(0)[0, 0, 0] == 2


def test_unreadable_images_name_their_id(classes):
    (classes / "a/30.png").write_bytes(b"")
    (classes / "b/2.png").write_bytes((classes / "b/2.png").read_bytes()[:50])
    source = open_data(str(classes))
    with pytest.raises(DataError, match=r"^a/30\.png: the file is empty"):
        source.read(0)
    with pytest.raises(DataError, match=r"^b/2\.png: cannot be decoded"):
        source.read(3)


def test_a_subset_keeps_ids_labels_and_names(classes):
    source = open_data(str(classes))
    part = source.subset([3, 0])
    assert (
        list(part.ids) == ["b/2.png", "a/30.png"]
        and part.labels.tolist() == [1, 0]
        and part.label_names == source.label_names
    )
    assert [int(part.read(i)[0, 0, 0]) for i in range(2)] == [2, 30] and len(part.subset([1])) == 1
    assert part.fingerprint != source.fingerprint and source.subset(range(4)).fingerprint == source.fingerprint
    with pytest.raises(DataError, match="index 4 is not in the 4 images"):
        source.subset([4])
    with pytest.raises(DataError, match="twice"):
        source.subset([1, 1])


def test_the_fingerprint_is_of_the_set_and_not_of_its_place(classes):
    before = open_data(str(classes)).fingerprint
    moved = classes.rename(classes.parent / "elsewhere")
    assert open_data(str(moved)).fingerprint == before
    data = (moved / "b/2.png").read_bytes()
    write(moved / "b/2.png", 3)
    assert len((moved / "b/2.png").read_bytes()) == len(data), "the change must be one of content alone"
    assert open_data(str(moved)).fingerprint != before
    (moved / "b/2.png").write_bytes(data)
    assert open_data(str(moved)).fingerprint == before
    (moved / "b/2.png").rename(moved / "b/3.png")
    assert open_data(str(moved)).fingerprint != before
    (moved / "b/3.png").rename(moved / "b/2.png")
    (moved / "b").rename(moved / "c")
    assert open_data(str(moved)).fingerprint != before


def test_the_fingerprint_of_a_large_set_covers_all_sizes_and_some_content(classes, monkeypatch):
    monkeypatch.setattr(sources, "HASHED_BYTES", 1)
    monkeypatch.setattr(sources, "HASHED_IMAGES", 2)
    before = open_data(str(classes)).fingerprint
    write(classes / "a/sub/40.png", 41)  # not the first or last, whose content is hashed
    assert open_data(str(classes)).fingerprint == before
    write(classes / "b/2.png", 3)
    assert open_data(str(classes)).fingerprint != before
    write(classes / "b/2.png", 2)
    with (classes / "a/sub/40.png").open("ab") as file:
        file.write(b"!")
    assert open_data(str(classes)).fingerprint != before


def test_a_csv_list(classes):
    path = classes / "list.csv"
    path.write_text("label,path,note\ndog,b/10.png,x\ncat,a/30.png,y\n,b/2.png,z\n")
    source = open_data(f"csv:{path}")
    assert list(source.ids) == ["b/10.png", "a/30.png", "b/2.png"]
    assert source.labels.tolist() == [1, 0, -1] and source.label_names == ("cat", "dog")
    assert source.read(0)[0, 0, 0] == 10
    path.write_text(f"path,label\n{classes / 'b/10.png'},7\na/30.png,0\nb/2.png,\n")
    source = open_data(f"csv:{path}")
    assert source.labels.tolist() == [7, 0, -1] and source.label_names == () and source.read(0)[0, 0, 0] == 10
    path.write_text("path\ngone.png\n")
    source = open_data(f"csv:{path}")
    assert source.labels is None
    with pytest.raises(DataError, match=r"^gone\.png: No such file"):
        source.read(0)
    assert len(source.fingerprint) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\nx.png,1\n",
            r"no column 'path' in its first line \(its columns: file, label\): expected path,label",
        ),
        ("", r"\(its columns: none\)"),
        ("path,label\n", "no rows"),
        ("path,label\nx.png,1\nx.png,2\n", "'x.png' twice"),
        ("path,label\nx.png,1\n,2\n", "empty path in its row 2"),
        ("path,label\nx.png,-2\n", "go down to -2"),
    ],
)
def test_csv_errors(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_data(f"csv:{tmp_path / 'x.csv'}")


def test_a_csv_that_is_not_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(DataError, match="is not a readable CSV file"):
        open_data(f"csv:{tmp_path / 'x.csv'}")


def test_a_file_name_that_is_not_utf8_is_refused():
    with pytest.raises(DataError, match="not UTF-8"):
        index_files("set", Listing(["a/\udcff.png"]), None, archive=False)
