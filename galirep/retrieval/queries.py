"""Open the queries of a retrieval: an embedding file, or images embedded now with the gallery's encoder."""

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galirep.data.catalog import open_data
from galirep.data.files.formats import image_types, is_image, is_picture, type_of
from galirep.data.sources import ImageSource, PathSource
from galirep.embeddings.encoder_of import extractor_of
from galirep.embeddings.reader import Embeddings, load_embeddings
from galirep.embeddings.schema import StoreMeta, differences
from galirep.errors import ConfigError, DataError, format_list
from galirep.features.extraction import extract
from galirep.features.protocol import FeatureExtractor
from galirep.search.gallery import Gallery
from galirep.search.index_file import is_index

# layers are compared by name and width, see `_require_comparable`
_COMPARED_FIELDS = tuple(name for name in StoreMeta.ENCODER if name != "layers")


@dataclass(frozen=True)
class QueryOptions:
    """How queries that are a data set are found (`split`, `splits`, `data_root`, `download`) and embedded.

    `encoder` and `trust_encoder` are as for `embeddings.encoder_of.extractor_of`.
    """

    split: str | None = None
    splits: str | Sequence[str] | None = "auto"
    device: str = "auto"
    num_workers: int | None = None
    data_root: str | Path | None = None
    download: bool = False
    encoder: str | FeatureExtractor | None = None
    trust_encoder: bool = False


@dataclass(frozen=True)
class Queries:
    """Open queries.

    `rows.blocks()` and `rows.features[...]` give the features, from memory or disk, with columns as in the gallery.
    `source` has the images if they were embedded now.
    """

    name: str
    meta: StoreMeta
    ids: NDArray[np.object_]
    labels: NDArray[np.int64] | None
    rows: "Embeddings | _FeaturesInMemory"
    source: ImageSource | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def are_rows_of(self, gallery: Gallery) -> bool:
        """Return whether these are the gallery's own rows: same images in the same order."""
        return self.meta.fingerprint == gallery.meta.fingerprint and np.array_equal(self.ids, gallery.ids)


class _FeaturesInMemory:
    def __init__(self, features: NDArray[np.float32]) -> None:
        self._features = features

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        yield slice(0, len(self._features)), self._features

    @property
    def features(self) -> NDArray[np.float32]:
        return self._features


@contextmanager
def open_queries(spec: str | Path | Sequence[str | Path], gallery: Gallery, options: QueryOptions) -> Iterator[Queries]:
    """Open an embedding file, image files or a data set as queries for `gallery`.

    Raises:
        DataError: the file is of another encoder, preprocessing or layers (each difference is listed), or an index;
            images do not exist or cannot be read.
        ConfigError: `split` with an embedding file.
        PluginError: the gallery's encoder cannot be built, or is code that may not be run.
    """
    specs = [spec] if isinstance(spec, str | Path) else list(spec)
    if len(specs) > 1 or not _is_embedding_file(Path(specs[0])):
        yield _embed_images([str(item) for item in specs], gallery, options)
        return
    if options.split is not None:
        raise ConfigError(f"{specs[0]} is an embedding file: it has no split {options.split!r}")
    with load_embeddings(Path(specs[0])) as embeddings:
        _require_comparable(gallery, embeddings)
        selected = embeddings.select([name for name, _ in gallery.meta.layers])
        yield Queries(str(specs[0]), embeddings.meta, selected.ids, selected.labels, selected)


def _embed_images(specs: list[str], gallery: Gallery, options: QueryOptions) -> Queries:
    source = _open_images(specs, options)
    extractor = extractor_of(
        gallery.meta,
        options.encoder,
        download=options.download,
        device=options.device,
        trust_encoder=options.trust_encoder,
    )
    features, errors = extract(
        extractor,
        source,
        device=options.device,
        num_workers=options.num_workers,
        precision=gallery.meta.precision,
    )
    if errors:
        reasons = format_list((f"{source.ids[i]}: {reason}" for i, reason in errors.items()), separator="; ")
        raise DataError(f"{len(errors)} of {len(source)} query images cannot be read: {reasons}")
    meta = replace(
        gallery.meta,
        source=source.spec,
        split=source.split,
        splits=source.splits,
        data_report=source.report.to_dict(),
        fingerprint=source.fingerprint,
        label_names=source.label_names,
    )
    ids = np.array(source.ids, dtype=object)
    return Queries(source.spec, meta, ids, source.labels, _FeaturesInMemory(features), source)


def _is_embedding_file(path: Path) -> bool:
    if path.is_file() and is_index(path):
        raise DataError(f"{path} is an index, not queries: pass an embedding file, images or a data set")
    return path.suffix in (".h5", ".hdf5")


def _open_images(specs: list[str], options: QueryOptions) -> ImageSource:
    others = [spec for spec in specs if not is_image(spec)]
    if not others:
        return PathSource(" ".join(specs), Path(), specs)
    if photos := [spec for spec in others if is_picture(spec) and Path(spec).is_file()]:
        raise DataError(f"{photos[0]} is a picture of type {type_of(photos[0])}, which this Pillow does not read")
    if _is_unknown_file(others[0]):
        raise DataError(
            f"{others[0]!r} is neither an image, an embedding file nor a data set: "
            f"images end in {' '.join(sorted(image_types()))}"
        )
    if len(specs) > 1:
        raise ConfigError(f"several queries must all be image files; {others[0]!r} is not")
    return open_data(specs[0], options.split, splits=options.splits, root=options.data_root, download=options.download)


def _is_unknown_file(spec: str) -> bool:
    """Return whether `spec` is a file that `open_data` would take for a tar by mistake."""
    path = Path(spec)
    has_own_message = path.suffix.lower() in (".tar", ".csv", ".npz", ".h5", ".hdf5")
    return path.is_file() and not has_own_message and not tarfile.is_tarfile(path)


def _require_comparable(gallery: Gallery, queries: Embeddings) -> None:
    problems = differences(queries.meta, gallery.meta, _COMPARED_FIELDS)
    widths = dict(queries.meta.layers)
    for name, width in gallery.meta.layers:
        if name not in widths:
            problems.append(f"layer {name!r} is missing among {', '.join(widths)}")
        elif widths[name] != width:
            problems.append(f"layer {name!r} has {widths[name]} columns, not {width}")
    if problems:
        raise DataError(f"queries {queries.path} and gallery {gallery.path} are not comparable: {'; '.join(problems)}")
