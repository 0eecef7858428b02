"""Files whose metadata, size or middle is out of order: pixels first, a limit with a way on, holes that are seen."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import galirep
from galirep.data.files.formats import FORMATS, image_types
from galirep.data.image_file.pixel_limit import DEFAULT, VARIABLE
from galirep.data.memory import load_images
from galirep.data.picture import read_image
from galirep.errors import ConfigError, DataError

ORIENTATION = 0x0112
# by galirep or by Pillow
REFUSED = r"damaged|cannot be decoded"


@pytest.fixture(scope="module")
def photo():
    """Return a picture with smooth parts and noise, so that compressed data is neither tiny nor all alike."""
    y, x = np.mgrid[:200, :320]
    planes = np.stack([x % 256, (y + x // 2) % 256, (x * y // 64) % 256], axis=-1)
    noise = np.random.default_rng(0).integers(-12, 13, planes.shape)
    return Image.fromarray((planes + noise).clip(0, 255).astype(np.uint8))


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_of(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def png_chunk(kind, content, checksum=None):
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def before_pixels(png, chunk):
    place = png.index(b"IDAT") - 4
    return png[:place] + chunk + png[place:]


def behind_pixels(png, chunk):
    return png[:-12] + chunk + png[-12:]


def jpeg_segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


# formats


def test_formats_are_raster_formats_of_the_installed_pillow():
    assert not {"EPS", "WMF", "PDF", "FITS", "MPEG"} & {*FORMATS}
    expected = {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".mpo"}
    assert expected <= image_types()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".h5", ".hdf", ".mpg", ".fits"} & image_types()
    assert all(name == name.lower() and name.startswith(".") for name in image_types())


def test_no_other_reader_is_tried():
    with pytest.raises(DataError, match="not an image of a known type"):
        read_image(encoded(Image.new("L", (4, 4)), "eps"))


# metadata


def three_megabytes_of_text(png):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 3_000_000, zip=True)
    return encoded(Image.open(io.BytesIO(png)), "png", pnginfo=info)


BAD_PNG = {
    "3 MB of text": three_megabytes_of_text,
    "3 MB of text behind the pixels": lambda png: behind_pixels(
        png, png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"x" * 3_000_000))
    ),
    "text with a wrong checksum": lambda png: before_pixels(png, png_chunk(b"tEXt", b"a\0b", 7)),
    "text of an unknown compression": lambda png: before_pixels(png, png_chunk(b"zTXt", b"a\0\7b")),
    "profile of an unknown compression": lambda png: before_pixels(png, png_chunk(b"iCCP", b"a\0\7b")),
    "profile that unpacks to too much": lambda png: before_pixels(
        png, png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000)))
    ),
    "short gamma": lambda png: before_pixels(png, png_chunk(b"gAMA", b"\0")),
    "short chromaticities": lambda png: before_pixels(png, png_chunk(b"cHRM", b"\0" * 9)),
    "short pixel density": lambda png: before_pixels(png, png_chunk(b"pHYs", b"\0")),
    "time with a wrong checksum": lambda png: before_pixels(png, png_chunk(b"tIME", bytes(7), 7)),
    "EXIF that is noise": lambda png: before_pixels(png, png_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xffnoise")),
    "EXIF as text that is no hexadecimal": lambda png: before_pixels(
        png, png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nxyz!\n")
    ),
    "a short animation": lambda png: before_pixels(png, png_chunk(b"acTL", b"\0")),
}


@pytest.mark.parametrize("make", BAD_PNG.values(), ids=BAD_PNG.keys())
def test_png_metadata_spoils_no_pixels(photo, make):
    np.testing.assert_array_equal(read_image(make(encoded(photo, "png"))), np.asarray(photo))


BAD_JPEG = {
    "short JFIF": jpeg_segment(0xE0, b"JFIF\0\1"),
    "short profile": jpeg_segment(0xE2, b"ICC_PROFILE\0"),
    "short Adobe": jpeg_segment(0xEE, b"Adobe"),
    "EXIF that is noise": jpeg_segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xffnoise"),
    "EXIF that breaks off": jpeg_segment(0xE1, b"Exif\0\0MM"),
    "a list of pictures that is noise": jpeg_segment(0xE2, b"MPF\0noise"),
    "Photoshop that is noise": jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff"),
}


@pytest.mark.parametrize("segment", BAD_JPEG.values(), ids=BAD_JPEG.keys())
def test_jpeg_metadata_spoils_no_pixels(photo, segment):
    good = encoded(photo, "jpeg")
    np.testing.assert_array_equal(read_image(good[:2] + segment + good[2:]), np.asarray(Image.open(io.BytesIO(good))))


def tiff_with(entries, order="<"):
    """Return a grey TIFF of 2x2 pixels 1, 2, 3, 4 with more entries (tag, type, count, value)."""
    entries = sorted([(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), *entries])
    entries = sorted([*entries, (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 2), (279, 4, 1, 4)])
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        packed = struct.pack(
            order + ("HH" if kind == 3 and count == 1 else "I"), *([value, 0] if kind == 3 else [value])
        )
        directory += struct.pack(order + "HHI", tag, kind, count) + packed
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return mark + struct.pack(order + "I", 12) + bytes([1, 2, 3, 4]) + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "entry",
    [(34665, 4, 1, 1 << 30), (34665, 4, 1, 0), (34853, 4, 1, 9), (34675, 7, 1 << 28, 1 << 28), (282, 5, 1, 1 << 30)],
    ids=["EXIF outside", "EXIF at 0", "GPS within", "profile outside", "resolution outside"],
)
def test_tiff_metadata_spoils_no_pixels(entry, order):
    np.testing.assert_array_equal(read_image(tiff_with([entry], order))[:, :, 0], [[1, 2], [3, 4]])


@pytest.mark.parametrize("kind", ["EXIF", "ICCP", "XMP "])
def test_webp_metadata_spoils_no_pixels(photo, kind):
    options = {"EXIF": {"exif": exif_of(1)}, "ICCP": {"icc_profile": b"profile!"}, "XMP ": {"xmp": b"<x/>"}}[kind]
    good = encoded(photo, "webp", lossless=True, **options)
    place = good.index(kind.encode(), 12) + 4
    size = int.from_bytes(good[place : place + 4], "little")
    noise = good[: place + 4] + b"\xff" * size + good[place + 4 + size :]
    too_long = good[:place] + struct.pack("<I", 1 << 30) + good[place + 4 :]
    for bad in (noise, *([too_long] if kind != "ICCP" else [])):
        np.testing.assert_array_equal(read_image(bad), np.asarray(photo))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_exif_that_cannot_be_read_means_no_rotation(photo, kind):
    good = encoded(photo, kind, exif=exif_of(6), **({"lossless": True} if kind == "webp" else {}))
    assert read_image(good).shape == (320, 200, 3)
    for value in (0, 9, 77):
        assert read_image(encoded(photo, kind, exif=exif_of(value))).shape == (200, 320, 3)
    if kind != "tiff":
        place = good.index(b"II*\0" if b"II*\0" in good else b"MM\0*")
        bad = bytearray(good)
        bad[place + 4 : place + 8] = b"\xff\xff\xff\xff"
        if kind == "png":
            bad[place + 26 : place + 30] = struct.pack(">I", zlib.crc32(bad[place - 4 : place + 26]))
        assert read_image(bytes(bad)).shape == (200, 320, 3)


def test_a_rotation_is_kept_beside_text_that_is_too_long(photo):
    png = encoded(photo, "png", exif=exif_of(6))
    bad = before_pixels(png, png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"x" * 3_000_000)))
    np.testing.assert_array_equal(read_image(bad), read_image(png))


def test_damaged_pixels_stay_refused_beside_bad_metadata(photo):
    png = BAD_PNG["short gamma"](encoded(photo, "png"))
    with pytest.raises(DataError, match="truncated"):
        read_image(png[: len(png) * 3 // 4])


def test_a_png_whose_pixels_have_a_wrong_checksum_is_refused(photo):
    png = bytearray(encoded(photo, "png", compress_level=0))
    png[-16] ^= 1
    with pytest.raises(DataError, match="damaged: the checksum of its IDAT chunk is wrong"):
        read_image(bytes(png))
    png[-16] ^= 1
    png[len(png) // 2] ^= 1
    with pytest.raises(DataError, match=REFUSED):
        read_image(bytes(png))


# size


def huge_png(side=14_200):
    """Return a black PNG: rows of zeros pack well, and need no picture in memory."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_a_very_large_image_is_refused_with_its_size_and_the_option():
    with pytest.raises(
        DataError,
        match=r"14200x14200 pixels \(201,640,000\) are over the limit of 178,956,970: pass --max-pixels 201640000, "
        "or set GALIREP_MAX_PIXELS",
    ):
        read_image(huge_png())
    # Pillow refuses twice its limit before it tells the size
    with pytest.raises(DataError, match="20000x20000"):
        read_image(huge_png(20_000))


