"""`galirep list`: variants, adapters, datasets, networks, probe protocols and presets."""

from importlib.metadata import EntryPoint
from typing import Any

import click

from .common import Choice, emit, shared


def _variants() -> list[dict[str, str]]:
    from galirep.game.variants import VARIANTS

    return [
        {"name": name, "about": f"{variant.about}{_not_of_the_paper(variant.origin)}", "origin": variant.origin}
        for name, variant in VARIANTS.items()
    ]


def _not_of_the_paper(origin: str) -> str:
    return "" if origin == "paper" else f" (not of the paper: {origin}'s)"


def _networks() -> list[dict[str, str]]:
    from galirep.networks.families import NETWORKS

    return [
        {"name": name, "about": f"{family.about}; sizes {family.sizes}", "sizes": family.sizes}
        for name, family in NETWORKS.items()
    ]


def _datasets() -> list[dict[str, str]]:
    from galirep.data.catalog import SPECS

    return [{"name": spec, "about": description} for spec, description in SPECS.items()]


def _protocols() -> list[dict[str, str]]:
    from galirep.probing.protocols import PROTOCOLS

    return [{"name": name, "about": protocol.about} for name, protocol in PROTOCOLS.items()]


def _presets() -> list[dict[str, Any]]:
    from galirep.training.presets import PRESETS

    return [
        {"name": name, "about": preset.about, "settings": dict(preset.settings), "measured": preset.measured}
        for name, preset in PRESETS.items()
    ]


def _adapters() -> list[dict[str, str]]:
    from galirep.features.registry import installed

    rows = [(name, point) for name, points in sorted(installed().items()) for point in points]
    return [{"name": name, "about": _summarize(point), "from": _package_of(point)} for name, point in rows]


def _package_of(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _summarize(point: EntryPoint) -> str:
    """Return the first line of the docstring of the adapter's function, or why it cannot be loaded."""
    try:
        docstring = (point.load().__doc__ or "").strip()
    except Exception as err:
        # a third-party package that cannot be imported must not hide the others
        return f"cannot be loaded: {type(err).__name__}: {err}"
    return docstring.partition("\n")[0] or point.value


_ROWS = {
    "variants": _variants,
    "adapters": _adapters,
    "datasets": _datasets,
    "networks": _networks,
    "protocols": _protocols,
    "presets": _presets,
}


@click.command("list")
@click.argument("what", type=Choice(tuple(_ROWS)))
@shared()
def list_command(what: str, as_json: bool) -> None:
    """List variants, adapters (with the package each comes from), datasets, networks, probe protocols or presets.

    \b
    Example:
      galirep list variants
      galirep list adapters --json
    """
    rows = _ROWS[what]()
    width = max(len(row["name"]) for row in rows)
    lines = []
    for row in rows:
        package = f" [{row['from']}]" if "from" in row else ""
        lines.append(f"{row['name']:{width}}  {row['about']}{package}")
        if row.get("settings"):
            settings = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
            lines.append(f"{'':{width}}  settings: {settings}")
        if "measured" in row:
            lines.append(f"{'':{width}}  measured: {row['measured']}")
    emit(as_json, {what: rows}, "\n".join(lines))
