"""Images are read in a fixed list of raster formats, wherever they come from: no interpreter, no other program."""

import io
import os
import subprocess
import tarfile

import pytest
from PIL import EpsImagePlugin, Image

import galirep
from galirep.data.catalog import open_data
from galirep.data.files.formats import FORMATS
from galirep.data.handed.images import to_pixels
from galirep.errors import DataError

_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
# which need another program or library, or hold no pixels
_OTHERS = [
    "EPS",
    "PDF",
    "PS",
    "WMF",
    "EMF",
    "FITS",
    "MPEG",
    "FLI",
    "PCD",
    "HDF5",
    "GRIB",
    "BUFR",
    "FPX",
    "MIC",
    "IPTC",
    "SPIDER",
    "XVTHUMB",
    "MCIDAS",
    "WAL",
]


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Put a Ghostscript on the path that leaves a mark; return the mark."""
    mark, program = tmp_path / "mark", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in ("gs_binary", "gs_windows_binary"):
        monkeypatch.setattr(EpsImagePlugin, name, None)
    return mark


@pytest.fixture
def eps(tmp_path):
    """Write an EPS file named as a PNG."""
    path = tmp_path / "photos" / "one" / "a.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(_EPS)
    return path


def test_the_interpreter_would_run(interpreter):
    with pytest.raises((OSError, subprocess.CalledProcessError)):
        Image.open(io.BytesIO(_EPS)).load()
    assert interpreter.exists()


def test_the_list_has_raster_formats_alone():
    assert not set(FORMATS) & set(_OTHERS) and {"JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"} <= set(FORMATS)


def test_no_way_of_reading_images_reaches_it(eps, interpreter, tmp_path):
    folder = eps.parent.parent
    (tmp_path / "list.csv").write_text(f"path\n{eps}\n")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(eps, "one/a.png")
    for spec in (str(folder), str(tmp_path / "x.tar"), f"csv:{tmp_path / 'list.csv'}"):
        with pytest.raises(DataError, match="not an image of a known type"):
            open_data(spec).read(0)
        assert galirep.info(spec)["unreadable"]["count"] == 1
    encoder = galirep.load_encoder("pixels:2")
    with pytest.raises(DataError, match="not an image of a known type"):
        encoder.transform(eps)
    galirep.embed("pixels:2", "sklearn:digits", tmp_path / "g.h5", split="test", num_workers=0)
    with pytest.raises(DataError, match="not an image of a known type"):
        galirep.retrieve(tmp_path / "g.h5", eps, k=1)
    assert not interpreter.exists()


@pytest.mark.parametrize("kind", ("eps", "wmf"))
def test_nor_does_a_pillow_image_that_is_not_decoded_yet(kind, interpreter, tmp_path):
    if kind == "eps":
        image = Image.open(io.BytesIO(_EPS))
    else:
        header = b"\xd7\xcd\xc6\x9a\x00\x00" + bytes([0, 0, 0, 0, 96, 0, 96, 0]) + b"\x60\x00" + bytes(6)
        image = Image.open(io.BytesIO(header + b"\x01\x00\t\x00" + bytes(40)))
    for call in (galirep.load_encoder("pixels:2").transform, lambda x: to_pixels(x, None)):
        with pytest.raises(DataError, match=f"of the format {kind.upper()} is not decoded"):
            call(image)
    assert not interpreter.exists()


def test_pillow_images_of_read_formats_and_decoded_ones_are_taken(tmp_path):
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a.png")
    assert to_pixels(Image.open(tmp_path / "a.png"), None)[0, 0].tolist() == [1, 2, 3]
    image = Image.open(tmp_path / "a.png").copy()
    image.format = "EPS"
    assert to_pixels(image, None).shape == (8, 8, 3)
    two = Image.new("RGB", (8, 8), (9, 9, 9))
    two.save(tmp_path / "a.mpo", save_all=True, append_images=[two])
    with Image.open(tmp_path / "a.mpo") as image:
        assert image.format == "MPO" and to_pixels(image, None).shape == (8, 8, 3)
