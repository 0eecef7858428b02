"""Render an HTML report as one file that needs no server and no network."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from galirep.system.printable import printable


def render_page(
    title: str, payload: dict[str, Any], uris: Sequence[str] = (), *, kind: str = "report", **parts: str
) -> str:
    """Fill the template with the body, style and script of a kind of page (`report` of a retrieval, `run_report`).

    `payload` is the JSON that the script reads, `uris` are the data: URIs of the sprite sheets, `parts` are HTML for
    other places of the template. The content security policy names style and script by hash and forbids fetching
    anything. Control characters in what is shown are escaped, as on the terminal (`printable`).
    """
    body, own, script = (_read_template(f"{kind}.{suffix}") for suffix in ("html", "css", "js"))
    template = _read_template("page.html").replace("{{body}}", body)
    style = _read_template("page.css") + own
    style += "".join(f".sheet{i}{{background-image:url({uri})}}\n" for i, uri in enumerate(uris))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'; "
        "base-uri 'none'"
    )
    parts = {
        "refresh": "",
        **{name: printable(part, lines=True) for name, part in parts.items()},
        "policy": policy,
        "title": html.escape(printable(title)),
        "style": style,
        "script": script,
        "data": _script_safe_json(_shown(payload)),
    }
    # in one pass, so that no text of a part is taken for a placeholder
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _read_template(name: str) -> str:
    return files("galirep.visuals").joinpath(name).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """Return JSON data with its texts made printable."""
    if isinstance(value, str):
        return printable(value, lines=True)
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else value


def _script_safe_json(value: Any) -> str:
    """Serialise `value` so that it cannot end the script element that holds it."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _csp_hash(text: str) -> str:
    """Return the hash of an inline style or script as a content security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
