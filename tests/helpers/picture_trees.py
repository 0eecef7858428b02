"""Trees of small pictures in any format, tars of them, and members of tars that programs rarely write."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, features

# Pillow's name of the format for an ending it does not register by itself
HAS_AVIF = "avif" in features.modules and features.check("avif")  # a Pillow that does not know it warns of the name
_FORMATS = {".jp2000": "JPEG2000", ".mpo": "MPO", ".avif": "AVIF", ".jfif": "JPEG", ".jpe": "JPEG"}


def encode(value: int = 0, kind: str = ".png") -> bytes:
    """Return an 8 x 8 picture of one value as the bytes of a file."""
    file = io.BytesIO()
    picture = Image.fromarray(np.full((8, 8, 3), value, np.uint8))
    picture.save(file, _FORMATS.get(kind) or Image.registered_extensions()[kind])
    return file.getvalue()


def write(root: Path, *names: str) -> Path:
    """Write pictures of different values under their names, in the format of the ending; others get 10 bytes."""
    Image.init()
    for value, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = path.suffix.lower()
        known = kind in Image.registered_extensions() and Image.registered_extensions()[kind] in Image.SAVE
        path.write_bytes(encode(value, kind) if known or kind in _FORMATS else b"0123456789")
    return root


def tar_of(folder: Path, path: Path) -> str:
    """Make a tar of a folder's content, without a leading folder of its own name."""
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=".")
    return str(path)


def add_member(
    tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    """Add a member of any kind."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(data)
    tar.addfile(member, io.BytesIO(data))
