"""What the embedded index asks of the system: reading ahead, disk and memory in use."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["disk_bytes", "memory_bytes", "read_ahead"]


def read_ahead(segments: Path) -> None:
    """Ask the system to read payloads into its cache, without waiting for it.

    The 50 payloads of an answer lie on 50 pages: read one by one from the disk they cost more than
    the search. What the vectors' placement is, Edge sees to itself.
    """
    for file in segments.glob("*/payload_storage/*"):
        try:
            handle = os.open(file, os.O_RDONLY)
        except OSError:
            continue  # a segment that is just being replaced
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)


def disk_bytes(folder: Path) -> int:
    """What a folder takes up on disk."""
    total = 0
    for file in folder.rglob("*"):
        try:
            stat = file.lstat()
        except FileNotFoundError:
            continue
        total += stat.st_blocks * 512  # what is taken, not the length of sparse files
    return total


def memory_bytes() -> dict[str, int]:
    """Resident memory of this process; the file part belongs to the page cache and can be taken."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    sizes = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "Rss")))
    names = {"VmRSS": "rss_bytes", "RssAnon": "rss_anon_bytes", "RssFile": "rss_file_bytes"}
    return {name: int(sizes[key].split()[0]) * 1024 for key, name in names.items() if key in sizes}
