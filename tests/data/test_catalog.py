"""Data sets by name: digits, npz, HDF5, torchvision; whole sets in memory."""

import pickle
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits

from galirep.data.arrays import ArraySource
from galirep.data.catalog import SPECS, open_data
from galirep.data.memory import load_images
from galirep.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def test_digits_are_exact_and_split_by_class():
    digits = load_digits()
    train, test = open_data("sklearn:digits"), open_data("sklearn:digits", "test")
    assert train.split == "train" and len(train) + len(test) == 1797 and not set(train.ids) & set(test.ids)
    for source in (train, test):
        rows = np.array([int(i) for i in source.ids])
        np.testing.assert_array_equal(source.labels, digits.target[rows])
        np.testing.assert_array_equal(source.read(3)[:, :, 0], np.rint(digits.images[rows[3]] * 255 / 16))
        assert source.label_names == tuple("0123456789")
    for k in range(10):
        assert (test.labels == k).sum() == (digits.target == k).sum() // 4
    assert open_data("sklearn:digits").fingerprint == train.fingerprint != test.fingerprint
    with pytest.raises(DataError, match="unknown split 'tset': did you mean 'test'"):
        open_data("sklearn:digits", "tset")


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GREY, GREY[2][:, :, None]),
        (COLOUR, COLOUR[2]),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR[2]),
        (COLOUR[..., :1], GREY[2][:, :, None]),
        ((GREY / 255).astype(np.float32), GREY[2][:, :, None]),
    ],
    ids=["NHW", "NHWC", "NCHW", "NHW1", "float"],
)
@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("arr_0", "arr_1")], ids=lambda names: names[0])
def test_npz_and_hdf5(tmp_path, images, expected, names):
    labels = np.array([3, 0, -1, 2, 2], dtype=np.int32)
    np.savez(tmp_path / "x.npz", **{names[0]: images, names[1]: labels})
    sources = [open_data(f"npz:{tmp_path / 'x.npz'}")]
    if names[0] != "arr_0":
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file[names[0]], file[names[1]] = images, labels
            file["deep/pixels"], file["deep/y"] = images, labels
        sources += [open_data(f"hdf5:{tmp_path / 'x.h5'}"), open_data(f"hdf5:{tmp_path / 'x.h5'}#deep/pixels")]
    for source in sources:
        np.testing.assert_array_equal(source.read(2), expected)
        assert (
            source.read(2).dtype == np.uint8
            and source.labels.tolist() == labels.tolist()
            and source.labels.dtype == np.int64
        )
        assert list(source.ids) == ["0", "1", "2", "3", "4"] and source.label_names == ()
        assert source.fingerprint == sources[0].fingerprint
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(2), expected)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GREY}, r"no array named images or x or arr_0; its arrays: pictures"),
        ({"images": GREY[0]}, r"shape \(6, 6\)"),
        ({"images": np.zeros((2, 4, 4, 4), np.uint8)}, "C = 1 or 3"),
        ({"images": COLOUR[0]}, r"one image in colour or 6 grey .* images\[None\] for one, images\[..., None\] for 6"),
        ({"images": GREY.astype(np.int64)}, "int64: images are uint8"),
        ({"images": GREY.astype(np.float32)}, r"only 0\.\.1"),
        ({"images": GREY[:0]}, "no images"),
        ({"images": GREY, "labels": [1, 2]}, "expected 5, one for each image"),
        ({"images": GREY, "labels": [0.5] * 5}, "whole numbers or names, but that of row 0 is 0.5"),
        ({"images": GREY, "labels": [0, 1, 2, 3, -2]}, "go down to -2"),
        ({"images": np.array([{}] * 3)}, "are Python objects, which are not unpickled"),
    ],
)
def test_npz_errors(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_data(f"npz:{tmp_path / 'x.npz'}")


def test_grey_images_that_may_be_channels_are_told(tmp_path):
    for width, count in ((1, 1), (2, 0), (4, 1)):
        np.savez(tmp_path / "x.npz", images=GREY[:, :, :width])
        notes = open_data(f"npz:{tmp_path / 'x.npz'}").report.notes
        assert len(notes) == count and all(f"5 grey images of 6 rows and {width} columns" in note for note in notes)
    np.savez(tmp_path / "x.npz", images=GREY[:, :, :3, None])
    assert open_data(f"npz:{tmp_path / 'x.npz'}").read(0).shape[:2] == (6, 3)


def test_files_that_are_not_array_files(tmp_path):
    for kind, content in (("npz", b""), ("npz", b"junk" * 99), ("hdf5", b""), ("hdf5", b"junk" * 99)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DataError, match=f"is not a readable {'npz' if kind == 'npz' else 'HDF5'} file"):
            open_data(f"{kind}:{tmp_path / 'x'}")
    np.save(tmp_path / "x.npy", GREY)
    with pytest.raises(DataError, match="single array"):
        open_data(f"npz:{tmp_path / 'x.npy'}")
    for kind in ("npz", "hdf5", "csv"):
        with pytest.raises(DataError, match="the file 'gone' does not exist"):
            open_data(f"{kind}:gone")
        with pytest.raises(DataError, match="no splits"):
            open_data(f"{kind}:{tmp_path / 'x'}", "train")


def test_hdf5_errors(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = np.full((3, 4, 4), [[[0.5]], [[7]], [[1]]])
        file["group/other"] = [1]
    with pytest.raises(DataError, match="unknown dataset 'image': did you mean 'images'"):
        open_data(f"hdf5:{tmp_path / 'x.h5'}#image")
    with pytest.raises(DataError, match="unknown dataset 'group'"):
        open_data(f"hdf5:{tmp_path / 'x.h5'}#group")
    with pytest.raises(DataError, match=r"^1: float pixels from 7 to 7"):
        open_data(f"hdf5:{tmp_path / 'x.h5'}").read(1)


def test_a_file_may_have_a_hash_in_its_name(tmp_path):
    with h5py.File(tmp_path / "a#b.h5", "w") as file:
        file["x"] = GREY
    assert len(open_data(f"hdf5:{tmp_path / 'a#b.h5'}")) == 5


def test_hdf5_is_read_by_workers(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = COLOUR
    source = open_data(f"hdf5:{tmp_path / 'x.h5'}")
    source.read(0)  # opens the file here, which must not go to the worker
    np.testing.assert_array_equal(load_images(source, 6, num_workers=1).pixels, COLOUR.transpose(0, 3, 1, 2))


def mnist_files(root, images, labels):
    """torchvision's files of MNIST, whose format is documented and which have no checksum; `images` are both splits."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">HBBIII", 0, 8, 3, *images.shape) + images.tobytes()
        )
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, len(labels)) + bytes(labels))


def test_torchvision_reads_a_local_root(tmp_path, monkeypatch):
    images = RNG.integers(0, 256, (4, 28, 28), dtype=np.uint8)
    mnist_files(tmp_path, images, [3, 1, 4, 1])
    source = open_data("torchvision:mnist", root=tmp_path)
    assert source.split == "train" and source.labels.tolist() == [3, 1, 4, 1] and len(source.label_names) == 10
    np.testing.assert_array_equal(load_images(source, 28).pixels[:, 0], images)
    monkeypatch.setenv("GALIREP_DATA", str(tmp_path))
    assert open_data("torchvision:mnist", "test").fingerprint == source.fingerprint
    with pytest.raises(DataError, match="no split 'val': its splits are train, test"):
        open_data("torchvision:mnist", "val")
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"junk" * 9)
    with pytest.raises(DataError, match=r"torchvision:mnist cannot be read from .*--data-root"):
        open_data("torchvision:mnist")


def test_torchvision_sets_with_other_orders_of_axes_or_files(tmp_path, monkeypatch):
    """Read SVHN and CelebA with torchvision, without the checksums of the real files, which no small set can have."""
    for name in ("svhn", "celeba"):
        monkeypatch.setattr(f"torchvision.datasets.{name}.check_integrity", lambda path, md5=None: Path(path).is_file())
    savemat(
        tmp_path / "train_32x32.mat",
        {"X": COLOUR.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [2], [3], [9]], dtype=np.uint8)},
    )
    source = open_data("torchvision:svhn", root=tmp_path)
    assert source.labels.tolist() == [0, 1, 2, 3, 9]
    np.testing.assert_array_equal(load_images(source, 6).pixels, COLOUR.transpose(0, 3, 1, 2))
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.png" for i in range(6)]
    for i, name in enumerate(names):
        Image.new("L", (8, 8), i).save(folder / "img_align_celeba" / name)
    for table in ("list_eval_partition", "identity_CelebA"):
        (folder / f"{table}.txt").write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(names)))
    for table in ("list_bbox_celeba", "list_landmarks_align_celeba", "list_attr_celeba"):
        (folder / f"{table}.txt").write_text("6\nfirst second\n" + "".join(f"{name} 1 -1\n" for name in names))
    source = open_data("torchvision:celeba", "val", root=tmp_path)
    assert list(source.ids) == ["000001.png", "000004.png"] and source.labels is None and source.split == "val"
    assert load_images(source, 8).pixels[:, 0, 0, 0].tolist() == [1, 4]


@pytest.mark.parametrize("name", ["svhn", "celeba", "cifar10", "cifar100", "mnist", "fashionmnist", "stl10"])
def test_torchvision_without_files_says_where_it_looked(tmp_path, name):
    with pytest.raises(DataError) as caught:
        open_data(f"torchvision:{name}", root=tmp_path / "here")
    message = str(caught.value)
    assert (
        f"torchvision:{name}" in message
        and str(tmp_path / "here") in message
        and "--download" in message
        and "\n" not in message
    )
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:cifar", "unknown torchvision data set 'cifar': did you mean 'cifar10'"),
        ("sklearn:digit", "did you mean 'sklearn:digits'"),
        ("torchvison:svhn", "did you mean 'torchvision:svhn'"),
        ("svhn", "the folder or .tar 'svhn' does not exist: did you mean 'torchvision:svhn'"),
        ("some/where", "the folder or .tar 'some/where' does not exist; data sets are FOLDER"),
        ("", "the folder or .tar '' does not exist"),
    ],
)
def test_unknown_specs(tmp_path, monkeypatch, spec, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        open_data(spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_specs_describe_every_kind():
    assert {spec.partition(":")[0] for spec in SPECS} == {
        "FOLDER",
        "FILE.tar",
        "sklearn",
        "torchvision",
        "npz",
        "hdf5",
        "csv",
    }


@pytest.fixture
def mixed(tmp_path):
    """Grey images, then one in colour, then grey; `bad` is not an image."""
    folder = tmp_path / "mixed"
    for name, colour in (("a/0", 10), ("a/1", 11), ("b/2", (1, 2, 3)), ("b/3", 13)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L" if isinstance(colour, int) else "RGB", (4, 4), colour).save(folder / f"{name}.png")
    (folder / "a/bad.png").write_text("no")
    return folder


def test_load_images(mixed):
    (mixed / "a/bad.png").unlink()
    seen = []
    images = load_images(open_data(str(mixed)), 8, progress=seen.append)
    assert (
        images.pixels.shape == (4, 3, 8, 8) and images.pixels.dtype == np.uint8 and len(images) == 4 and sum(seen) == 4
    )
    assert images.pixels[:, :, 0, 0].tolist() == [[10] * 3, [11] * 3, [1, 2, 3], [13] * 3]
    assert images.ids == ["a/0.png", "a/1.png", "b/2.png", "b/3.png"] and images.labels.tolist() == [0, 0, 1, 1]
    assert (
        images.label_names == ("a", "b") and images.errors == [] and images.spec == str(mixed) and images.split is None
    )
    assert images.fingerprint == open_data(str(mixed)).fingerprint
    assert open_data(mixed).fingerprint == images.fingerprint, "a Path names a folder as well"
    tensor = images.tensor()
    assert (
        tensor.dtype == torch.uint8 and tensor.shape == (4, 3, 8, 8) and tensor.data_ptr() == images.pixels.ctypes.data
    )


def test_channels_are_one_only_if_every_image_is_grey(mixed):
    (mixed / "a/bad.png").unlink()
    source = open_data(str(mixed))
    assert load_images(source.subset([0, 1, 3]), 4).pixels.shape == (3, 1, 4, 4)
    assert load_images(source.subset([2]), 4).pixels.shape == (1, 3, 4, 4)
    assert load_images(source.subset([0]), 4, channels=3).pixels.shape == (1, 3, 4, 4)
    assert load_images(source, 4, channels=1).pixels[:, 0, 0, 0].tolist() == [10, 11, 2, 13]


def test_bad_images_fail_or_are_left_out(mixed):
    source = open_data(str(mixed))
    with pytest.raises(DataError, match=r"1 of 5 images of .* cannot be used: a/bad\.png: not an image"):
        load_images(source, 8)
    images = load_images(source, 8, on_error="skip")
    assert images.ids == ["a/0.png", "a/1.png", "b/2.png", "b/3.png"] and images.labels.tolist() == [0, 0, 1, 1]
    assert images.errors == [("a/bad.png", "not an image of a known type")] and len(images) == 4
    assert images.pixels[:, 0, 0, 0].tolist() == [10, 11, 1, 13]
    with pytest.raises(DataError, match="4x4 pixels are too small for 16x16"):
        load_images(source.subset([0]), 16, on_error="skip")


def test_ten_bad_images_are_named_and_all_are_counted(tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"12 of 12 images .* used: 00\.png, .* 09\.png and 2 more: the file is empty \(0 bytes\)$"
    ):
        load_images(open_data(str(tmp_path)), 8)


def test_arrays_are_resized_whatever_their_order_in_memory():
    last = load_images(ArraySource("last", COLOUR), 12).pixels
    np.testing.assert_array_equal(
        load_images(ArraySource("first", np.ascontiguousarray(COLOUR.transpose(0, 3, 1, 2))), 12).pixels, last
    )
    assert last.shape == (5, 3, 12, 12)


def test_the_fingerprint_of_arrays_covers_shape_values_and_labels():
    variants = [GREY, GREY.reshape(5, 4, 9), 255 - GREY, (GREY / 255).astype(np.float32), COLOUR]
    prints = {
        ArraySource("x", images, labels).fingerprint
        for images in variants
        for labels in (None, [0, 1, 2, 3, 4], [0, 1, 2, 3, -1])
    }
    assert len(prints) == 15 and ArraySource("elsewhere", GREY).fingerprint in prints


def test_what_does_not_fit_in_memory_is_refused_before_it_is_tried():
    source = ArraySource("huge", np.broadcast_to(np.uint8(0), (10**9, 1, 1)), ids=range(10**9))
    with pytest.raises(DataError, match=r"of memory, and .* free: choose a smaller --image-size"):
        load_images(source, 10**4)


def test_arguments_of_load_images():
    source = open_data("sklearn:digits")
    for arguments in ({"size": 0}, {"size": 8, "channels": 2}, {"size": 8, "on_error": "ignore"}):
        with pytest.raises(ConfigError):
            load_images(source, **arguments)


@pytest.mark.parametrize("spec", ["npz:link", "csv:link", "hdf5:link"])
def test_a_device_or_pipe_is_told_as_such(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="'link' is a device, not a file"):
        open_data(spec)
