"""What an extractor's `preprocessing` records of how its layers were pooled, and how two such records are compared."""

from collections.abc import Collection, Mapping
from typing import Any, TypedDict

POOLING = "pooling"
EARLIER = "earlier"
"""The key of a layer that versions before this record pooled otherwise; its value says how."""


class Pooled(TypedDict, total=False):
    """How one layer was pooled; either what it is, or also how an earlier version did it."""

    pooled: str
    shape: str
    earlier: str


class Preprocessing(TypedDict, total=False):
    """What the rules here read of an extractor's record."""

    pooling: dict[str, Pooled]


def comparable(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Return `preprocessing` without what adds nothing to a record made before layers were recorded there.

    Those are the layers that are pooled as they always were. So a file or cache of an earlier version is equal to one
    of this version where its features are.
    """
    changed = {layer: pooled for layer, pooled in preprocessing.get(POOLING, {}).items() if EARLIER in pooled}
    rest = {key: value for key, value in preprocessing.items() if key != POOLING}
    return {**rest, POOLING: changed} if changed else rest


def pooling_differences(first: Mapping[str, Any], second: Mapping[str, Any], layers: Collection[str]) -> list[str]:
    """Return one text for each of `layers` that two records pool otherwise."""
    records = [comparable(record).get(POOLING, {}) for record in (first, second)]
    texts = []
    for layer in layers:
        a, b = (record.get(layer) for record in records)
        if a != b:
            texts.append(f"layer {layer!r} is the {_describe(a, b)}, not the {_describe(b, a)}")
    return texts


def _describe(pooled: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """Say how a layer was pooled; one without a record is as earlier versions did it, which the other side says."""
    if pooled is not None:
        return f"{pooled.get('pooled', 'pooling')} of {pooled.get('shape', 'unknown shape')}"
    return f"{(other or {}).get(EARLIER, 'layer of another time')} (by a version before this one: embed again)"
