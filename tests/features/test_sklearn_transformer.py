"""One picture, one row: whatever form it is handed over in, it has the features that `embed` gives to its file."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torch.utils.data import DataLoader, Dataset, IterableDataset

import galirep
from galirep.data.picture import read_image
from galirep.errors import ConfigError, DataError

SIDE = 24


@pytest.fixture(scope="module")
def photo():
    """Draw a picture that looks different in each orientation, larger than the extractor's size and not square."""
    y, x = np.mgrid[:40, :56]
    planes = np.stack([255 * (x > 25), 6 * y, 4 * x], axis=-1).clip(0, 255)
    return Image.fromarray(planes.astype(np.uint8))


def mode_pictures(photo):
    """Return the picture in every mode of Pillow that is read, by name."""
    alpha = Image.linear_gradient("L").resize(photo.size)
    with_alpha, grey = photo.copy(), photo.convert("L")
    with_alpha.putalpha(alpha)
    palette = photo.quantize(16)
    transparent_entry, transparent_entries = palette.copy(), palette.copy()
    transparent_entry.info["transparency"] = 3
    transparent_entries.info["transparency"] = bytes(range(0, 256, 16))
    transparent_colour = photo.copy()
    transparent_colour.info["transparency"] = photo.getpixel((3, 3))
    grey_alpha = grey.copy()
    grey_alpha.putalpha(alpha)
    palette_alpha = palette.convert("PA")
    palette_alpha.putalpha(alpha)
    deep = np.asarray(grey).astype(np.uint16) * 257
    return {
        "1": photo.convert("1"),
        "L": grey,
        "LA": grey_alpha,
        "P": palette,
        "P, transparent entry": transparent_entry,
        "P, transparent entries": transparent_entries,
        "PA": palette_alpha,
        "RGB": photo,
        "RGB, transparent colour": transparent_colour,
        "RGBA": with_alpha,
        "RGBa": with_alpha.convert("RGBa"),
        "RGBX": photo.convert("RGBX"),
        "CMYK": photo.convert("CMYK"),
        "YCbCr": photo.convert("YCbCr"),
        "HSV": photo.convert("HSV"),
        "I;16": Image.fromarray(deep),
        "I": Image.fromarray(deep.astype(np.int32)),
        "F": Image.fromarray((np.asarray(grey) / 255).astype(np.float32)),
    }


# how a mode is stored without loss; the others have no file of their own
FILES = {
    **dict.fromkeys(["1", "L", "LA", "P", "P, transparent entry", "P, transparent entries"], "png"),
    **dict.fromkeys(["RGB", "RGB, transparent colour", "RGBA", "I;16"], "png"),
    **dict.fromkeys(["PA", "RGBX", "CMYK", "YCbCr", "I", "F"], "tiff"),
}
MODES = (*FILES, "RGBa", "HSV")


@pytest.fixture(scope="module", params=[f"pixels:{SIDE}", "random:compact"])
def encoder(request):
    return galirep.load_encoder(request.param, device="cpu")


def save(image, path, kind, **options):
    if "transparency" in image.info:
        options["transparency"] = image.info["transparency"]
    image.save(path, kind, **options)
    return path


def embedded(encoder, path, tmp_path):
    """Return the features that `embed` gives to a folder of this file alone."""
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / path.name).write_bytes(path.read_bytes())
    galirep.embed(encoder.spec, str(folder), tmp_path / "one.h5", device="cpu", num_workers=0)
    with galirep.load_embeddings(tmp_path / "one.h5") as stored:
        return stored.features[:]


