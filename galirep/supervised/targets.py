"""Training targets of a classifier: one class an image from the data set, or binary attributes from a CSV file."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from galirep.data.files.tables import read_table
from galirep.data.labels import as_read
from galirep.data.sources import ImageSource
from galirep.errors import DataError

_BINARY = re.compile(r"(-?1|0)(\.0*)?", re.ASCII)


@dataclass(frozen=True)
class Targets:
    """What a classifier learns of N images.

    `values` are (N,) int64 classes (-1: none), or (N, n) float32 attributes of 0 and 1; `names` those of the n classes
    or attributes. `notes` say how a CSV file of attributes was read, where that was not plain.
    """

    values: Tensor
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def binary(self) -> bool:
        """True if there are binary attributes instead of one class."""
        return self.values.ndim == 2

    def to(self, device: torch.device) -> "Targets":
        """Return the targets with `values` on `device`."""
        return dataclasses.replace(self, values=self.values.to(device))

    def loss(self, logits: Tensor, index: Tensor) -> Tensor:
        """Return the mean cross-entropy of the images at `index`, nats (over the attributes too, if binary).

        `values` must be on the device of `logits`.
        """
        if self.binary:
            return F.binary_cross_entropy_with_logits(logits, self.values[index])
        return F.cross_entropy(logits, self.values[index])

    def report(self, logits: Tensor, index: Tensor) -> dict[str, Any]:
        """Return the accuracy (0 to 1), overall and by class or attribute, beside that of the commonest answer."""
        values, logits = self.values[index].cpu(), logits.cpu()
        return self._attribute_report(logits, values) if self.binary else self._class_report(logits, values)

    def _attribute_report(self, logits: Tensor, values: Tensor) -> dict[str, Any]:
        accuracy = ((logits > 0) == (values > 0.5)).double().mean(0)
        rate = values.double().mean(0)
        commonest = torch.maximum(rate, 1 - rate)
        attributes = {
            name: {"accuracy": float(a), "commonest": float(c)}
            for name, a, c in zip(self.names, accuracy, commonest, strict=True)
        }
        overall = {"accuracy": float(accuracy.mean()), "commonest": float(commonest.mean())}
        return {"n": len(values), **overall, "attributes": attributes}

    def _class_report(self, logits: Tensor, values: Tensor) -> dict[str, Any]:
        right = logits.argmax(1) == values
        counts = values.bincount(minlength=len(self.names))
        hits = values[right].bincount(minlength=len(self.names))
        recall = {name: int(h) / int(c) if c else None for name, h, c in zip(self.names, hits, counts, strict=True)}
        overall = {"accuracy": float(right.double().mean()), "commonest": int(counts.max()) / len(values)}
        return {"n": len(values), **overall, "classes": recall}


def class_targets(source: ImageSource) -> Targets:
    """Return the data set's own classes.

    Raises:
        DataError: it has no classes, or only one.
    """
    if source.labels is None or (source.labels < 0).all():
        raise DataError(
            f"{source.spec} has no labels: name a CSV file of binary attributes with --labels, "
            "or a data set with class folders"
        )
    names = source.label_names or tuple(str(k) for k in range(int(source.labels.max()) + 1))
    if len(set(source.labels[source.labels >= 0].tolist())) < 2:
        raise DataError(f"{source.spec} has images of one class only: there is nothing to tell apart")
    return Targets(torch.from_numpy(source.labels.astype(np.int64)), names)


def attribute_targets(path: Path, ids: Sequence[str], names: Sequence[str] | None = None) -> Targets:
    """Read binary attributes from a CSV file, in the order of `ids`.

    The file has a header, the image's id in the first column, then 0 and 1 (or -1 and 1), one column an attribute. An
    id may leave out the folders and the extension of the image's. `names` are the attributes that the columns must be.

    Raises:
        DataError: the file cannot be read, is not such a table, or its ids are not those of the images.
    """
    header, rows, notes = _read(path)
    if names is not None and header != tuple(names):
        raise DataError(f"{path}: its attributes are {', '.join(header)}, not {', '.join(names)}")
    values: list[list[float]] = []
    used: set[str] = set()
    for image in ids:
        key = next((spelling for spelling in _spellings(image) if spelling in rows), None)
        if key is None:
            missing = sum(not any(spelling in rows for spelling in _spellings(name)) for name in ids)
            raise DataError(f"{path} has no row for {missing} of {len(ids)} images, the first {image!r}")
        if key in used:
            raise DataError(
                f"{path}: the id {key!r} fits several images, {image!r} among them; "
                "write ids as `galirep embed` does, with their folders"
            )
        used.add(key)
        values.append(rows[key])
    if len(used) < len(rows):
        unused = next(key for key in rows if key not in used)
        raise DataError(
            f"{path} has {len(rows) - len(used)} ids that are not in the data, the first {unused!r}: "
            "is it the file of another split?"
        )
    return Targets(torch.from_numpy(np.asarray(values, np.float32)), header, notes)


def _spellings(image: str) -> Iterator[str]:
    """Yield the ways in which a CSV file may write an image's id."""
    path = PurePosixPath(as_read(image))
    yield from (str(path), str(path.with_suffix("")), path.name, path.stem)


def _read(path: Path) -> tuple[tuple[str, ...], dict[str, list[float]], tuple[str, ...]]:
    """Return the attributes' names, the values of each id, and notes on how the file was read."""
    table = read_table(str(path), path, unreadable="cannot be read as a CSV file of attributes")
    header = table.columns[1:]
    if not header or not all(header) or len(set(header)) < len(header):
        raise DataError(f"{path}: the first line must name an id column and one or more attributes, each once")
    rows: dict[str, list[float]] = {}
    for cells, number in zip(table.rows, table.lines, strict=True):
        line = f"{path}, line {number}"
        key = as_read(cells[0])
        if key in rows:
            raise DataError(f"{line}: the id {key!r} occurs twice")
        for name, cell in zip(header, cells[1:], strict=True):
            if not _BINARY.fullmatch(cell):
                raise DataError(f"{line}: {name} is {cell!r}, but attributes are binary: 0 or 1 (or -1 and 1)")
        rows[key] = [float(cell) for cell in cells[1:]]
    if not rows:
        raise DataError(f"{path} has no rows")
    for column, name in enumerate(header):
        seen = {row[column] for row in rows.values()}
        if {0.0, -1.0} <= seen:
            raise DataError(f"{path}: {name} has 0 and -1, but attributes are binary: 0 or 1 (or -1 and 1)")
    return header, {key: [max(value, 0.0) for value in row] for key, row in rows.items()}, table.notes
