"""The process of the embedded index: its death, its parent's, Ctrl-C, forks."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from folders import small_disk
from programs import is_alive, script, wait_until

from ingest.errors import IndexFailedError
from search.edge import EdgeIndex

DIM = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


def test_kill_of_the_index_process_loses_nothing_flushed(folder: Path, make_points: Any) -> None:
    points = make_points(11, 4000, DIM)
    index = EdgeIndex.create(folder, DIM)
    index.upsert(points.ids[:2000], points.vectors[:2000], points.payloads[:2000])
    index.flush()
    with pytest.raises(IndexFailedError) as error:  # noqa: PT012
        for start in range(2000, 4000, 50):
            part = slice(start, start + 50)
            if start == 3000:
                os.kill(index.process_id, signal.SIGKILL)
            index.upsert(points.ids[part], points.vectors[part], points.payloads[part])
        index.flush()
    message = "the index process was killed by SIGKILL; open the index again"
    assert str(error.value) == message
    with pytest.raises(IndexFailedError) as error:
        index.count()
    assert str(error.value) == message
    index.close()
    with EdgeIndex.open(folder) as again:
        assert again.count() >= 2000
        assert again.fetch(points.ids[:2000]) == points.payloads[:2000]
        np.testing.assert_array_equal(again.vectors(points.ids[:2000]), points.vectors[:2000])
        # The sample was not written since; it is gathered anew, and whole.
        assert sorted(again.sample().ids) == [uuid for page in again.scroll() for uuid in page]


def test_death_of_the_process_while_an_answer_is_awaited(folder: Path) -> None:
    index = EdgeIndex.create(folder, DIM)
    os.kill(index.process_id, signal.SIGSTOP)
    killer = script(
        "import os, sys, time; time.sleep(0.3); os.kill(int(sys.argv[1]), 9)", index.process_id
    )
    with killer, pytest.raises(IndexFailedError, match=r"^the index process was killed by SIGKILL"):
        index.count()
    index.close()


@pytest.mark.parametrize("left", [4096, 1_000_000])
def test_a_full_disk_is_named_and_what_was_flushed_stays(
    left: int, tmp_path: Path, make_points: Any
) -> None:
    """A small real file system that fills up, at a write into a mapped file or at another one."""
    points = make_points(12, 3000, DIM)
    first, second = slice(0, 1000), slice(1000, 3000)
    with small_disk(tmp_path / "small", "160m") as disk:
        index = EdgeIndex.create(disk / "index", DIM)
        index.upsert(points.ids[first], points.vectors[first], points.payloads[first])
        index.flush()
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - left))
        with pytest.raises(IndexFailedError) as error:  # noqa: PT012
            for _ in range(40):  # the room that the engine holds already is used up first
                index.upsert(points.ids[second], points.vectors[second], points.payloads[second])
                index.flush()
        assert str(error.value) == (
            f"the disk of {disk / 'index'} is full: free some space and run the same command "
            "again; what was finished is kept"
        )
        with suppress(IndexFailedError):  # it flushes once more
            index.close()
        (disk / "ballast").unlink()
        with EdgeIndex.open(disk / "index") as again:
            assert again.fetch(points.ids[first]) == points.payloads[first]
            np.testing.assert_array_equal(again.vectors(points.ids[first]), points.vectors[first])
            again.upsert(points.ids[second], points.vectors[second], points.payloads[second])
            assert again.count() == 3000


_PARENT = """
import sys, time, uuid
import numpy as np
from search.edge import EdgeIndex
index = EdgeIndex.create(sys.argv[1], 16)
rows = np.eye(16, dtype=np.float32)
index.upsert([uuid.UUID(int=i) for i in range(16)], rows, [{"key": str(i)} for i in range(16)])
index.flush()
if sys.argv[2] == "fork":
    import os
    if os.fork() == 0:
        time.sleep(15)
        os._exit(0)
print(index.process_id, flush=True)
n = 16
while True:
    ids = [uuid.UUID(int=n + i) for i in range(16)]
    index.upsert(ids, rows, [{}] * 16)
    n += 16
"""


@pytest.mark.parametrize("how", ["plain", "fork"])
def test_kill_of_the_parent_ends_the_index_process(folder: Path, how: str) -> None:
    """Also where a worker that it forked lives on and keeps its end of the socket."""
    program = script(_PARENT, folder, how)
    with program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        assert is_alive(child)
        program.kill()
        program.wait()
        wait_until(lambda: not is_alive(child))
        with EdgeIndex.open(folder) as index:
            assert index.count() >= 16
            assert index.fetch([UUID(int=3)]) == [{"key": "3"}]
        if how == "fork":
            os.killpg(program.pid, signal.SIGKILL)


def test_ctrl_c_reaches_the_parent_only(folder: Path) -> None:
    program = script(
        """
        import os, signal, sys, time, uuid
        import numpy as np
        from search.edge import EdgeIndex
        rows = np.eye(16, dtype=np.float32)
        with EdgeIndex.create(sys.argv[1], 16) as index:
            n = 0
            try:
                print("ready", flush=True)
                while True:
                    index.upsert([uuid.UUID(int=n + i) for i in range(16)], rows, [{}] * 16)
                    n += 16
            except KeyboardInterrupt:
                print(n, flush=True)
        """,
        folder,
    )
    with program:
        assert program.stdout is not None
        program.stdout.readline()
        time.sleep(0.5)
        os.killpg(program.pid, signal.SIGINT)
        put_in = int(program.stdout.readline())
        _, errors = program.communicate(timeout=20)
        assert (program.returncode, errors) == (0, "")
    with EdgeIndex.open(folder) as index:
        assert index.count() >= put_in > 0


def test_an_interrupted_wait_leaves_the_index_usable(folder: Path) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with EdgeIndex.create(folder, DIM) as index:
        os.kill(index.process_id, signal.SIGSTOP)
        with pytest.raises(KeyboardInterrupt):
            index.build(interrupt)
        os.kill(index.process_id, signal.SIGCONT)
        assert index.count() == 0
        assert index.info().points == 0


def test_the_first_failure_among_upserts_is_raised_by_flush(folder: Path) -> None:
    with EdgeIndex.create(folder, DIM) as index:
        # Nothing that passes validation is known to fail, so a request is made up.
        index._channel.post("upsert", b"", b"", b"not JSON")
        index._channel.post("upsert", b"", b"", b"[]")
        with pytest.raises(IndexFailedError, match=r"^the index failed: Expecting value"):
            index.flush()
        index.flush()


def test_no_process_and_no_warning_are_left_by_one_not_closed(folder: Path) -> None:
    program = script(
        """
        import sys, uuid
        import numpy as np
        from search.edge import EdgeIndex
        index = EdgeIndex.create(sys.argv[1], 16)
        index.upsert([uuid.UUID(int=1)], np.eye(16, dtype=np.float32)[:1], [{}])
        print(index.process_id)
        """,
        folder,
    )
    output, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (0, "")
    assert not is_alive(int(output))
    with EdgeIndex.open(folder) as index:
        assert index.count() == 1


def test_a_forked_copy_refuses_to_work(folder: Path) -> None:
    program = script(
        """
        import os, sys
        from search.edge import EdgeIndex
        with EdgeIndex.create(sys.argv[1], 16) as index:
            if (child := os.fork()) == 0:
                try:
                    index.count()
                except Exception as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print(index.count())
        """,
        folder,
    )
    output, errors = program.communicate(timeout=30)
    assert errors == ""
    assert output.splitlines() == [
        "the index was opened by another process; open it again in this one",
        "0",
    ]
