"""No image lost without a word: splits by name, types, links, archives, housekeeping folders and runs in the data."""

import os
import tarfile

import numpy as np
import pytest
from picture_trees import HAS_AVIF, add_member, encode, tar_of, write

from galirep.data.catalog import open_data
from galirep.data.files.formats import image_types
from galirep.data.memory import load_images
from galirep.errors import ConfigError, DataError


def left_out(source):
    return {entry.reason: entry.count for entry in source.report.left_out}


def names(*folders, count=2, kind=".png"):
    return [f"{folder}/{k}{kind}" for folder in folders for k in range(count)]


@pytest.fixture(params=["folder", "tar"])
def opened(request, tmp_path):
    """Open the folder `set` as it is, or as a tar of it."""

    def open_set(split=None, **options):
        spec = tmp_path / "set"
        if request.param == "tar":
            spec = tar_of(spec, tmp_path / "set.tar")
        return open_data(spec, split, **options)

    return open_set


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_class_named_train_is_not_taken_for_a_split_in_silence(opened, tmp_path):
    write(tmp_path / "set", *names("bus", "car", "plane", "train", count=12))
    with pytest.raises(DataError, match=r"'train' that may be a split or a class, beside 'bus' \(12 images\).*none"):
        opened()
    source = opened(splits="none")
    assert len(source) == 48 and source.label_names == ("bus", "car", "plane", "train") and source.split is None
    split = opened("train")
    assert len(split) == 12 and split.labels is None
    assert left_out(split) == {f"folder '{name}' is beside the split folders": 12 for name in ("bus", "car", "plane")}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Train", "Test"), ("train", "test")),
        (("TRAIN", "TEST"), ("train", "test")),
        (("training", "testing"), ("train", "test")),
        (("train", "valid", "test"), ("train", "val", "test")),
        (("Training", "Validation"), ("train", "val")),
    ],
)
def test_names_of_splits(opened, tmp_path, folders, splits):
    write(tmp_path / "set", *(name for folder in folders for name in names(f"{folder}/a", f"{folder}/b")))
    for folder, split in zip(folders, splits, strict=True):
        for asked in (split, folder, folder.upper()):
            source = opened(asked)
            assert (source.split, len(source), source.label_names) == (split, 4, ("a", "b"))
        assert source.report.splits == splits
    assert opened().split == "train"


def test_a_split_under_another_name_is_told(tmp_path):
    write(tmp_path, *names("valid/a", "train/a"))
    assert open_data(tmp_path, "validation").report.notes == ("the folder 'valid' is read as the split val",)


def test_splits_that_are_none_or_no_names(tmp_path):
    write(tmp_path, *names("train/a", "train/b", "test/a", "test/b"))
    assert open_data(tmp_path, splits=None).splits == "auto" and len(open_data(tmp_path, splits=None)) == 4
    for wrong in (5, ["train", 5], [None]):
        with pytest.raises(ConfigError, match=r"splits .*: write 'auto', 'none', or a list of the folders"):
            open_data(tmp_path, splits=wrong)


def test_named_splits_that_differ_in_case_are_told(opened, tmp_path):
    write(tmp_path / "set", *names("a/x", "b/x"))
    note = "--splits names 'B', the folder is 'b': they differ in upper and lower case"
    assert note in opened("a", splits="a,B").report.notes
    assert note in opened(splits="B").report.notes
    assert not any("--splits" in text for text in opened(splits="b").report.notes)


def test_two_folders_for_one_split_are_refused(tmp_path):
    write(tmp_path, *names("train/a", "val/a", "valid/a"))
    with pytest.raises(DataError, match="two folders for the split val, 'val' and 'valid'"):
        open_data(tmp_path)
    assert open_data(tmp_path, "val", splits="train,val").report.images == 2
    both = open_data(tmp_path, "valid", splits=["train", "val", "valid"])
    assert both.split == "valid" and both.report.splits == ("train", "val", "valid")


@pytest.mark.parametrize("folders", [("train2017", "val2017"), ("train_set", "test_set"), ("my-train", "my-test")])
def test_what_looks_like_splits_but_is_not_understood_is_refused_with_a_hint(opened, tmp_path, folders):
    write(tmp_path / "set", *names(*folders))
    with pytest.raises(DataError, match=f"look like splits.*--splits {','.join(sorted(folders))} .*--splits none"):
        opened()
    assert opened(splits="none").label_names == tuple(sorted(folders))
    assert len(opened(folders[1], splits=",".join(folders))) == 2


