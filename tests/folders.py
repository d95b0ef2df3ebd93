"""Folders for tests: copies that they may change, and disks that are soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def copy_folder(source: Path, to: Path) -> Path:
    """Copy a folder with the holes and times of its files.

    An index of a few images has 166 MB of files in 4 MB of disk: its engine takes room for them in
    pieces of 32 MB. Copies made byte by byte fill a disk.
    """
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(to)], check=True)
    return to


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """A real file system of that size (`500k`, `160m`) in a new folder; the test is skipped where
    it cannot be had."""
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)
