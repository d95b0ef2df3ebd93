"""`attrib serve` as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address; it is killed at the end."""
    command = [sys.executable, "-m", "attrib", "serve", "--data", str(data), "--port", "0"]
    with (
        tempfile.TemporaryFile() as log,  # a pipe that nobody reads would fill up
        subprocess.Popen(
            [*command, *options], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("attrib listens on http://127.0.0.1:"), line
            yield process, line.split()[-1]
        finally:
            process.kill()
            process.communicate()
