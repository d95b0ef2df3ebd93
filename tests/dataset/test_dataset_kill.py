"""Killed at any moment and started again: the same dataset, byte for byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("build_program.py")
KILLS = 5


def start(pipeline: Path, images: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PROGRAM), str(pipeline), str(images), str(out)]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def wait_for(done: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not done() and process.poll() is None:
        time.sleep(0.001)


def test_a_killed_build_comes_to_the_same_end(
    pipeline_folder: Path, images_folder: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    whole = start(pipeline_folder, images_folder, tmp_path / "whole")
    wait_for((tmp_path / "whole" / "plan.json").is_file, whole)
    planned = time.monotonic()
    assert whole.wait(120) == 0
    # From the plan on: what comes before is the start of Python.
    lasts = time.monotonic() - planned
    assert planned > began
    expected = bytes_of(tmp_path / "whole")

    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    out = tmp_path / "killed"
    killed = 0
    for _ in range(KILLS):
        process = start(pipeline_folder, images_folder, out)
        had = (out / "plan.json").is_file()
        work = out / ".work"
        wait_for(work.is_dir if had else out.is_dir, process)
        try:
            process.wait(moments.random() * lasts / 3)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += process.wait(30) == -signal.SIGKILL
    assert killed >= 1
    last = start(pipeline_folder, images_folder, out)
    assert last.wait(120) == 0
    assert bytes_of(out) == expected
