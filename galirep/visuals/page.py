"""HTML pages of one file that need no server and no network."""

import base64
import hashlib
import html
import json
from importlib.resources import files
from typing import Any


def render_page(title: str, payload: dict[str, Any], uris: list[str]) -> str:
    """Fill the template with style, script and data; what the page may run is named by hash, and nothing may be fetched."""
    parts = {
        name: files("galirep.visuals").joinpath(f"report.{name}").read_text(encoding="utf-8")
        for name in ("html", "css", "js")
    }
    style = parts["css"] + "".join(f".sheet{i}{{background-image:url({uri})}}\n" for i, uri in enumerate(uris))
    values = {
        "policy": f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(parts['js'])}'; base-uri 'none'",
        "title": html.escape(title),
        "style": style,
        "script": parts["js"],
        "data": json.dumps(payload, separators=(",", ":"))
        .replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e"),
    }
    page = parts["html"]
    for name in (
        "policy",
        "title",
        "style",
        "script",
        "data",
    ):  # the data last: nothing in it is taken for a place in the template
        page = page.replace(f"{{{{{name}}}}}", values[name], 1 if name != "title" else -1)
    return page


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