def test_the_limit_is_a_parameter_and_a_variable(photo, monkeypatch):
    data = encoded(photo, "png")
    assert read_image(data, 64_000).shape == (200, 320, 3)
    with pytest.raises(DataError, match="320x200 pixels"):
        read_image(data, 63_999)
    monkeypatch.setenv(VARIABLE, "63999")
    with pytest.raises(DataError, match="--max-pixels 64000"):
        read_image(data)
    assert read_image(data, 64_000).shape == (200, 320, 3)
    for bad in ("many", "0", "-1", "1.5"):
        monkeypatch.setenv(VARIABLE, bad)
        with pytest.raises(ConfigError, match=f"{VARIABLE} is '{bad}': it must be a number of pixels"):
            read_image(data)


@pytest.mark.parametrize("kind", ["webp", "tiff", "gif", "jpeg", "jpeg2000", "bmp"])
def test_the_limit_holds_for_every_format(photo, kind):
    with pytest.raises(DataError, match="--max-pixels 64000"):
        read_image(encoded(photo, kind), 10_000)


def test_no_warning_of_pillow_comes_through_and_its_limit_stays(photo):
    before = Image.MAX_IMAGE_PIXELS
    assert DEFAULT / 2 < 9_500**2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(huge_png(9_500)).shape == (9_500, 9_500, 1)
        with pytest.raises(DataError):
            read_image(encoded(photo, "png"), 10)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("workers", [0, 2])
