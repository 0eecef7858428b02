"""Keep the libraries that can download from doing so, unless the user asked for it: their switches, in one place."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
"""Environment variables of the hub's client and of libraries on it, read by child processes and at their import."""
# names of the client's constants, which it reads from the environment only once
_CONSTANTS = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
_TRUE = ("1", "on", "yes", "true")

_lock = threading.Lock()
_depth = 0
_before: dict[str, Any] = {}


@contextmanager
def offline(*, unless: bool = False) -> Iterator[None]:
    """Switch the libraries to offline for a while: what needs the net fails at once, and no host is asked.

    That holds for huggingface_hub and what stands on it (timm, transformers, datasets), by their own switches, and for
    torch.hub, which has none. The switches are of the process, and are put back, because the program that imports
    galirep may have its own. `unless` true: nothing is changed.
    """
    global _depth
    if unless:
        yield
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            _switch_off()
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _put_back()


def _switch_off() -> None:
    _before.clear()
    for name in _VARIABLES:
        _before[name] = os.environ.get(name)
        os.environ[name] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    _before["constants"] = {name: getattr(constants, name, None) for name in _CONSTANTS}
    for name, value in _before["constants"].items():
        if value is not None:
            setattr(constants, name, True)
    hub = sys.modules.get("torch.hub")
    _before["urlopen"] = getattr(hub, "urlopen", None)
    if _before["urlopen"] is not None:
        setattr(hub, "urlopen", _refuse)  # noqa: B010 (mypy knows no such attribute)


def _put_back() -> None:
    for name in _VARIABLES:
        if _before[name] is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = _before[name]
    constants = sys.modules.get("huggingface_hub.constants")
    for name, value in _before["constants"].items():
        if constants is not None and hasattr(constants, name):
            # None: it was imported meanwhile, and read our variables
            own = value if value is not None else os.environ.get(name, "").lower() in _TRUE
            setattr(constants, name, own)
    if _before["urlopen"] is not None:
        setattr(sys.modules["torch.hub"], "urlopen", _before["urlopen"])  # noqa: B010


def _refuse(*_: object, **__: object) -> NoReturn:
    raise OSError("nothing is downloaded without --download (download=True)")
