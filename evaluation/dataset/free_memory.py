"""How much memory is free, and what is said where it is not enough after all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.errors import RunError

if TYPE_CHECKING:
    import torch

__all__ = ["check_weights", "free_bytes", "in_gib", "out_of_memory"]

_GIB = 1 << 30
_REFUSALS = ("DefaultCPUAllocator", "not enough memory", "allocate memory", "out of memory")
"""In the RuntimeErrors of torch: only that of a GPU has a class of its own."""


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device, in bytes; None where it cannot be told."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    known = [value for value in (_available(), _left_of_group()) if value is not None]
    return min(known, default=None)


def check_weights(name: str, needed: int, device: torch.device) -> None:
    """Refuse a generator whose weights alone do not fit.

    Raises:
        RunError: they do not, on the device, or in the memory that they pass through.
    """
    import torch

    for place in dict.fromkeys((torch.device("cpu"), device)):
        free = free_bytes(place)
        if free is not None and needed > free:
            raise RunError(
                f"the weights of {name} take {in_gib(needed)} as float32, {place} has "
                f"{in_gib(free)} free: take a smaller generator, or a larger machine"
            )


@contextmanager
def out_of_memory(remedy: str) -> Iterator[None]:
    """Where memory runs out, on a GPU or not, one line says so, and the remedy.

    Raises:
        RunError: it ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        if isinstance(exc, RuntimeError) and not any(said in str(exc) for said in _REFUSALS):
            raise
        raise RunError(f"memory ran out; {remedy}") from exc


def in_gib(count: int) -> str:
    """For people."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB // 10 else f"{count / (1 << 20):.1f} MiB"


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_of_group() -> int | None:
    """What the limit of a container (cgroup v2) leaves; files that it only caches count as free."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = next((int(value) for name, value in rows if name == "inactive_file"), 0)
    except (OSError, ValueError):
        return None
    return max(0, limit - used + cached)
