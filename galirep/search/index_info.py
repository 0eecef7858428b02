"""The description of an index, which its sidecar file holds as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from galirep.embeddings.reader import Embeddings
from galirep.embeddings.schema import StoreMeta

FORMAT = "galirep-index"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class IndexInfo:
    """The description of an index.

    `normalised`: its vectors have unit length (metric cosine). `exact`: a search compares with every row. `nprobe`: the
    number of inverted lists searched, None without inverted lists. `recall_at_10`: the share of the true 10 nearest
    neighbours that it found for `recall_queries` of its own rows (1 if exact). `embeddings`: the meta data of the
    embedding file that was indexed, with the indexed layers. `files`: the checksums of `index` and `rows`.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that the sidecar file holds."""
        value = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}
        value["embeddings"]["layers"] = dict(self.embeddings.layers)
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "IndexInfo":
        """Rebuild the description from what `to_dict` returned."""
        fields = {name: value[name] for name in cls.__dataclass_fields__}
        meta: dict[str, Any] = {
            name: tuple(item) if isinstance(item, list) else item for name, item in fields["embeddings"].items()
        }
        meta["layers"] = tuple(meta["layers"].items())
        return cls(**{**fields, "embeddings": StoreMeta(**meta)})


def selected_meta(embeddings: Embeddings) -> StoreMeta:
    """Return the meta data of an open embedding file, reduced to the layers that were selected."""
    widths = {name: columns.stop - columns.start for name, columns in embeddings.layers.items()}
    return replace(embeddings.meta, layers=tuple(widths.items()))
