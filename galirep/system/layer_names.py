"""The checks of layer names that a user chose, for extractors and for embedding files."""

from collections.abc import Collection, Sequence

from galirep.errors import ConfigError, GalirepError, PluginError, unknown


def require_list(layers: Sequence[str] | None) -> None:
    """Refuse one text as a list of layers, which would be read letter by letter.

    Raises:
        ConfigError: `layers` is a text.
    """
    if isinstance(layers, str):
        raise ConfigError(f"layers {layers!r} is one text, not a list of names: write {layers.split(',')}")


def split_names(text: str) -> tuple[str, ...]:
    """Split names that are written with commas between them."""
    return tuple(name.strip() for name in text.split(","))


def split_layer(layer: str) -> tuple[str, str]:
    """Split `NAME[:POOLING]` into the name of a layer and the pooling, "" if none is named."""
    name, _, pooling = layer.partition(":")
    return name, pooling


def check_layer_names(
    names: Sequence[str],
    known: Collection[str],
    what: str,
    *,
    listed: Collection[str] | None = None,
    unknown_error: type[GalirepError] = PluginError,
    repeated_error: type[GalirepError] = PluginError,
) -> tuple[str, ...]:
    """Return `names` as a tuple if they are one or more of `known`, each named once.

    `what` (an extractor's name, a path) starts the error message, which lists `listed` where `known` is too long.

    Raises:
        unknown_error: a name is not in `known`.
        repeated_error: a name is repeated, or `names` is empty.
        ConfigError: `names` is one text.
    """
    require_list(names)
    listed = known if listed is None else listed
    for name in names:
        if name not in known:
            raise unknown_error(f"{what}: {unknown('layer', name, listed)}")
    if not names or len(set(names)) < len(names):
        given = ", ".join(names) or "(none)"
        raise repeated_error(f"{what}: layers {given}: name each layer once, of {', '.join(listed)}")
    return tuple(names)