@pytest.mark.parametrize("folders", [("train_station", "airport"), ("trainer", "tester"), ("test_1", "test_2")])
def test_classes_that_only_resemble_splits(opened, tmp_path, folders):
    write(tmp_path / "set", *names(*folders))
    assert opened().label_names == tuple(sorted(folders))


def test_folders_and_files_beside_the_splits_are_told(opened, tmp_path):
    write(tmp_path / "set", *names("train/a", "test/a", "extra/x", count=3), "cover.png", "readme.txt")
    source = opened()
    assert left_out(source) == {"folder 'extra' is beside the split folders": 3, "beside the split folders": 1}
    assert source.report.left_out[1].first == ("extra/x/0.png", "extra/x/1.png", "extra/x/2.png")
    with pytest.raises(DataError, match=r"no split 'extra'.*pass --splits train,test,extra"):
        opened("extra")
    assert len(opened("extra", splits="train,test,extra")) == 3


def test_splits_that_are_not_there(tmp_path):
    write(tmp_path, *names("train/a", "test/a"))
    with pytest.raises(DataError, match="unknown folder 'tain': did you mean 'train'"):
        open_data(tmp_path, splits="tain")
    with pytest.raises(DataError, match="--splits none says"):
        open_data(tmp_path, "train", splits="none")
    with pytest.raises(ConfigError, match=r"is not a folder or \.tar"):
        open_data("sklearn:digits", splits="train")
    with pytest.raises(ConfigError, match="write auto, none, or"):
        open_data(tmp_path, splits="a,,b")


def test_splits_inside_the_classes_are_told(tmp_path):
    write(tmp_path, *names("bottle/train/good", "bottle/test/bad", "cable/train/good"))
    assert any("test, train inside the class folders" in note for note in open_data(tmp_path).report.notes)


# --- types ------------------------------------------------------------------------------------------------------------


def test_every_type_that_pillow_reads(opened, tmp_path):
    kinds = ["jpg", "jfif", "jpe", "jp2", "jp2000", "mpo", "bmp", "gif", "webp", "tif", "png", "tga", "pcx", "qoi"]
    kinds = [kind for kind in [*kinds, "ppm", "pgm", "sgi", "ico", "dds", "avif"] if f".{kind}" in image_types()]
    assert len(kinds) > 17 and ("avif" in kinds) == HAS_AVIF
    write(tmp_path / "set", *(f"a/{kind}.{kind}" for kind in kinds), "b/UPPER.JFIF", "b/x.heic", "b/y.heic", "b/z.jxl")
    source = opened()
    assert list(source.ids) == sorted([*(f"a/{kind}.{kind}" for kind in kinds), "b/UPPER.JFIF"])
    assert len(load_images(source, 8).errors) == 0
    assert left_out(source) == {
        "type .heic is not read by this Pillow": 2,
        "type .jxl is not read by this Pillow": 1,
    }


def test_types_that_run_an_interpreter_are_not_read(tmp_path):
    assert image_types().isdisjoint({".eps", ".ps", ".pdf", ".wmf", ".emf", ".h5", ".hdf", ".mpg", ".pcd"})
    write(tmp_path, "a/1.png", "a/2.eps", "b/3.png")
    assert left_out(open_data(tmp_path)) == {"type .eps is not read by this Pillow": 1}


def test_postscript_under_the_name_of_an_image_is_not_run(tmp_path):
    (tmp_path / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="not an image of a known type"):
        open_data(tmp_path).read(0)


def test_a_photograph_of_an_unread_type_beside_everything(opened, tmp_path):
    write(tmp_path / "set", *names("outer/a", "outer/b"), "cover.heic")
    source = opened()
    assert source.label_names == ("a", "b") and left_out(source) == {"type .heic is not read by this Pillow": 1}


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [("caf\u00e9", "cafe\u0301", r"'cafe\\u0301' and 'caf\\xe9'"), ("b", "b ", "'b' and 'b '")],
)
def test_class_folders_that_look_alike_are_refused(opened, tmp_path, first, second, shown):
    write(tmp_path / "set", "a/0.png", f"{first}/1.png", f"{second}/2.png")
    with pytest.raises(DataError, match=f"equal as a reader sees them, {shown}: merge them .* or rename one"):
        opened()


