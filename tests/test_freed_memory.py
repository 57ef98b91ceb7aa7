"""Memory that is freed stays with the process, where the C library is the GNU one."""

import os
import platform
import subprocess
import sys

import pytest

from neuro_lightning.runs.freed_memory import keep_freed_memory

PAGE_FAULTS = """
import resource, sys
from neuro_lightning.runs.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import torch
def step():
    return [torch.ones(2**20) for _ in range(60)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, environment: dict[str, str]) -> int:
    done = subprocess.run([sys.executable, "-c", PAGE_FAULTS, how], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_of_freed_tensors_are_used_again():
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    usual, kept = faults("usual", plain), faults("keep", plain)
    assert kept < usual / 2, (usual, kept)


def test_settings_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
