"""Memory that was given back is kept for the next batch, unless a user wants it otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from embed.allocator import keep_memory

keep_memory()
for round in range(30):
    if round == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(24 << 20, 1, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

PAGES = 20 * (24 << 20) // 4096
"""Of twenty rounds, if each took its memory from the system."""


def faults(**environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**kept, "NUMPY_MADVISE_HUGEPAGE": "0", **environment},  # pages of one size
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_is_kept() -> None:
    assert faults() < PAGES / 100


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_the_user_set_stays() -> None:
    assert faults(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536") > PAGES / 2