def test_a_class_that_loses_all_its_images_is_an_error(opened, tmp_path):
    write(tmp_path / "set", *names("cat"), *names("dog", kind=".heic"))
    with pytest.raises(DataError, match=r"none of the 2 pictures of the class 'dog' .*\.heic: convert them"):
        opened()


def test_a_split_of_unread_types_only(opened, tmp_path):
    write(tmp_path / "set", *names("train", "test"), *names("val", kind=".heic"))
    with pytest.raises(DataError, match=r"the split 'val' of .* has no images of a type that is read"):
        opened("val")


def test_a_class_of_thumbnails_or_of_other_files_is_told(opened, tmp_path):
    write(tmp_path / "set", *names("cat"), "dog/@eaDir/x.jpg", "bird/1.npy")
    report = opened().report
    assert report.classes_lost == ("dog",) and report.classes == {"cat": 2} and report.other_files == {".npy": 1}
    assert "folders without images, so not classes: 'bird'" in report.notes


def test_no_images_says_what_was_left_out(tmp_path):
    write(tmp_path, "1.heic", "2.heic", "notes.txt", ".hidden/3.png")
    with pytest.raises(DataError, match=r"its files are \.txt\); pictures left out, 1: hidden.*2: type \.heic"):
        open_data(tmp_path)


@pytest.mark.parametrize(("name", "text"), [("x.png", "is one image, not a set"), ("x.heic", "which this Pillow does")])
def test_one_picture_as_data(tmp_path, name, text):
    write(tmp_path, name)
    with pytest.raises(DataError, match=text):
        open_data(tmp_path / name)


# --- housekeeping folders and runs ------------------------------------------------------------------------------------


def test_housekeeping_folders_are_left_out_and_told(opened, tmp_path):
    folders = ("@eaDir", ".thumbnails", "__MACOSX", ".ipynb_checkpoints", "lost+found")
    write(
        tmp_path / "set", *names("a", "b"), *(f"a/{folder}/1.png" for folder in folders), "@eaDir/b/2.png", "b/._3.png"
    )
    source = opened()
    assert list(source.ids) == names("a", "b")
    assert left_out(source) == {
        "hidden file or folder, its name begins with a dot": 3,
        "housekeeping folder @eaDir": 2,
        "housekeeping folder __MACOSX": 1,
        "housekeeping folder lost+found": 1,
    }


def test_folders_that_may_not_be_listed(tmp_path, monkeypatch):
    write(tmp_path, *names("a", "b"), "lost+found/x.png")
    listed, closed = os.scandir, {str(tmp_path / "lost+found")}

    def scandir(folder):
        if str(folder) in closed:
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    # root, as whom tests may run, can list every folder
    monkeypatch.setattr(os, "scandir", scandir)
    source = open_data(tmp_path)
    assert len(source) == 4 and "the housekeeping folder 'lost+found' is closed" in " ".join(source.report.notes)
    closed.add(str(tmp_path / "b"))
    with pytest.raises(DataError, match=r"b' cannot be listed: Permission denied"):
        open_data(tmp_path)


def make_run(folder, info='{"galirep": "0.1.0"}'):
    write(folder, "samples/prior-00000001.png", "samples/prior-00000002.png")
    (folder / "run.json").write_text(info)
    (folder / "config.yaml").write_text("data: x\n")


def test_a_run_inside_the_data_is_not_data(opened, tmp_path):
    write(tmp_path / "set", *names("a", "b"))
    before = opened().fingerprint
    make_run(tmp_path / "set" / "run")
    make_run(tmp_path / "set" / "a" / "deep")
    source = opened()
    assert source.label_names == ("a", "b") and source.fingerprint == before
    assert left_out(source) == {"run of galirep 'run'": 2, "run of galirep 'a/deep'": 2}
    assert not source.report.classes_lost


def test_files_of_these_names_that_galirep_did_not_write_are_data(opened, tmp_path):
    write(tmp_path / "set", *names("a", "b"))
    make_run(tmp_path / "set" / "run", info='{"name": "mine"}')
    assert opened().label_names == ("a", "b", "run")


