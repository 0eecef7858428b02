"""The schemas of the embedding file, 2 and 1: its metadata, how they are read, and how two files are compared.

The datasets and attributes are listed in docs/embeddings.md.
"""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from galirep.system.pooling_record import POOLING, pooling_differences
from galirep.system.reading.hdf5 import attributes as read_plain
from galirep.version import __version__

FORMAT = "galirep-embeddings"
SCHEMA_VERSION = 2
# files of schema 1 have no checksums; they are read, and resumed as what they are
READABLE_VERSIONS = (1, 2)
DTYPES = ("float32", "float16")
# a row of /errors, for an image that could not be read
ERROR = np.dtype([("row", np.int64), ("reason", h5py.string_dtype("utf-8", 256))])
# characters of the data report
MAX_REPORT = 16_000
# bytes; HDF5 keeps an attribute in an object header, which has room for 64 KiB
_MAX_ATTRIBUTE = 32_000


@dataclass(frozen=True)
class StoreMeta:
    """The metadata of an embedding file.

    `layers` are (name, width) in the order of the columns of /features. `fingerprint` is that of the images
    (`ImageSource.fingerprint`), `n_expected` their number. Two files have the same encoder if the fields in `ENCODER`
    agree. `splits` is how splits were told to `open_data`, `data_report` what was read and left out of the images
    (`DataReport.to_dict`; empty in files of earlier versions).
    """

    encoder: str
    layers: tuple[tuple[str, int], ...]
    n_expected: int
    encoder_spec: str = ""
    encoder_tag: str = ""
    encoder_sha256: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    precision: str = "fp32"
    seed: int = 0
    source: str = ""
    split: str | None = None
    fingerprint: str = ""
    label_names: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    splits: str = "auto"
    data_report: Mapping[str, Any] = field(default_factory=dict)

    ENCODER = ("encoder", "encoder_tag", "encoder_sha256", "preprocessing", "layers")

    @property
    def dim(self) -> int:
        """Number of columns."""
        return sum(width for _, width in self.layers)

    @property
    def columns(self) -> dict[str, slice]:
        """The columns of each layer, by name."""
        stops = np.cumsum([0, *(width for _, width in self.layers)]).tolist()
        return {
            name: slice(start, stop) for (name, _), start, stop in zip(self.layers, stops[:-1], stops[1:], strict=True)
        }

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes of the file; lists and objects as JSON."""
        return {
            "encoder": self.encoder,
            "encoder_spec": self.encoder_spec.encode(errors="replace").decode(),
            "encoder_tag": self.encoder_tag,
            "encoder_sha256": self.encoder_sha256,
            "preprocessing": json.dumps(dict(self.preprocessing), sort_keys=True),
            "layers": json.dumps({name: [columns.start, columns.stop] for name, columns in self.columns.items()}),
            "precision": self.precision,
            "seed": self.seed,
            # a path may not be UTF-8
            "source": self.source.encode(errors="replace").decode(),
            "split": self.split or "",
            "splits": self.splits,
            "source_fingerprint": self.fingerprint,
            "data_report": json.dumps(dict(self.data_report)),
            "argv": _short_json(self.argv),
            "versions": json.dumps(_versions()),
            "n_expected": self.n_expected,
        }


def partial_path(path: str | Path) -> Path:
    """Return the path of an incomplete file: `FILE.h5.partial`."""
    return Path(path).with_name(f"{Path(path).name}.partial")


def read_meta(file: h5py.File) -> StoreMeta:
    """Read the metadata of an open embedding file (see `file_access.open_file`)."""
    attributes = read_attributes(file)
    layers = sorted(json.loads(attributes["layers"]).items(), key=lambda item: int(item[1][0]))
    return StoreMeta(
        encoder=attributes["encoder"],
        layers=tuple((name, stop - start) for name, (start, stop) in layers),
        n_expected=int(attributes["n_expected"]),
        encoder_spec=attributes["encoder_spec"],
        encoder_tag=attributes["encoder_tag"],
        encoder_sha256=attributes["encoder_sha256"],
        preprocessing=json.loads(attributes["preprocessing"]),
        dtype=file["features"].dtype.name,
        precision=attributes["precision"],
        seed=int(attributes["seed"]),
        source=attributes["source"],
        split=attributes["split"] or None,
        fingerprint=attributes["source_fingerprint"],
        label_names=tuple(file["label_names"].asstr()[:]),
        argv=tuple(json.loads(attributes["argv"])),
        # files of earlier versions have neither
        splits=attributes.get("splits", "auto"),
        data_report=json.loads(attributes.get("data_report", "{}")),
    )


@dataclass(frozen=True)
class Progress:
    """How far a file is: `n_written` rows, `complete` once it has its final name."""

    n_written: int
    complete: bool


def schema_of(file: h5py.File) -> int:
    """Return the schema version of an open embedding file."""
    return int(file.attrs["schema_version"])


def read_progress(file: h5py.File) -> Progress:
    """Read how far a file is: the dataset /progress, in schema 1 two attributes."""
    if schema_of(file) == 1:
        return Progress(int(file.attrs["n_written"]), bool(file.attrs["complete"]))
    written, complete = file["progress"][:].tolist()
    return Progress(written, bool(complete))


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """Read all root attributes that are one text or number, with `n_written` and `complete`."""
    progress = read_progress(file)
    return {**read_plain(file), "n_written": progress.n_written, "complete": progress.complete}


def read_reasons(file: h5py.File) -> dict[int, str]:
    """Read why each image could not be read, by row, among the rows written."""
    table, written = file["errors"][:], read_progress(file).n_written
    # rows of -1 are room for more
    return {row: reason.decode() for row, reason in table.tolist() if 0 <= row < written}


def read_errors(file: h5py.File) -> list[tuple[str, str]]:
    """Read (id, reason) of each image that could not be read, among the rows written."""
    return [(file["ids"].asstr()[row], reason) for row, reason in read_reasons(file).items()]


def differences(first: StoreMeta, second: StoreMeta, fields: Iterable[str]) -> list[str]:
    """Return one text for each field that differs: `encoder_sha256 '12ab' is not '34cd'`.

    In the preprocessing, how layers are pooled is compared for the layers that both have.
    """
    texts = []
    for name in fields:
        a, b = getattr(first, name), getattr(second, name)
        if name == "preprocessing":
            both = [layer for layer, _ in first.layers if layer in dict(second.layers)]
            texts += pooling_differences(a, b, both)
            a, b = ({key: record[key] for key in record if key != POOLING} for record in (a, b))
        if a != b:
            texts.append(f"{name} {_abbreviate(a)} is not {_abbreviate(b)}")
    return texts


def _versions() -> dict[str, str]:
    libraries = {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version, "numpy": np.__version__}
    return {"galirep": __version__, "python": platform.python_version(), **libraries}


def _short_json(values: tuple[str, ...]) -> str:
    """Return `values` as JSON of about `_MAX_ATTRIBUTE` characters at most: the first ones and `... N more`."""
    text = json.dumps(values)
    if len(text) <= _MAX_ATTRIBUTE:
        return text
    # 2 for the comma and the space between two values
    sizes = np.cumsum([len(json.dumps(value)) + 2 for value in values])
    # the last size is the length of the text, so at least one value is left out
    kept = int(np.argmax(sizes > _MAX_ATTRIBUTE))
    return json.dumps([*values[:kept], f"... {len(values) - kept} more"])


def _abbreviate(value: Any) -> str:
    text = json.dumps(dict(value), sort_keys=True) if isinstance(value, Mapping) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
