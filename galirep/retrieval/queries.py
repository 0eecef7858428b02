"""The searching side of a retrieval: the rows of an embedding file, or images embedded on the spot with the encoder that made the
gallery."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galirep.data.catalog import open_data
from galirep.data.file_index import IMAGE_TYPES
from galirep.data.sources import ImageSource, PathSource
from galirep.embeddings.encoder_of import extractor_of
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta, differences
from galirep.errors import ConfigError, DataError
from galirep.features.extraction import extract
from galirep.search.gallery import Gallery
from galirep.search.index_file import is_index

_SAME = tuple(name for name in StoreMeta.ENCODER if name != "layers")


@dataclass
class Queries:
    """What `open_queries` gives. `rows.blocks()` and `rows.features[...]` read the features, columns as in the gallery, from memory or
    disk."""

    name: str
    meta: StoreMeta
    ids: NDArray[np.object_]
    labels: NDArray[np.int64] | None
    rows: "Embeddings | _InMemory"
    source: ImageSource | None = None  # of images that were embedded on the spot

    def __len__(self) -> int:
        return len(self.ids)

    def same_as(self, gallery: Gallery) -> bool:
        """Whether these are the gallery's own rows: the same images, in number, order and content, by the same encoder."""
        return self.meta.fingerprint == gallery.meta.fingerprint and np.array_equal(self.ids, gallery.ids)


class _InMemory:
    def __init__(self, features: NDArray[np.float32]) -> None:
        self._features = features

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        yield slice(0, len(self._features)), self._features

    @property
    def features(self) -> NDArray[np.float32]:
        return self._features


@contextmanager
def open_queries(
    spec: str | Path | Sequence[str | Path],
    gallery: Gallery,
    *,
    split: str | None = None,
    device: str = "auto",
    num_workers: int | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
) -> Iterator[Queries]:
    """Open an embedding file, image files, or a data set as queries for `gallery`.

    Raises:
        DataError: a file of another encoder, preprocessing or layers (each difference listed), an index, no images, or images that cannot
        be read.
        ConfigError: a split of an embedding file.
        PluginError: the gallery's encoder cannot be built.
    """
    several = [spec] if isinstance(spec, str | Path) else list(spec)
    if len(several) == 1 and _is_embedding_file(Path(several[0])):
        if split is not None:
            raise ConfigError(f"{several[0]} is an embedding file: it has no split {split!r}")
        with load_embeddings(Path(several[0])) as embeddings:
            _require_same(gallery, embeddings)
            chosen = embeddings.select([name for name, _ in gallery.meta.layers])
            yield Queries(str(several[0]), embeddings.meta, chosen.ids, chosen.labels, chosen)
        return
    source = _images([str(item) for item in several], split, data_root, download)
    extractor = extractor_of(gallery.meta, download=download, device=device)
    features, errors = extract(
        extractor, source, device=device, num_workers=num_workers, precision=gallery.meta.precision
    )
    if errors:
        shown = "; ".join(f"{source.ids[i]}: {reason}" for i, reason in list(errors.items())[:5])
        raise DataError(f"{len(errors)} of {len(source)} query images cannot be read: {shown}")
    meta = replace(
        gallery.meta,
        source=source.spec,
        split=source.split,
        fingerprint=source.fingerprint,
        label_names=source.label_names,
    )
    yield Queries(source.spec, meta, np.array(source.ids, dtype=object), source.labels, _InMemory(features), source)


def _is_embedding_file(path: Path) -> bool:
    if path.is_file() and is_index(path):
        raise DataError(f"{path} is an index, not queries: name an embedding file, images or a data set")
    return path.suffix in (".h5", ".hdf5")


def _images(specs: list[str], split: str | None, data_root: str | Path | None, download: bool) -> ImageSource:
    files = [Path(spec).suffix.lower() in IMAGE_TYPES for spec in specs]
    if all(files):
        return PathSource(" ".join(specs), Path(), specs)
    if len(specs) > 1:
        raise ConfigError(f"several queries must all be image files; {specs[files.index(False)]!r} is none")
    return open_data(specs[0], split, root=data_root, download=download)


def _require_same(gallery: Gallery, queries: Embeddings) -> None:
    differ = differences(queries.meta, gallery.meta, _SAME)
    widths = dict(queries.meta.layers)
    for name, width in gallery.meta.layers:
        if name not in widths:
            differ.append(f"layers: there is no {name!r} among {', '.join(widths)}")
        elif widths[name] != width:
            differ.append(f"layers: {name!r} has {widths[name]} columns, not {width}")
    if differ:
        raise DataError(f"queries {queries.path} and gallery {gallery.path} are not comparable: {'; '.join(differ)}")
