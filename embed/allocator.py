"""What glibc's allocator is told before a CPU embeds."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_memory"]

_SETTINGS = (  # glibc's malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
    ("MALLOC_TRIM_THRESHOLD_", -1, 1 << 30),
    ("MALLOC_TOP_PAD_", -2, 64 << 20),
    ("MALLOC_MMAP_THRESHOLD_", -3, 32 << 20),
)
"""Greater values glibc refuses, or they change nothing: a heap of its threads is 64 MiB."""


def keep_memory() -> None:
    """Let memory that a batch gave back be kept for the next one, for the whole process.

    On its own glibc may return activations to the system after every batch and take them in again
    page by page, by the chance of what lies beside them: up to 1,500 faults an image, 5 to 15 % of
    the processor time (benchmarks/README.md, Workers). What a user set in the environment stays,
    and where another C library is, nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for variable, option, value in _SETTINGS:
        if variable not in os.environ:
            mallopt(option, value)
