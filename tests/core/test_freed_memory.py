"""Memory that a step frees is there for the next one, without the system clearing its pages again."""

import subprocess
import sys

import pytest

STEPS = """
import resource, sys
from tasks.core.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import torch
def step():
    blocks = [torch.empty(10_000_000) for _ in range(3)]
    for block in blocks:
        block.fill_(1.0)
for _ in range(10):  # until the heap has its size
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that the system hands out during ten steps of 120 MB."""
    ran = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_step_is_given_the_memory_of_the_last_one():
    assert 5 * faults("keep") < faults("plain")
