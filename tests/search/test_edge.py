"""The embedded index: its folder, its process, and what happens when things die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from ingest.errors import DataFolderBusyError, DataFolderError, IndexFailedError, UsageError
from search.edge import EdgeIndex, EdgeSettings

DIM = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


def _wait_until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _script(text: str, *arguments: object) -> subprocess.Popen[str]:
    """A program of its own, without a main guard."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


# -- the folder


def test_open_where_there_is_nothing(folder: Path) -> None:
    with pytest.raises(DataFolderError) as error:
        EdgeIndex.open(folder)
    assert str(error.value) == f"{folder} holds no index (there is no index.json in it)"
    assert not folder.exists()


def test_create_where_something_is(folder: Path) -> None:
    folder.mkdir()
    (folder / "holiday.txt").write_text("keep me")
    with pytest.raises(DataFolderError) as error:
        EdgeIndex.create(folder, DIM)
    assert str(error.value) == f"{folder} is not empty; choose another folder for the index"
    assert [file.name for file in folder.iterdir()] == ["holiday.txt"]
    assert [file.name for file in folder.parent.iterdir()] == ["index"]


def test_create_under_a_file(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(DataFolderError) as error:
        EdgeIndex.create(folder / "below", DIM)
    assert str(error.value) == f"cannot make an index in {folder / 'below'}: Not a directory"


def test_settings_and_format(folder: Path) -> None:
    settings = EdgeSettings(m=8, ef=99, quantization="int8", datatype="float16", sample_size=5)
    with EdgeIndex.create(folder, DIM, settings):
        pass
    with EdgeIndex.open(folder) as index:
        assert (index.dim, index.settings, index.folder) == (DIM, settings, folder)
        info = index.info()
        assert (info.backend, info.quantization, info.ef) == ("edge", "int8", 99)
        assert info.details["m"] == 8
        assert info.details["disk_bytes"] > 0
        if sys.platform == "linux":
            assert info.details["rss_bytes"] >= info.details["rss_anon_bytes"] > 1_000_000
    file = folder / "index.json"
    whole = file.read_text()
    for content, message in {
        whole.replace('"format": 1', '"format": 2'): f"{folder} was written by a newer attrib "
        "(index format 2; this one reads 1); upgrade attrib",
        whole[:40]: f"{file} is damaged (Unterminated string",
        "[]": f"{file} is damaged (it names no format version); put it back from a backup",
        whole.replace('"ef"', '"fe"'): f"{file} is damaged (it names an unknown setting 'fe'); "
        "put it back from a backup",
        whole.replace('"m": 8', '"m": "8"'): f"{file} is damaged ('<' not supported",
        whole.replace('"dim": 16', '"dim": 0'): f"{file} is damaged (dim or settings are missing)",
    }.items():
        file.write_text(content)
        with pytest.raises(DataFolderError) as error:
            EdgeIndex.open(folder)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 0}, "m must be at least 1, not 0"),
        ({"search_threads": -1}, "search_threads must not be negative, not -1"),
        ({"oversampling": 0.5}, "oversampling must lie in 1..100, not 0.5"),
        ({"datatype": "int4"}, "no datatype 'int4'; choose float32 or float16"),
        (
            {"quantization": "gzip"},
            "no quantization 'gzip'; choose one of none, int8, turbo4, turbo2, turbo1, binary",
        ),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        EdgeSettings(**settings)
    assert str(error.value) == message


def test_a_damaged_shard_is_one_line(folder: Path) -> None:
    EdgeIndex.create(folder, DIM).close()
    for file in (folder / "shard").rglob("segment.json"):
        file.write_text("{")
    with pytest.raises(IndexFailedError) as error:
        EdgeIndex.open(folder)
    assert str(error.value).startswith("the index failed to open: ")
    assert "\n" not in str(error.value)


def test_only_one_process_has_it_open(folder: Path) -> None:
    with EdgeIndex.create(folder, DIM) as index:
        for wait_s in (0.0, 0.3):
            with pytest.raises(DataFolderBusyError) as error:
                EdgeIndex.open(folder, wait_s=wait_s)
        assert str(error.value) == (
            f"the index in {folder} is in use by another process; wait for it to end, or stop it"
        )
        assert index.count() == 0


