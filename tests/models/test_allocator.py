"""Memory that is got ahead of time and kept, in a process of its own: what is set lasts until that ends."""

import subprocess
import sys

import pytest

MEGABYTES = 256

PROGRAM = f"""
import resource, torch
from segbatch.inference.memory import resident_memory
from segbatch.models.allocator import keep_freed_memory, touched_memory

keep_freed_memory()
before = resident_memory()
with touched_memory({MEGABYTES} * 2**20):
    torch.zeros(1000)  # whatever else there is to do
print(resident_memory() - before)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones({MEGABYTES - 56} * 2**18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
with touched_memory(0):
    pass
with touched_memory(2**62):  # more than there is: nothing happens
    pass
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_touched_memory_stays_and_is_used_without_another_page_fault() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    grown, faults = map(int, ran.stdout.split())
    assert 0.95 * MEGABYTES * 2**20 < grown < 1.3 * MEGABYTES * 2**20
    assert faults < 0.02 * MEGABYTES * 2**20 / 4096