def same(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", FILES)
def test_a_file_gives_the_same_features_by_every_way(encoder, photo, mode, tmp_path):
    path = save(mode_pictures(photo)[mode], tmp_path / f"x.{FILES[mode]}", FILES[mode])
    expected = embedded(encoder, path, tmp_path)
    with Image.open(path) as image:
        same(encoder.transform(image), expected)
        same(encoder.transform([image, path])[1:], expected)
    same(encoder.transform(str(path)), expected)
    pixels = read_image(path.read_bytes())
    same(encoder.transform(pixels[None]), expected)
    result = galirep.retrieve(tmp_path / "one.h5", path, k=1, metric="l2", device="cpu", backend="torch")
    assert result.distances[0, 0] < 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_a_pillow_image_is_read_by_its_mode(encoder, photo, mode):
    image = mode_pictures(photo)[mode]
    meant = {"RGBa": "RGBA", "HSV": "RGB"}.get(mode, mode)
    expected = image.convert(meant) if meant != mode else image
    if mode in FILES:
        file = io.BytesIO()
        save(image, file, FILES[mode])
        same(encoder.transform(image), encoder.transform(read_image(file.getvalue())[None]))
    else:
        same(encoder.transform(image), encoder.transform(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "webp"])
def test_the_exif_orientation_is_applied_by_every_way(photo, orientation, kind, tmp_path):
    encoder = galirep.load_encoder(f"pixels:{SIDE}", device="cpu")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{kind}"
    options = {"webp": {"lossless": True}, "jpeg": {"quality": 95, "subsampling": 0}}.get(kind, {})
    photo.save(path, kind, exif=exif.tobytes(), **options)
    expected = embedded(encoder, path, tmp_path)
    with Image.open(path) as image:
        same(encoder.transform(image), expected)
    same(encoder.transform(path), expected)
    same(encoder.transform(read_image(path.read_bytes())[None]), expected)
    assert (np.abs(encoder.transform(photo) - expected).mean() < 0.05) == (orientation == 1)


def test_arrays_of_every_layout_and_a_tensor_for_a_call_give_the_same_features(encoder, photo):
    pixels = np.asarray(photo.resize((32, 32)))
    batch = np.stack([pixels, pixels[::-1]])
    expected = encoder.transform(batch)
    planes = batch.transpose(0, 3, 1, 2)
    centred, unit = (planes / 127.5 - 1).astype(np.float32), (planes / 255).astype(np.float32)
    for images in (planes, list(batch), list(planes), torch.from_numpy(planes.copy()), [*map(Image.fromarray, batch)]):
        same(encoder.transform(images), expected)
    for images in (
        centred,
        centred.transpose(0, 2, 3, 1),
        list(centred),
        torch.from_numpy(centred),
        centred.astype(float),
    ):
        same(encoder.transform(images), expected)
    for images in (unit, unit.transpose(0, 2, 3, 1), list(unit), torch.from_numpy(unit)):
        same(clone(encoder).set_params(value_range="0..1").transform(images), expected)
    description = encoder.extractor
    if getattr(description, "channels", 3) == 3 and getattr(description, "image_size", 32) == 32:
        same(encoder(torch.from_numpy(centred)).detach().numpy(), expected)
        same(encoder(torch.from_numpy(planes.copy())).detach().numpy(), expected)


def test_images_of_mixed_sizes_forms_and_channels_keep_their_order(encoder, photo, tmp_path):
    path = save(photo, tmp_path / "x.png", "png")
    grey = np.asarray(photo.convert("L"))
    images = [path, photo, np.asarray(photo.resize((90, 60))), grey, str(path), photo.convert("RGBA")]
    rows = encoder.transform(images)
    assert rows.shape == (6, encoder.extractor.dim) and rows.dtype == np.float32
    for row, image in zip(rows, images, strict=True):
        same(row[None], encoder.transform([image]))
    same(rows[0], rows[1])
    same(rows[0], rows[5])
    same(encoder.transform(np.array(images[:2] + images[4:5], dtype=object)), rows[[0, 1, 4]])
    assert encoder.transform([]).shape == (0, encoder.extractor.dim)


def test_rgba_arrays_are_composited_as_files_are(encoder, photo):
    image = mode_pictures(photo)["RGBA"]
    same(encoder.transform(np.asarray(image)[None]), encoder.transform(image))
    same(encoder.transform([np.asarray(image)]), encoder.transform(image))


def test_floats_are_taken_by_their_range_or_refused(photo):
    encoder = galirep.load_encoder(f"pixels:{SIDE}", device="cpu")
    unit = (np.asarray(photo.resize((SIDE, SIDE))) / 255).astype(np.float32).transpose(2, 0, 1)[None]
    for images in (unit, list(unit), torch.from_numpy(unit), [unit[0, 0]]):
        with pytest.raises(
            DataError, match=r"may be meant as 0\.\.1 or as -1\.\.1: say load_encoder\(\.\.\., value_range="
        ):
            encoder.transform(images)
    unit_encoder = galirep.load_encoder(f"pixels:{SIDE}", device="cpu", value_range="0..1")
    same(unit_encoder.transform(unit), encoder.transform(photo.resize((SIDE, SIDE))))
    same(unit_encoder(torch.from_numpy(unit)).numpy(), unit_encoder.transform(unit))
    centred = galirep.load_encoder(f"pixels:{SIDE}", device="cpu", value_range="-1..1")
    same(centred.transform(unit), encoder(torch.from_numpy(unit)).numpy())
    for bad, extent in ((unit * 255, "from 0 to 255"), (unit * 2 - 1.5, "from -1.5 to 0.5"), (unit * np.nan, "nan")):
        with pytest.raises(DataError, match=f"{extent}.*only"):
            encoder.transform(bad.astype(np.float32))
    with pytest.raises(DataError, match=r"from -1 to 1: only 0\.\.1 is supported"):
        unit_encoder.transform(unit * 2 - 1)
    with pytest.raises(ConfigError, match=r"value_range '0-1': it must be '0\.\.1' or '-1\.\.1'"):
        galirep.load_encoder("pixels:8", device="cpu", value_range="0-1")


def test_other_types_and_shapes_are_refused_with_what_would_be_right(photo):
    encoder = galirep.load_encoder(f"pixels:{SIDE}", device="cpu")
    for bad, message in (
        (np.zeros((2, 8, 8), np.int64), "int64 from 0 to 0"),
        (np.full((2, 8, 8), 700, np.uint16), "uint16 from 700 to 700"),
        (np.zeros((2, 8, 8), bool), "bool"),
        (
            np.zeros((480, 640, 3), np.uint8),
            r"may be one image or 480 grey ones: give images\[None\] .*, images\[\.\.\., None\] for 480",
        ),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "may be one image or 3 grey ones"),
        (np.zeros((8, 8), np.uint8), r"images must be \(N, H, W\)"),
        (np.zeros((2, 5, 8, 8), np.uint8), r"images must be \(N, H, W\)"),
        ([np.zeros((5, 8, 8), np.uint8)], "1, 3 or 4 channels"),
        ([np.zeros((0, 8), np.uint8)], "not of shape"),
        ([None], "not NoneType"),
        (7, "not int"),
        (["missing.png"], "missing.png.*No such file"),
        ([photo, photo.convert("LAB")], "1 of 2 images cannot be used: 1: mode 'LAB'"),
    ):
        with pytest.raises(DataError, match=message):
            encoder.transform(bad)
    exact = galirep.load_encoder("random:compact", device="cpu")
    for bad, message in (
        (torch.zeros(3, 8, 8), "may be one image or 3 grey ones"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), "int64 from 0 to 0"),
        (torch.full((1, 3, 32, 32), 255.0), r"from 255 to 255: only -1\.\.1"),
        (torch.zeros(1, 3, 40, 32), r"a float tensor \(1, 3, 40, 32\) for an encoder of \(B, 3, 32, 32\): crop and"),
        (torch.zeros(1, 1, 32, 32), r"a float tensor \(1, 1, 32, 32\) for an encoder of \(B, 3, 32, 32\)"),
        ("nowhere.png", "nowhere.png.*No such file"),
    ):
        with pytest.raises(DataError, match=message):
            exact(bad)


