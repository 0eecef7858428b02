"""Damage to what others make: arrays, tars, tables, zips; their structure stays, what they say does not."""

import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from soak_parts.mutations import mutate_bytes


def zip_of(path: Path, draw: random.Random) -> None:
    """Mutate the content of one member of a zip, whose checksums then fit."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    chosen = next((name for name in members if name.endswith("data.pkl")), "") if draw.random() < 0.6 else ""
    chosen = chosen or draw.choice(list(members))
    members[chosen] = mutate_bytes(members[chosen], draw)
    if draw.random() < 0.1:
        del members[draw.choice(list(members))]
    pack = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w", pack) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npz_of(path: Path, draw: random.Random) -> None:
    """Give the arrays of an npz file other shapes, types and names, or headers that declare what they have not."""
    with np.load(path) as file:
        arrays = dict(file)
    name = draw.choice(list(arrays))
    new: Any = draw.choice(
        (
            *(
                np.float64(1),
                np.zeros((2, 0, 3)),
                np.zeros((3, 4), "c8"),
                np.array(["a", "b"]),
                np.full((2, 3, 3), np.nan),
            ),
            *(arrays[name][:1], arrays[name].astype("f8") * 1e300, np.array([{}], object), np.zeros(3, "M8[s]")),
            *(np.zeros(2, [("a", "i4")]), np.full(20, -7), np.arange(20.0) + 0.5, np.full(20, 2**63, "u8")),
        )
    )
    action = draw.random()
    if action < 0.5:
        np.savez(path, **{**arrays, name: new})
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array)
            data = buffer.getvalue()
            if key == name:
                shape = draw.choice(
                    ("(2**40,)", "(-1, 8, 8)", "(99999999999, 8, 8)", "(20, 8, 8, 8)", "(1e3,)", "'x'", "None")
                )
                data = _replaced_header(data, shape, draw)
            archive.writestr(f"{key}.npy", data)
        if draw.random() < 0.2:
            archive.writestr("images.npy" if draw.random() < 0.5 else "x.npy", bytes(1 << 26))


def _replaced_header(data: bytes, shape: str, draw: random.Random) -> bytes:
    body = data[10 + struct.unpack("<H", data[8:10])[0] :]
    descr = draw.choice(("'|u1'", "'<f4'", "'|O'", "[('a', '<f4')]", "'<U9999999'", "'|V0'", "5"))
    header = (
        f"{{'descr': {descr}, 'fortran_order': {draw.choice(('True', 'False', '0'))}, 'shape': {shape}, }}\n".encode()
    )
    return data[:8] + struct.pack("<H", len(header)) + header + body


def tar_of(path: Path, draw: random.Random) -> None:
    """Mutate a field of one header of a tar, whose checksum then fits."""
    data = bytearray(path.read_bytes())
    at = 512 * draw.choice([i for i in range(len(data) // 512) if data[512 * i + 257 : 512 * i + 262] == b"ustar"])
    field, width = draw.choice(
        ((0, 100), (100, 8), (124, 12), (124, 12), (136, 12), (156, 1), (156, 1), (157, 100), (345, 155))
    )
    values = (
        b"\xff" * width,
        b"\x80" + b"\xff" * (width - 1),
        b"7" * width,
        b"\0" * width,
        b"L",
        b"K",
        b"x",
        b"g",
        b"S",
        b"1",
        b"2",
        b"../../x",
        b"/",
    )
    new = draw.choice(values)[:width]
    data[at + field : at + field + len(new)] = new
    head = data[at : at + 512]
    head[148:156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(head)
    path.write_bytes(bytes(data))


def add_to_tar(path: Path, draw: random.Random) -> None:
    """Add a member of an odd kind or name to a tar."""
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo(
            draw.choice(("a.png", "../b.png", "/c.png", "images/run.json", "x" * 300, "images", "a/\x1b.png"))
        )
        info.type = draw.choice(
            (tarfile.REGTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
        )
        info.linkname = draw.choice(("a.png", "images", "..", "/etc/passwd", "images/class0"))
        content = draw.choice((b"", b"{" * 5000, b"[1]"))
        info.size = len(content) if info.type == tarfile.REGTYPE else 0
        if draw.random() < 0.3:
            info.pax_headers = {
                draw.choice(("size", "GNU.sparse.major", "path", "GNU.sparse.map")): draw.choice(
                    ("-99999", "1", "x", "9" * 30)
                )
            }
        tar.addfile(info, io.BytesIO(content))


def csv_of(path: Path, draw: random.Random) -> None:
    """Mutate cells, columns and quotes of a CSV file."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    odd = (
        "",
        "-1",
        "1e400",
        "9" * 400,
        '"',
        "a\0b",
        "nan",
        "images",
        "/dev/zero",
        "../x",
        "x" * 200_000,
        "1.5",
        "\ufeff",
        "٣",
        "²",
        "1e999999999",
    )
    for _ in range(draw.choice((1, 1, 3))):
        row = draw.choice(rows)
        if row:
            row[draw.randrange(len(row))] = draw.choice(odd)
    text = draw.choice((",", ",", ",", ";", "\t")).join(rows[0]) + "\n" + "\n".join(map(",".join, rows[1:]))
    if draw.random() < 0.1:
        text = "," * 50_000 + "path\n" + "a\n" * 50_000
    path.write_text(draw.choice(("", "", "sep=;\n", "sep=\n")) + text)


def parquet_of(path: Path, draw: random.Random) -> None:
    """Give a column of a parquet file another type."""
    import pyarrow
    from pyarrow import parquet

    read = parquet.read_table(path)
    n, name = read.num_rows, draw.choice(read.column_names)
    new = draw.choice(
        ([None] * n, [[1]] * n, [{"a": 1}] * n, [1.5] * n, [-3] * n, [b"\xff"] * n, ["a"] * n, [2**62] * n, [True] * n)
    )
    columns = {key: read[key] for key in read.column_names}
    columns[draw.choice((name, name, "LABEL", "key"))] = pyarrow.array(new)
    parquet.write_table(pyarrow.table(columns), path)