def test_a_run_as_data_is_refused_and_its_pictures_are_not(tmp_path):
    make_run(tmp_path / "run")
    with pytest.raises(DataError, match="is a run of galirep, not a set of images"):
        open_data(tmp_path / "run")
    assert len(open_data(tmp_path / "run" / "samples")) == 2


# --- links and archives -----------------------------------------------------------------------------------------------


def test_links_give_the_same_rows_in_a_folder_and_its_tar(tmp_path):
    root = write(tmp_path / "set", "a/0.png", "a/1.png", "b/2.png")
    (root / "a/file.png").symlink_to("1.png")
    (root / "a/chain.png").symlink_to("file.png")
    (root / "a/up.png").symlink_to("../b/2.png")
    (root / "c").symlink_to("a")
    (root / "d").symlink_to("c")
    (root / "b/gone.png").symlink_to("nowhere.png")
    (root / "b/round.png").symlink_to("round.png")
    (root / "b/above").symlink_to("..")
    (root / "b/hard.png").hardlink_to(root / "a/1.png")
    (root / "lost").symlink_to("no-such-folder")
    folder, tar = open_data(root), open_data(tar_of(root, tmp_path / "set.tar"))
    assert list(folder.ids) == list(tar.ids) and folder.label_names == tar.label_names == ("a", "b", "c", "d")
    assert {"d/chain.png", "c/0.png", "b/hard.png", "b/gone.png", "b/round.png"} <= set(folder.ids)
    assert folder.fingerprint == tar.fingerprint
    loaded = [load_images(source, 8, on_error="skip") for source in (folder, tar)]
    np.testing.assert_array_equal(loaded[0].pixels, loaded[1].pixels)
    assert [name for name, _ in loaded[0].errors] == [name for name, _ in loaded[1].errors]
    with pytest.raises(DataError, match=r"^b/gone\.png: a link to 'nowhere.png', which is not in the tar$"):
        tar.read(list(tar.ids).index("b/gone.png"))
    for source in (folder, tar):
        assert "links that lead nowhere: lost" in source.report.notes
        assert any("leads to a folder above it" in note for note in source.report.notes)


def test_every_kind_of_member_is_read_or_counted(tmp_path):
    png = encode()
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add_member(tar, "a/file.png", png)
        add_member(tar, "a/old.png", png, kind=tarfile.AREGTYPE)
        add_member(tar, "a/contiguous.png", png, kind=tarfile.CONTTYPE)
        add_member(tar, "a/absolute.png", kind=tarfile.SYMTYPE, link="/a/file.png")
        add_member(tar, "a/outside.png", kind=tarfile.SYMTYPE, link="../../x.png")
        add_member(tar, "a/hard.png", kind=tarfile.LNKTYPE, link="a/file.png")
        add_member(tar, "a/lost.png", kind=tarfile.LNKTYPE, link="a/gone.png")
        add_member(tar, "a/pipe.png", kind=tarfile.FIFOTYPE)
        add_member(tar, "a/device.png", kind=tarfile.CHRTYPE)
        add_member(tar, "a/strange.png", kind=b"V")
        add_member(tar, "a/twice.png", encode(1))
        add_member(tar, "a/twice.png", encode(2))
        add_member(tar, "../escaped.png", png)
        add_member(tar, "c", kind=tarfile.SYMTYPE, link="a")
        add_member(tar, "c/below.png", png)
    source = open_data(tmp_path / "x.tar", splits="none")
    rows = ("absolute", "below", "contiguous", "file", "hard", "lost", "old", "outside", "twice")
    assert [name for name in source.ids if name.startswith("a/")] == [f"a/{name}.png" for name in rows]
    assert "c/below.png" in source.ids and "c/hard.png" in source.ids
    assert [name for name, _ in load_images(source, 8, on_error="skip").errors] == [
        f"{folder}/{name}.png" for folder in ("a", "c") for name in ("lost", "outside")
    ]
    assert source.read(list(source.ids).index("a/twice.png"))[0, 0, 0] == 2
    assert left_out(source) == {
        "its name leads out of the tar": 1,
        "pipe or device, not a file": 6,
        "earlier copy of a file that occurs twice, the last one counts": 1,
    }