class Pairs(Dataset):
    """Pictures with a label each, as torchvision's sets give them."""

    def __init__(self, pictures, convert=lambda picture: picture, wrap=lambda picture, k: (picture, k)):
        self.pictures, self.convert, self.wrap = pictures, convert, wrap

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, k):
        return self.wrap(self.convert(self.pictures[k]), k)


@pytest.fixture
def album(photo, tmp_path):
    """Return a folder of seven pictures of mixed sizes, and the pictures."""
    folder = tmp_path / "album"
    folder.mkdir()
    pictures = [photo.rotate(20 * k).resize((SIDE + 2 * k, SIDE + k)) for k in range(7)]
    for k, picture in enumerate(pictures):
        picture.save(folder / f"{k}.png")
    return folder, pictures


def test_a_source_a_dataset_and_a_loader_give_what_embed_gives(encoder, album, tmp_path):
    folder, pictures = album
    galirep.embed(encoder.spec, str(folder), tmp_path / "album.h5", device="cpu", num_workers=0)
    with galirep.load_embeddings(tmp_path / "album.h5") as stored:
        expected = stored.features[:]

    def collate(items):
        return [picture for picture, _ in items], [label for _, label in items]

    arrays = Pairs(pictures, np.asarray)
    tensors = Pairs(pictures, lambda picture: torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1))
    for images in (
        galirep.open_data(str(folder)),
        Pairs(pictures),
        arrays,
        tensors,
        Pairs(pictures, wrap=lambda picture, k: {"label": k, "image": picture}),
        Pairs(pictures, wrap=lambda picture, _: picture),
        DataLoader(Pairs(pictures), batch_size=3, collate_fn=collate),
        DataLoader(tensors, batch_size=None),
        DataLoader(tensors, batch_size=1),
    ):
        np.testing.assert_array_equal(encoder.transform(images), expected)
    # what is called gives the same as what transforms
    for images in (pictures, [folder / f"{k}.png" for k in range(7)], Pairs(pictures)):
        called = encoder(images)
        assert isinstance(called, torch.Tensor) and not called.requires_grad
        np.testing.assert_array_equal(called.numpy(), expected)
    np.testing.assert_array_equal(encoder(pictures[0]).numpy(), encoder.transform([pictures[0]]))


