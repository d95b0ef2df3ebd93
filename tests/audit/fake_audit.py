"""Audits with the counting backbone of the ingest's tests; as a program, audits that can be killed.

    python fake_audit.py DATA GALLERY

reads lines of its input, each seconds and the name of a folder, and audits the gallery into the
folder in a child of its own, which is killed after so many seconds; never, where they are "inf". It
says the child's exit status.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "search"))

import fake_backbone as fake

from ingest.source import open_sources
from search.audit.answers import LocalAnswers
from search.audit.gallery import Gallery
from search.audit.run import AuditReport, run_audit
from search.audit.settings import AuditSettings
from search.collection import Collection

PARTS = {"part_size": 16, "batch_size": 5, "decode_threads": 2}


def audit(
    data: Path,
    gallery: list[Path],
    out: Path,
    *,
    embedder: fake.FakeEmbedder | None = None,
    restart: bool = False,
    progress: Any = None,
    **settings: Any,
) -> AuditReport:
    embedder = embedder or fake.FakeEmbedder()
    chosen = AuditSettings(**{**PARTS, **settings})
    with Collection.open(data, wait_s=10) as collection:
        return run_audit(
            Gallery(open_sources([str(path) for path in gallery]), chosen.part_size),
            LocalAnswers(collection, lambda: embedder),
            out,
            chosen,
            restart=restart,
            progress=progress,
        )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class _Slow(fake.FakeEmbedder):
    def embed(self, pixels: Any) -> Any:
        time.sleep(0.01)
        return super().embed(pixels)


def main() -> None:
    data, gallery = map(Path, sys.argv[1:])
    import search.audit.report
    import search.edge  # noqa: F401 (all that is slow to import)

    for line in sys.stdin:
        after_s, _, out = line.rstrip("\n").partition(" ")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                audit(data, [gallery], Path(out), embedder=_Slow())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        killer = threading.Timer(float(after_s), os.kill, (child, signal.SIGKILL))
        if after_s != "inf":
            killer.start()
        # Not reaped before the killer is gone, so that it cannot meet another process.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        killer.cancel()
        if after_s != "inf":
            killer.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
