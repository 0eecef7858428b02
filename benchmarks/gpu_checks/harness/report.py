"""The table and the JSON of a run."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_checks.harness.runner import Result

_NAME_WIDTH = 62


def table_line(result: Result) -> str:
    """Return a result as a line: group and check, status, figure, seconds."""
    name = f"{result['group']:10} {result['check']}"
    text = " ".join(str(result["text"]).split())
    return f"{name:{_NAME_WIDTH}} {result['status']}  {result['seconds']:6.1f} s  {text}"


def summary_of(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """Count the results by status."""
    count = Counter(result["status"] for result in results)
    return {"pass": count["PASS"], "fail": count["FAIL"], "skip": count["SKIP"], "seconds": round(seconds, 1)}


def closing(environment: Mapping[str, Any], summary: Mapping[str, Any], budget: float) -> str:
    """Return what stands below the table: the counts, the time, and what all was measured on."""
    lines = [
        "",
        f"{summary['pass']} passed, {summary['fail']} failed, {summary['skip']} skipped "
        f"in {summary['seconds']:.0f} of at most {budget:.0f} seconds",
        "",
    ]
    flat = {**environment, "libraries": _libraries(environment.get("libraries", {}))}
    return "\n".join(lines + [f"{key:18} {value}" for key, value in flat.items() if value not in (None, "")])


def _libraries(versions: Mapping[str, str | None]) -> str:
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = ", ".join(name for name, version in versions.items() if not version)
    return there + (f"; not installed: {missing}" if missing else "")


def write_json(
    path: Path, results: Sequence[Result], environment: Mapping[str, Any], summary: Mapping[str, Any]
) -> None:
    """Write everything, values too, to a file."""
    content = {"checks": list(results), "environment": dict(environment), "summary": dict(summary)}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
