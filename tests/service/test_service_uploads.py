"""Thousands of malformed, hostile and oversized uploads: all refused, the service up, memory flat.

ATTRIB_UPLOADS=2000 in the environment sends so many instead of a few.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from service_process import serving

UPLOADS = int(os.environ.get("ATTRIB_UPLOADS", "240"))
SEED = 0
FLAT_MIB = 64
"""What the second half may add: allocators keep some of what was given back to them."""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def resident_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Hostile:
    """Uploads that no service can answer, of twelve kinds in turn. Each: its body and status."""

    def __init__(self, generated: bytes) -> None:
        rng = np.random.default_rng(SEED)
        noise = Image.fromarray(rng.integers(0, 255, (200, 300, 3), np.uint8))
        self._rng = rng
        self._whole = generated
        self._jpeg, self._webp = saved(noise, "JPEG"), saved(noise, "WEBP")
        self._bomb = saved(Image.new("L", (8000, 7000)), "PNG")  # 56 million pixels, 60 kB
        self._icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(self._bomb), 22)
        self._large = rng.bytes(34 * 1024 * 1024)

    def upload(self, number: int) -> tuple[str, bytes]:
        """The name of its kind, and the file."""
        rng, whole = self._rng, self._whole
        match number % 12:
            case 0:
                return "noise", rng.bytes(int(rng.integers(1, 30_000)))
            case 1:
                return "cut PNG", whole[: int(rng.integers(1, len(whole) // 2))]
            case 2:
                return "broken PNG", whole[:24] + rng.bytes(int(rng.integers(1, 5000)))
            case 3:
                return "cut JPEG", self._jpeg[: int(rng.integers(2, len(self._jpeg) // 2))]
            case 4:
                return "cut WebP", self._webp[: int(rng.integers(12, len(self._webp) // 2))]
            case 5:
                return "pixels", self._bomb + rng.bytes(8)
            case 6:
                return "header of a giant", whole[:16] + struct.pack(">II", 60_000, 60_000)
            case 7:
                return "icon", self._icon + self._bomb + rng.bytes(8)
            case 8:
                return "text", b"<svg xmlns='http://www.w3.org/2000/svg'/>" * 50
            case 9:
                return "PDF", b"%PDF-1.7\n" + rng.bytes(2000)
            case 10:
                return "empty", b""
            case _:
                large = number % 120 == 11  # some: they are 34 MB each
                return "oversized", self._large if large else b"\x89PNG\r\n\x1a\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory")
def test_hostile_uploads_are_refused_and_take_no_memory(own: Path, generated: Path) -> None:
    hostile = Hostile(generated.read_bytes())
    statuses: Counter[int] = Counter()
    resident: list[float] = []
    with (
        serving(own) as (process, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for number in range(UPLOADS):
            if number in (UPLOADS // 2, 12):
                resident.append(resident_mib(process.pid))
            name, data = hostile.upload(number)
            response = client.post("/v1/attributions", files={"image": (name, data)})
            assert response.status_code in (413, 422), (number, name, response.text)
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["detail"]
            statuses[response.status_code] += 1
        resident.append(resident_mib(process.pid))
        assert client.get("/readyz").status_code == 200
        answer = client.post("/v1/attributions", files={"image": generated.read_bytes()})
        assert answer.status_code == 200
        assert process.poll() is None
    early, half, end = resident
    print(
        f"{UPLOADS} uploads, {dict(statuses)}; resident {early:.0f} MiB after 12, {half:.0f} MiB "
        f"half-way, {end:.0f} MiB at the end"
    )
    assert min(statuses[413], statuses[422]) > 0
    assert end - half < FLAT_MIB
    assert end - early < 2 * FLAT_MIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory")
def test_what_large_images_took_is_given_back(own: Path, generated: Path) -> None:
    large = saved(Image.new("RGBA", (5000, 5000)), "PNG")  # 625 MB while it is decoded
    with serving(own) as (process, address), httpx.Client(base_url=address, timeout=60) as client:

        def ask(data: bytes) -> None:
            response = client.post("/v1/attributions?k=1", files={"image": data})
            assert response.status_code == 200, response.text

        ask(generated.read_bytes())
        before = resident_mib(process.pid)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(ask, [large + bytes([number]) for number in range(3)]))
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        after = resident_mib(process.pid)
    print(f"resident {before:.0f} MiB before, {peak:.0f} MiB at most, {after:.0f} MiB after")
    # As two of them at once: 50 of the 64 million pixels that are decoded at a time.
    assert 300 < peak - before < 1700
    assert after - before < 250