def test_pipes_in_a_folder_are_told(tmp_path):
    write(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    assert left_out(open_data(tmp_path)) == {"pipe or device, not a file": 1}


def test_tars_that_were_joined_are_refused(tmp_path):
    write(tmp_path / "set", *names("a", "b"))
    one = tmp_path / "one.tar"
    tar_of(tmp_path / "set", one)
    (tmp_path / "two.tar").write_bytes(one.read_bytes() * 2)
    with pytest.raises(DataError, match=r"goes on after the end of its first tar.*tar --ignore-zeros -xf"):
        open_data(tmp_path / "two.tar")
    (tmp_path / "padded.tar").write_bytes(one.read_bytes() + bytes(3 << 20))
    assert len(open_data(tmp_path / "padded.tar")) == 4


def test_names_that_lead_out_of_the_tar_or_are_read_under_others_are_told(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a/1.png", "b/2.png", "../a/9.png", "/a/3.png", "b/../a/4.png", "../notes.txt", "a/..5.png"):
            add_member(tar, name, encode())
    source = open_data(tmp_path / "x.tar")
    assert list(source.ids) == ["a/1.png", "a/3.png", "a/4.png", "b/2.png"]
    assert left_out(source) == {
        "its name leads out of the tar": 1,
        "hidden file or folder, its name begins with a dot": 1,
    }
    assert source.report.classes_lost == ()
    assert source.report.notes == (
        "members whose names begin with '/' or have '..' are read under other names: "
        "'/a/3.png' as 'a/3.png', 'b/../a/4.png' as 'a/4.png'",
    )


@pytest.mark.parametrize(
    ("name", "mode", "command"),
    [
        ("s e t.tar.gz", "w:gz", r"gunzip -c '.*s e t\.tar\.gz' > '.*s e t\.tar'$"),
        ("set.tgz", "w:gz", r"gunzip -c .*set\.tgz > .*set\.tar$"),
        ("set.tar.bz2", "w:bz2", r"bunzip2 -c .*set\.tar\.bz2 > .*set\.tar$"),
        ("set.tar.xz", "w:xz", r"unxz -c .*set\.tar\.xz > .*set\.tar$"),
    ],
)
def test_a_compressed_tar_is_refused_with_the_command_that_unpacks_it(tmp_path, name, mode, command):
    write(tmp_path / "set", *names("a"))
    with tarfile.open(tmp_path / name, mode) as tar:
        tar.add(tmp_path / "set", "set")
    with pytest.raises(DataError, match=command):
        open_data(tmp_path / name)


def test_a_sparse_member_is_unreadable_with_its_reason(tmp_path):
    member = tarfile.TarInfo("a/sparse.png")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    with (tmp_path / "x.tar").open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        add_member(tar, "a/file.png", encode())
        file.write(bytes(header))
        tar.offset += len(header)
    source = open_data(tmp_path / "x.tar", splits="none")
    with pytest.raises(DataError, match=r"^sparse\.png: stored as a sparse file"):
        source.read(list(source.ids).index("sparse.png"))


def test_a_leading_folder_is_skipped_only_if_no_other_folder_has_pictures(tmp_path):
    write(tmp_path / "alone", "a/sub1/1.png", "a/sub2/1.png")
    source = open_data(str(tmp_path / "alone"))
    assert source.label_names == ("sub1", "sub2")
    assert "the one folder 'a' around all images is skipped: it is not read as a class" in source.report.notes
    # the pictures of b are left out, but b is a class beside a
    write(tmp_path / "two", "a/sub1/1.png", "a/sub2/1.png", "b/.1.png")
    source = open_data(str(tmp_path / "two"))
    assert (source.label_names, source.report.classes_lost) == (("a",), ("b",))
    write(tmp_path / "docs", "a/sub1/1.png", "a/sub2/1.png", "b/readme.txt")
    source = open_data(str(tmp_path / "docs"))
    assert source.label_names == ("sub1", "sub2")
    assert any("beside 'b' without images, is skipped" in note for note in source.report.notes)


@pytest.mark.parametrize("name", ("Test", "validation", "train"))
def test_one_folder_named_like_a_split_beside_others_is_asked_about(tmp_path, name):
    write(tmp_path, "cat/1.png", f"{name}/2.png")
    with pytest.raises(DataError, match=rf"has a folder '{name}' that may be a split or a class, beside 'cat'"):
        open_data(str(tmp_path))
    assert open_data(str(tmp_path), splits="none").label_names == tuple(sorted(("cat", name)))
    assert len(open_data(str(tmp_path), name)) == 1