def test_floats_of_a_dataset_are_taken_by_their_range_or_refused(album):
    pictures = [picture.resize((SIDE, SIDE)) for picture in album[1]]
    unit = Pairs(pictures, lambda picture: torch.from_numpy(np.asarray(picture) / np.float32(255)).permute(2, 0, 1))
    expected = galirep.load_encoder(f"pixels:{SIDE}", device="cpu").transform(pictures)
    told = galirep.load_encoder(f"pixels:{SIDE}", device="cpu", value_range="0..1")
    same(told.transform(unit), expected)
    same(told.transform(DataLoader(unit, batch_size=4)), expected)
    with pytest.raises(DataError, match=r"7 of 7 images cannot be used: 0: .*may be meant as"):
        galirep.load_encoder(f"pixels:{SIDE}", device="cpu").transform(unit)


def test_a_shuffling_loader_keeps_its_own_order_and_a_second_pass_starts_again(album):
    encoder = galirep.load_encoder(f"pixels:{SIDE}", device="cpu")
    images = np.stack([np.asarray(picture.resize((SIDE, SIDE))) for picture in album[1]])
    order = [4, 0, 6, 2, 5, 1, 3]
    loader = DataLoader(Pairs(images), batch_size=2, sampler=order)
    for _ in range(2):
        np.testing.assert_array_equal(encoder.transform(loader), encoder.transform(images[order]))


def test_what_a_dataset_or_loader_cannot_be_is_told(album):
    encoder = galirep.load_encoder(f"pixels:{SIDE}", device="cpu")

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(album[1])

    for bad, message in (
        (Stream(), "a Stream has no length: hand over a list"),
        (DataLoader(Stream(), batch_size=2), "without a length: hand over a list"),
        (DataLoader(Pairs(album[1]), batch_size=2, drop_last=True), "drop_last=True leaves images out"),
        (Pairs(album[1], wrap=lambda *_: {"label": 1}), "an item has label, and none of image, images"),
        (Pairs(album[1], wrap=lambda *_: ()), "an item is empty"),
        (Pairs(album[1], wrap=lambda _, k: k), r"7 of 7 images cannot be used: 0: .*not int"),
        (album[0], r"is a folder: hand over galirep\.open_data"),
    ):
        with pytest.raises(DataError, match=message):
            encoder.transform(bad)


def test_a_call_gives_what_transform_gives_or_refuses(photo):
    """An extractor that resizes by itself would stretch what `embed` crops."""
    encoder = galirep.load_encoder(f"pixels:{SIDE}", device="cpu")
    for size in ((SIDE, SIDE), (12, 12), (12, 30), (2 * SIDE, 2 * SIDE)):
        array = np.stack([np.asarray(photo.rotate(k).resize(size[::-1])) for k in range(3)])
        tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
        same(encoder(tensor).numpy(), encoder.transform(array))
        floats = tensor / 127.5 - 1
        if size[0] == size[1] <= SIDE:
            same(encoder(floats).numpy(), encoder.transform(array))
        else:
            with pytest.raises(DataError, match=rf"of \(B, 3, {SIDE}, {SIDE}\), or smaller: crop and resize"):
                encoder(floats)


def test_a_call_lets_gradients_pass():
    encoder = galirep.load_encoder("random:compact", device="cpu")
    images = torch.zeros(2, 3, 32, 32, requires_grad=True)
    encoder(images).sum().backward()
    assert images.grad is not None


def test_queries_that_are_no_image_are_refused_by_what_they_are(tmp_path, photo):
    for k in range(2):
        photo.rotate(k).save(tmp_path / f"{k}.png")
    galirep.embed("pixels:8", str(tmp_path), tmp_path / "g.h5", device="cpu", num_workers=0)
    photo.save(tmp_path / "0.avif")
    assert galirep.retrieve(tmp_path / "g.h5", tmp_path / "0.avif", k=1, backend="torch").neighbors.tolist() == [[0]]
    (tmp_path / "x.heic").write_bytes(b"ftypheic")
    with pytest.raises(DataError, match=r"x\.heic is a picture of type \.heic, which this Pillow does not read"):
        galirep.retrieve(tmp_path / "g.h5", tmp_path / "x.heic", k=1, backend="torch")
