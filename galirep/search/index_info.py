"""The description of an index, which its sidecar file holds as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from galirep.embeddings.integrity.structure import read_json_meta
from galirep.embeddings.reader import Embeddings
from galirep.embeddings.schema import StoreMeta
from galirep.errors import DataError
from galirep.search.distances import METRICS
from galirep.system.reading.records import Size, check, quoted, read_record

FORMAT = "galirep-index"
SCHEMA_VERSION = 2
# of version 1, ids are of variable length and the sidecar has no hash of itself
READABLE_VERSIONS = (1, 2)


@dataclass(frozen=True)
class IndexInfo:
    """The description of an index.

    `normalised`: its vectors have unit length (metric cosine). `exact`: a search compares with every row. `nprobe`: the
    number of inverted lists searched, None without inverted lists. `recall_at_10`: the share of the true 10 nearest
    neighbours that it found for `recall_queries` of its own rows (1 if exact). `embeddings`: the meta data of the
    embedding file that was indexed, with the indexed layers. `files`: the checksums of `index` and `rows` (of
    pieces, if they are large), `whole_files`: those of every byte.
    """

    metric: str
    normalised: bool
    factory: str
    exact: bool
    n: int
    dim: int
    nprobe: int | None
    recall_at_10: float
    recall_queries: int
    embeddings: StoreMeta
    source: str
    created: str
    versions: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    whole_files: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that the sidecar file holds."""
        value = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}
        value["embeddings"]["layers"] = dict(self.embeddings.layers)
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str) -> "IndexInfo":
        """Rebuild the description from what `to_dict` returned.

        Raises:
            DataError: a value is missing, of another type or out of range; `where` begins the message.
        """
        embeddings = value.get("embeddings")
        if not isinstance(embeddings, dict):
            raise DataError(f"{where}: it has no embeddings")
        meta = read_json_meta(embeddings, where)
        info = read_record(cls, {**value, "embeddings": meta}, where, DataError, ignore_unknown=True)
        check([info.n, info.dim, info.nprobe or 1], list[Size], f"{where}: n, dim and nprobe", DataError)
        if info.metric not in METRICS or info.dim != meta.dim:
            raise DataError(f"{where}: metric {quoted(info.metric)}, {info.dim} columns for layers of {meta.dim}")
        return info


def selected_meta(embeddings: Embeddings) -> StoreMeta:
    """Return the meta data of an open embedding file, reduced to the layers that were selected."""
    widths = {name: columns.stop - columns.start for name, columns in embeddings.layers.items()}
    return replace(embeddings.meta, layers=tuple(widths.items()))
