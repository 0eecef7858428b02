"""What the images of a set are: read one by one for sizes, modes, formats, faults and equal contents."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from galirep.data.decoding import auto_workers, run_tasks
from galirep.data.files.formats import FORMATS
from galirep.data.sources import FileSource, ImageSource
from galirep.errors import DataError

_TASK = 64  # images that a worker reads at a time
_FIRST = 5  # examples that are shown


@dataclass(frozen=True)
class ImageFacts:
    """One image: size in pixels (0 if it cannot be read), mode and format of its file, bytes, SHA-256, and its error.

    `mode` and `format` are Pillow's, or grey or RGB and empty for a set that is not of files.
    """

    id: str
    width: int
    height: int
    mode: str
    format: str
    bytes: int
    sha256: str
    error: str | None


@dataclass(frozen=True)
class _Survey:
    source: ImageSource

    def run(self, indices: Sequence[int]) -> list[ImageFacts]:
        return [_look_at(self.source, index) for index in indices]


def look_at_all(source: ImageSource, num_workers: int | None = None) -> list[ImageFacts]:
    """Read and decode every image of a set.

    Raises:
        DataError, ConfigError: as for `decode`.
    """
    tasks = [range(start, min(start + _TASK, len(source))) for start in range(0, len(source), _TASK)]
    workers = auto_workers(source, len(source)) if num_workers is None else min(num_workers, len(tasks))
    return [facts for part in run_tasks(_Survey(source), tasks, workers) for facts in part]


def _look_at(source: ImageSource, index: int) -> ImageFacts:
    name = source.ids[index]
    content = source.content(index)
    mode = kind = ""
    if isinstance(source, FileSource):
        mode, kind = _header(content)
    width = height = 0
    error = None
    try:
        height, width, channels = source.read(index).shape
        mode = mode or {1: "L", 3: "RGB"}[channels]
    except DataError as err:
        error = str(err).removeprefix(f"{name}: ")
    return ImageFacts(name, width, height, mode, kind, len(content), hashlib.sha256(content).hexdigest(), error)


def _header(content: bytes) -> tuple[str, str]:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.mode, image.format or ""
    except Exception:
        # Pillow's plug-ins raise all kinds of errors for damaged files; reading the image tells what is wrong
        return "", ""


def summarize(facts: Sequence[ImageFacts]) -> dict[str, Any]:
    """Return sizes, modes, formats, bytes and unreadable images as a JSON object; counts are sorted, largest first."""
    sizes = Counter((image.width, image.height) for image in facts if image.error is None)
    faults = [image for image in facts if image.error is not None]
    return {
        "bytes": sum(image.bytes for image in facts),
        "sizes": {
            "different": len(sizes),
            "smallest": list(min(sizes, key=lambda size: (min(size), max(size)), default=())),
            "largest": list(max(sizes, key=lambda size: (min(size), max(size)), default=())),
            "commonest": [[width, height, count] for (width, height), count in sizes.most_common(_FIRST)],
        },
        "modes": _counts(image.mode for image in facts if image.error is None),
        "formats": _counts(image.format for image in facts if image.error is None and image.format),
        "unreadable": {
            "count": len(faults),
            "first": [{"id": image.id, "reason": image.error} for image in faults[:_FIRST]],
        },
    }


def find_duplicates(splits: Mapping[str, tuple[Sequence[ImageFacts], Sequence[str]]]) -> dict[str, Any]:
    """Return the groups of images of equal content (the bytes of the file, or the values) over all splits.

    `splits` has for each split its images and the class of each. `across_splits` and `across_classes` count the groups
    whose images are in more than one; the first groups are listed, those first.
    """
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for split, (images, classes) in splits.items():
        for image, name in zip(images, classes, strict=True):
            if image.error is None:
                groups.setdefault(image.sha256, []).append((split, name, image.id))
    repeated = [members for members in groups.values() if len(members) > 1]
    across_splits = [members for members in repeated if len({split for split, _, _ in members}) > 1]
    across_classes = [members for members in repeated if len({name for _, name, _ in members}) > 1]
    ordered = sorted(repeated, key=lambda members: (members not in across_classes, members not in across_splits))
    return {
        "groups": len(repeated),
        "images": sum(map(len, repeated)),
        "across_splits": len(across_splits),
        "across_classes": len(across_classes),
        "first": [
            [f"{split}/{name}" if split else name for split, _, name in members[:_FIRST]]
            for members in ordered[:_FIRST]
        ],
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
