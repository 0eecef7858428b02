"""`keep_freed_memory`, measured by the page faults of a fresh process."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from galirep.system.devices import keep_freed_memory
from galirep.features.extraction import build_extractor

torch.set_num_threads(1)
kept = {keep} and keep_freed_memory()
extractor, _ = build_extractor("random:compact,size=64,channels=3")
with torch.inference_mode():
    # the first pass loads code, which is another sort of page
    extractor(torch.zeros(64, 3, 64, 64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        extractor(torch.zeros(64, 3, 64, 64))
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(keep):
    out = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True
    ).stdout.split()
    return out[0] == "True", int(out[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's mallopt")
def test_freed_memory_is_used_again():
    kept, faults = _faults(True)
    if not kept:
        pytest.skip("the C library has no mallopt")
    assert 2 * faults < _faults(False)[1]