def test_the_limit_reaches_the_workers(photo, tmp_path, workers):
    photo.save(tmp_path / "a.png")
    photo.resize((20, 20)).save(tmp_path / "b.png")
    small = galirep.open_data(tmp_path, max_pixels=1000)
    loaded = load_images(small, 16, num_workers=workers, on_error="skip")
    assert loaded.ids == ["b.png"] and "320x200" in loaded.errors[0][1]
    assert load_images(small.subset([1]), 16, num_workers=workers).ids == ["b.png"]


@pytest.mark.parametrize("command", ["embed", "retrieve", "train", "train-classifier"])
def test_the_option_on_the_command_line(photo, tmp_path, command, cli):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(4):
            photo.rotate(k).save(tmp_path / "data" / name / f"{k}.png")
    data = str(tmp_path / "data")
    galirep.embed("pixels:8", data, tmp_path / "gallery.h5", num_workers=0)
    common = ["--device", "cpu", "--num-workers", "0"]
    tiny = ["--image-size", "32", "--networks", "compact", "--width", "4", "--latent-dim", "4", "--batch-size", "4"]
    arguments = {
        "embed": ["--encoder", "pixels:8", "--data", data, "--out", str(tmp_path / "x.h5"), *common],
        "retrieve": ["--gallery", str(tmp_path / "gallery.h5"), "--queries", f"{data}/a/1.png", "-k", "2", *common],
        "train": ["--data", data, "--out", str(tmp_path / "run"), "--steps", "1", *tiny, *common],
        "train-classifier": [
            *("--data", data, "--out", str(tmp_path / "run"), "--epochs", "1", "--image-size", "32", *common)
        ],
    }[command]
    result = cli(command, *arguments, "--max-pixels", "1000")
    assert result.exit_code == 1 and "320x200 pixels (64,000) are over the limit of 1,000" in result.stderr
    assert "1.png" in result.stderr and "--max-pixels 64000" in result.stderr
    assert VARIABLE not in os.environ