def test_opening_waits_for_one_that_is_closing(folder: Path) -> None:
    program = _script(
        """
        import sys, time
        from search.edge import EdgeIndex
        with EdgeIndex.create(sys.argv[1], 16):
            print("made", flush=True)
            time.sleep(0.5)
        """,
        folder,
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "made\n"
        with EdgeIndex.open(folder, wait_s=20) as index:
            assert index.count() == 0


# -- deaths


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
    killer = _script(
        "import os, sys, time; time.sleep(0.3); os.kill(int(sys.argv[1]), 9)", index.process_id
    )
    with killer, pytest.raises(IndexFailedError, match=r"^the index process was killed by SIGKILL"):
        index.count()
    index.close()


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
    program = _script(_PARENT, folder, how)
    with program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        assert _is_alive(child)
        program.kill()
        program.wait()
        _wait_until(lambda: not _is_alive(child))
        with EdgeIndex.open(folder) as index:
            assert index.count() >= 16
            assert index.fetch([UUID(int=3)]) == [{"key": "3"}]
        if how == "fork":
            os.killpg(program.pid, signal.SIGKILL)


def test_ctrl_c_reaches_the_parent_only(folder: Path) -> None:
    program = _script(
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
    program = _script(
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
    assert not _is_alive(int(output))
    with EdgeIndex.open(folder) as index:
        assert index.count() == 1


def test_a_forked_copy_refuses_to_work(folder: Path) -> None:
    program = _script(
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


# -- the sample's file


def test_the_file_of_the_sample_is_there_only_while_it_is_true(
    folder: Path, make_points: Any
) -> None:
    points = make_points(12, 200, DIM)
    file = folder / "sample.npz"
    with EdgeIndex.create(folder, DIM, EdgeSettings(sample_size=20)) as index:
        index.upsert(points.ids[:100], points.vectors[:100], points.payloads[:100])
        index.flush()
        assert file.exists()
        index.delete(points.ids[:1])
        assert not file.exists()
        index.flush()
        index.upsert(points.ids, points.vectors, points.payloads)
        expected = list(index.sample().ids)
    for damage in (b"", file.read_bytes()[:200], None):
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        with EdgeIndex.open(folder) as index:
            assert list(index.sample().ids) == expected
            index.build()
        assert file.exists()


# -- quantization


@pytest.mark.parametrize("kind", ["int8", "turbo4", "turbo2", "turbo1", "binary"])
def test_quantized_search_is_exact_in_what_it_returns(
    folder: Path, make_points: Any, kind: Any
) -> None:
    # 256 numbers: short codes need as many. The limit is below the share that is scanned anyway.
    dim, n = 256, 5100
    points = make_points(13, n, dim, clusters=100)
    queries = points.vectors[:15] + 0.3 * points.vectors[15:30]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    settings = EdgeSettings(quantization=kind, index_above=1000, m=8, ef_construct=32)
    with EdgeIndex.create(folder, dim, settings) as index:
        points.put_into(index)
        index.build()
        assert index.info().indexed == n
        row_of = {uuid: row for row, uuid in enumerate(points.ids)}
        best = -np.sort(-(queries @ points.vectors.T), axis=1)[:, 49]
        recall = []
        for query, hits, least in zip(queries, index.search(queries, 50), best, strict=True):
            true = points.vectors[[row_of[uuid] for uuid in hits.ids]] @ query
            np.testing.assert_allclose(hits.similarities, true, atol=1e-5)
            assert len(hits.ids) == 50
            recall.append(np.mean(true >= least - 1e-5))
        print(kind, np.mean(recall))
        assert np.mean(recall) >= 0.99


def test_json_of_the_settings_is_for_people_too(folder: Path) -> None:
    EdgeIndex.create(folder, DIM).close()
    content = json.loads((folder / "index.json").read_text())
    assert content["format"] == 1
    assert content["settings"]["quantization"] == "none"
