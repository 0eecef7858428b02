"""A child process that runs the checks of one group, writing a line of JSON before and after each.

`python -m gpu_checks.harness.child MODULE RESULTS DEVICE START QUICK` runs `MODULE.CHECKS[START:]`. The parent reads
RESULTS and kills what takes too long. After an error of CUDA itself, which no later call in the process survives, the
child ends and the parent starts another behind that check.
"""

import gc
import importlib
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

from gpu_checks.harness.check import Check, Failed, Setup, Skip
from gpu_checks.harness.environment import describe
from gpu_checks.harness.runner import ENDED_BY_CUDA


class _Log:
    """Lines of JSON that another process reads while this one runs."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, **fields: Any) -> None:
        self._file.write(json.dumps({"event": event, **fields}, default=str) + "\n")
        self._file.flush()


def use_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in products and convolutions.

    By the names that every torch from 2.6 on knows: reading the old ones after only some of the new ones are set is an
    error in torch 2.9 and later, and torch.compile reads the old ones.
    """
    with warnings.catch_warnings():
        # some versions recommend the new names once
        warnings.simplefilter("ignore")
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def fresh(device: torch.device) -> None:
    """Undo what a check may have set: each starts in true float32, without leftovers of the one before."""
    use_tf32(False)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(0)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def outcome(check: Check, setup: Setup) -> dict[str, Any]:
    """Run one check: its status, text and values, whatever happens in it."""
    if setup.quick and not check.quick:
        return {"status": "SKIP", "text": "not in --quick"}
    try:
        fresh(setup.device)
        figure = check.run(setup)
        setup.synchronize()
        return {"status": "PASS", "text": figure.text, "values": dict(figure.values)}
    except Skip as err:
        return {"status": "SKIP", "text": str(err)}
    except Failed as err:
        return {"status": "FAIL", "text": str(err), "values": err.values}
    # whatever a check raises must not hide the others
    except Exception as err:
        traceback.print_exc()
        reason = (str(err).strip().splitlines() or [""])[0]
        dead = setup.on_card and "CUDA error" in str(err)
        return {"status": "FAIL", "text": f"{type(err).__name__}: {reason}", "dead": dead}


def main(module: str, results: str, device: str, start: str, quick: str) -> int:
    log = _Log(Path(results))
    try:
        setup = Setup(torch.device(device), bool(int(quick)))
        if setup.quick and not setup.on_card:
            # the smallest networks gain nothing from threads, and lose a lot to them where the cores are shared
            torch.set_num_threads(1)
        log.write("environment", **describe(setup.device))
        checks = importlib.import_module(module).CHECKS
    except Exception as err:
        traceback.print_exc()
        log.write("broken", text=f"{type(err).__name__}: {err}")
        return 1
    log.write("checks", checks=[{"name": check.name, "seconds": check.seconds} for check in checks])
    for index in range(int(start), len(checks)):
        log.write("begin", index=index)
        before = time.perf_counter()
        result = outcome(checks[index], setup)
        dead = result.pop("dead", False)
        log.write("result", index=index, seconds=time.perf_counter() - before, **result)
        if dead:
            sys.stderr.flush()
            # not by sys.exit: tearing down a broken CUDA context may hang
            os._exit(ENDED_BY_CUDA)
    log.write("end")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