# holes


def jpeg_of(photo, **options):
    return encoded(photo, "jpeg", quality=90, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimize": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 7}, {"progressive": True}],
    ids=["plain", "optimized", "restarts", "short intervals", "progressive"],
)
@pytest.mark.parametrize("place", [0.4, 0.6, 0.8])
def test_a_jpeg_with_a_hole_of_zeros_and_a_proper_end_is_refused(photo, options, place):
    good = jpeg_of(photo, **options)
    start, size = int(len(good) * place), 3000
    with pytest.raises(DataError, match=REFUSED):
        read_image(good[:start] + bytes(size) + good[start + size :])
    # a file that was laid out in full and filled up to here
    with pytest.raises(DataError, match=REFUSED):
        read_image(good[:start] + bytes(len(good) - start))
    with pytest.raises(DataError, match=REFUSED):
        read_image(good[:start] + bytes(len(good) - start - 2) + good[-2:])


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_a_jpeg_with_bytes_missing_or_foreign_is_refused(photo, place):
    good = jpeg_of(photo)
    start, size = int(len(good) * place), 3000
    with pytest.raises(DataError, match="ends before the last row"):
        read_image(good[:start] + good[start + size :])
    foreign = np.random.default_rng(1).bytes(size)
    with pytest.raises(DataError, match=REFUSED):
        read_image(good[:start] + foreign + good[start + size :])
    with pytest.raises(DataError, match="left over after the last row"):
        read_image(good[:start] + good[start - size : start] + good[start:])


def test_restart_markers_that_are_missing_or_out_of_order_are_refused(photo):
    good = jpeg_of(photo, restart_marker_rows=1)
    first, second = good.index(b"\xff\xd0"), good.index(b"\xff\xd1")
    with pytest.raises(DataError, match="restart markers"):
        read_image(good[:first] + good[second:])


def test_intact_jpeg_files_of_all_kinds_are_read_as_pillow_reads_them():
    generator = np.random.default_rng(0)
    for number in range(120):
        height, width = (int(side) for side in generator.integers(1, 120, 2))
        shades = np.add.outer(np.arange(height), np.arange(width))[:, :, None] % 256 * np.ones(3, int)
        array = [
            generator.integers(0, 256, (height, width, 3)),
            np.full((height, width, 3), generator.integers(0, 256, 3)),
            shades,
            np.full((height, width, 3), 128),
        ][number % 4]
        image = Image.fromarray(array.astype(np.uint8)).convert(["RGB", "L", "CMYK"][number % 3])
        options = {
            "quality": int(generator.integers(1, 101)),
            "progressive": bool(number % 2),
            "optimize": bool(number // 2 % 2),
            "subsampling": number % 5 % 3,
            "restart_marker_blocks": int(generator.integers(0, 30)) * (number // 3 % 2),
        }
        data = encoded(image, "jpeg", **options)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("L" if image.mode == "L" else "RGB"))
        np.testing.assert_array_equal(read_image(data).reshape(expected.shape), expected, err_msg=str(options))
        # bytes behind the end, and a few before it, are what some cameras leave
        read_image(data + b"trailer" * 100)
        read_image(data[:-2] + bytes(4) + data[-2:])


@pytest.mark.parametrize("progressive", [False, True])
def test_large_flat_jpeg_files_are_intact(progressive):
    for value in (0, 128, 255):
        data = encoded(Image.new("L", (3000, 2000), value), "jpeg", progressive=progressive, optimize=True)
        assert read_image(data).min() == read_image(data).max() == value


def test_a_file_of_two_pictures_gives_the_first(photo):
    data = encoded(photo, "mpo", save_all=True, append_images=[photo.rotate(180)])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    np.testing.assert_array_equal(read_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["avif", "jpeg2000", "qoi", "ppm", "tga", "pcx", "sgi", "dds", "ico"])
def test_truncated_files_of_other_formats_are_refused(photo, kind):
    data = encoded(photo.resize((128, 128)), kind)
    assert read_image(data).shape[2] == 3
    for part in (0.5, 0.9):
        with pytest.raises(DataError):
            read_image(data[: int(len(data) * part)])
