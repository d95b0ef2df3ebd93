"""Audits that are killed, again and again, and come out the same."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fake_audit
import fake_backbone as fake
import pytest
from ingested import draw, images

KILLS = int(os.environ.get("ATTRIB_TEST_AUDIT_KILLS", "10"))
IMAGES = int(os.environ.get("ATTRIB_TEST_AUDIT_IMAGES", "120"))


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = images(tmp_path / "gallery", IMAGES, seed=100)
    (folder / "bad.png").write_bytes(b"bad")
    draw(folder / "z.png", 100)  # the first one once more
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    fake.run(tmp_path / "data", [str(images(tmp_path / "pictures", 60))])
    return tmp_path / "data"


@pytest.fixture
def program(data: Path, gallery: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts audits, see `fake_audit`."""
    with subprocess.Popen(
        [sys.executable, fake_audit.__file__, str(data), str(gallery)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        yield program


def test_killed_at_random_moments_the_bytes_are_those_of_an_unbroken_run(
    program: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert program.stdin is not None
    assert program.stdout is not None

    def audit(out: Path, kill_after_s: float = math.inf) -> int:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(f"{kill_after_s} {out}\n")
        program.stdin.flush()
        return int(program.stdout.readline())

    began = time.monotonic()
    assert audit(tmp_path / "unbroken") == 0
    lasted_s = time.monotonic() - began
    wanted = fake_audit.contents(tmp_path / "unbroken")
    assert {"summary.json", "report.html", "manifest.json", ".plan.json"} < wanted.keys()

    seed = 20261124
    print("seed", seed)
    rng = random.Random(seed)
    kills = finished = 0
    while kills < KILLS:
        # A new folder once the one before is whole.
        out = tmp_path / f"killed {finished}"
        status = audit(out, rng.uniform(0, lasted_s))
        if status == 0:
            finished += 1
            assert fake_audit.contents(out) == wanted
        else:
            assert status == -signal.SIGKILL
            kills += 1
    out = tmp_path / f"killed {finished}"
    assert audit(out) == 0
    assert fake_audit.contents(out) == wanted
    print(f"{kills} kills, {finished} audits that came through among them")
