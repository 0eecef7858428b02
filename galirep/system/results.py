"""Base class of results that are read by attribute and, as in version 0.1, like a dict."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any


class ResultMapping(Mapping[str, Any]):
    """Read-only mapping access to a result: `result["key"]`, `in`, `.get`, `.keys`, iteration, all over `to_dict()`.

    Functions that returned a plain dict in version 0.1 return dataclasses now; this keeps code written for the dict
    working for one more version. New code reads attributes. A result must not have an attribute called `keys`,
    `items`, `values` or `get`.
    """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that the command prints."""

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())
