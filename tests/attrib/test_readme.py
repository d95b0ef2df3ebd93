"""What README shows is what the commands print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def transcript() -> dict[str, list[str]]:
    """The commands of README's console block, and the lines shown under each."""
    text = (ROOT / "README.md").read_text("utf-8")
    block = re.search(r"```console\n(.*?)```", text, re.DOTALL)
    assert block is not None
    shown: dict[str, list[str]] = {}
    for line in block[1].splitlines():
        if line.startswith("$ "):
            shown[line[2:]] = lines = []
        else:
            lines.append(line.rstrip())
    return {command: "\n".join(lines).strip("\n").splitlines() for command, lines in shown.items()}


def close(shown: str, printed: str) -> None:
    """Equal, but that another processor may round the last digits of a feature elsewhere."""
    number = re.compile(r"\d+\.\d+")
    assert number.sub("N", shown).split() == number.sub("N", printed).split()
    for a, b in zip(number.findall(shown), number.findall(printed), strict=True):
        assert float(a) == pytest.approx(float(b), abs=0.1)


def test_the_transcript_is_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = transcript()
    assert [command.split()[1] for command in commands] == ["ingest", "query"]
    for command, shown in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        printed = [line.rstrip() for line in done.stdout.strip("\n").splitlines()]
        assert len(printed) == len(shown)
        # Rows of nearly equal influence may change places; the first three do not.
        rows = [i for i, line in enumerate(shown) if re.match(r" +\d+ ", line)]
        for i in sorted(set(range(len(shown))) - set(rows[3:])):
            close(shown[i], printed[i])
    assert (tmp_path / "demo-out" / "answer.png").is_file()


def test_the_demo_runs_what_is_shown() -> None:
    makefile = subprocess.run(
        ["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for command in transcript():
        assert command in makefile
