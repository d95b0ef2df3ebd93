"""An audit's folder, killed before each single change that it makes to the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import script

from search.audit.folder import AuditFolder
from search.audit.sign import SIGNATURE_PARTIAL

# Writes an audit of small files; `os._exit` before the n-th change stands for the kill.
_PROGRAM = """
import os, sys
from pathlib import Path
from search.audit.folder import AuditFolder
from search.audit.manifest import write_manifest

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
out = Path(sys.argv[1])
plan = {"gallery": "of this test"}
TABLES = ("attributions", "creators", "images", "rejects")

def audit(folder, again):
    folder.check([])
    with folder.taken():
        if folder.begin(plan, restart=again):
            folder.clean()
            return
        (folder.whole / "report-data").mkdir(parents=True, exist_ok=True)
        (folder.whole / "report-data" / "1.js").write_text("1")
        for name in TABLES:
            (folder.whole / f"{name}.parquet").write_text(name)
        (folder.whole / "summary.json").write_text("{}")
        (folder.whole / "report.html").write_text("<html>")
        write_manifest(folder.whole)
        folder.finish(plan)

def is_change(event, arguments):
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    return event in CHANGES

again = sys.argv[2] == "restart"
n = 0
while True:
    n += 1
    folder = out / str(n)
    if again:
        audit(AuditFolder(folder), False)
    child = os.fork()
    if child == 0:
        left = n
        def hook(event, arguments):
            global left
            if is_change(event, arguments):
                left -= 1
                if left == 0:
                    os._exit(9)
        sys.addaudithook(hook)
        status = 1
        try:
            audit(AuditFolder(folder), again)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left_behind = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    audit(AuditFolder(folder), False)
    print(status, *left_behind, flush=True)
    if status != 9:
        break
"""


_TOP = ["attributions.parquet", "creators.parquet", "images.parquet", "manifest.json"]
_TOP += ["rejects.parquet", "report-data", "report.html", "summary.json"]


@pytest.mark.parametrize("how", ["once", "restart"])
def test_killed_before_each_change_the_same_call_goes_on(how: str, tmp_path: Path) -> None:
    with script(_PROGRAM, tmp_path, how) as program:
        said, errors = program.communicate(timeout=120)
    assert (program.returncode, errors) == (0, "")
    *killed, last = said.splitlines()
    assert last.startswith("0 ")
    assert all(line.startswith("9") for line in killed)
    # Among them the one at which the finished audit's mark was half-written.
    assert any(line.split()[1:] == [".work", *_TOP] for line in killed)
    assert len(killed) > 15
    for n in range(1, len(killed) + 2):
        folder = tmp_path / str(n)
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))]
        assert names == sorted([".plan.json", *_TOP, "report-data/1.js"])
        assert json.loads((folder / ".plan.json").read_text()) == {"gallery": "of this test"}


def test_what_a_killed_signing_leaves_does_not_shut_the_folder(tmp_path: Path) -> None:
    folder = AuditFolder(tmp_path)
    (tmp_path / ".plan.json").write_text("{}")
    (tmp_path / SIGNATURE_PARTIAL).write_bytes(b"half")
    folder.check([])
    folder.clear()
    assert not any(tmp_path.iterdir())
