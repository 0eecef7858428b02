"""What a set of images holds (`galirep info DATA`): report, splits, classes, sizes, duplicates, a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galirep.data.catalog import open_data
from galirep.data.files.splits import NoSuchSplit
from galirep.data.sources import ImageSource
from galirep.errors import ConfigError
from galirep.inspection.survey import find_duplicates, look_at_all, summarize
from galirep.system.files import require_free
from galirep.visuals.contact_sheet import choose_rows, save_contact_sheet


@dataclass(frozen=True)
class DataOptions:
    """How a set is opened (see `open_data`), the contact sheet to write, and the decoding workers."""

    split: str | None = None
    splits: str | Sequence[str] | None = "auto"
    data_root: str | Path | None = None
    download: bool = False
    num_workers: int | None = None
    out: Path | None = None
    overwrite: bool = False

    def open(self, spec: str, split: str | None) -> ImageSource:
        """Open the set or one of its splits."""
        return open_data(spec, split, splits=self.splits, root=self.data_root, download=self.download)


def describe_data(spec: str, options: DataOptions) -> dict[str, Any]:
    """Describe a set of images: all its splits, or the one that `options` name.

    Raises:
        DataError: the set cannot be opened.
        ConfigError: the contact sheet exists, or would lie inside the set.
    """
    if options.out is not None:
        _require_outside(spec, options.out)
        require_free(options.out, options.overwrite)
    sources = _open_splits(spec, options)
    facts = {split: look_at_all(source, options.num_workers) for split, source in sources.items()}
    first = next(iter(sources.values()))
    described = {
        split: {"report": source.report.to_dict(), **summarize(facts[split])} for split, source in sources.items()
    }
    duplicates = find_duplicates({split: (facts[split], _class_names(source)) for split, source in sources.items()})
    sheet = None
    if options.out is not None:
        shown = save_contact_sheet(options.out, first, choose_rows(first), overwrite=options.overwrite)
        sheet = {"path": str(options.out), "images": shown, "split": first.split}
    return {
        "kind": "data",
        "images": sum(map(len, sources.values())),
        "data_report": first.report.to_dict(),
        "splits": described if first.split is not None else {},
        **summarize([image for images in facts.values() for image in images]),
        "duplicates": duplicates,
        "contact_sheet": sheet,
    }


def _open_splits(spec: str, options: DataOptions) -> dict[str, ImageSource]:
    """Return the sources to describe by split, in the order of the set; "" for a set without splits."""
    if options.split is not None:
        return {options.split: options.open(spec, options.split)}
    try:
        source = options.open(spec, None)
    except NoSuchSplit as err:
        # a set without train says which splits it has
        source = options.open(spec, err.splits[0])
    if source.split is None:
        return {"": source}
    return {name: source if name == source.split else options.open(spec, name) for name in source.report.splits}


def _class_names(source: ImageSource) -> list[str]:
    if source.labels is None:
        return [""] * len(source)
    names = source.label_names
    return [names[k] if 0 <= k < len(names) else str(k) for k in source.labels.tolist()]


def _require_outside(spec: str, out: Path) -> None:
    folder = Path(spec)
    if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{out} lies inside {spec} and would be one of its images: write the contact sheet elsewhere")
