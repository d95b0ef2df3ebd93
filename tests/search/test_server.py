"""What can go wrong with a server, and what is asked of one, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from qdrant_engine import Fault

from ingest.errors import IndexFailedError, IndexRefusedError, UsageError
from search.index_url import IndexUrl, parse_index_url
from search.server import ServerIndex
from search.server_settings import ServerSettings

DIM = 4
ONE = UUID(int=1)
ROW = np.array([[1, 0, 0, 0]], np.float32)
BOTH = pytest.mark.parametrize("url", [False, True], ids=["rest", "grpc"], indirect=True)


@pytest.fixture
def index(url: IndexUrl) -> Iterator[ServerIndex]:
    with ServerIndex.create(url, "c", DIM, patience_s=5) as made:
        yield made


def rows(n: int, seed: int = 0) -> Any:
    drawn = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def ids(n: int) -> list[UUID]:
    rng = np.random.default_rng(99)
    return [UUID(bytes=rng.bytes(16)) for _ in range(n)]


# -- failures that pass


@BOTH
@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_server_is_asked_again(index: ServerIndex, qdrant: Any, status: int) -> None:
    qdrant.engine.faults = [("upsert", Fault(status, "too much"))] * 3
    index.upsert([ONE], ROW, [{"key": "k"}])
    assert index.count() == 1
    assert qdrant.engine.calls.count("upsert") == 4


@BOTH
def test_the_server_says_when_to_come_back(index: ServerIndex, qdrant: Any) -> None:
    qdrant.engine.faults = [("query", Fault(429, "too much", {"Retry-After": "1"}))]
    index.upsert([ONE], ROW, [{}])
    started = time.monotonic()
    assert list(index.search(ROW, 1)[0].ids) == [ONE]
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("url", [False], ids=["rest"], indirect=True)
def test_a_connection_that_broke_off(index: ServerIndex, qdrant: Any) -> None:
    qdrant.engine.faults = [("upsert", Fault(0)), ("count", Fault(502)), ("count", Fault(507))]
    index.upsert([ONE], ROW, [{}])
    assert index.count() == 1


@BOTH
def test_a_server_that_restarts(index: ServerIndex, qdrant: Any, url: IndexUrl) -> None:
    index.upsert([ONE], ROW, [{}])
    qdrant.__exit__(None, None, None)
    again = type(qdrant)(qdrant.engine, port=qdrant.port, grpc_port=qdrant.grpc_port)
    timer = threading.Timer(0.7, again.__enter__)
    timer.start()
    assert list(index.search(ROW, 1)[0].ids) == [ONE]
    timer.join()
    again.__exit__(None, None, None)


@pytest.mark.parametrize("url", [False], ids=["rest"], indirect=True)
def test_an_answer_that_was_lost_when_it_was_made(url: IndexUrl, qdrant: Any) -> None:
    create = qdrant.engine.create

    def made_but_not_told(*arguments: Any) -> Any:
        create(*arguments)
        qdrant.engine.create = create
        raise Fault(0)

    qdrant.engine.create = made_but_not_told
    with ServerIndex.create(url, "c", DIM) as index:
        index.upsert([ONE], ROW, [{}])
        assert index.count() == 1
    with pytest.raises(UsageError, match="has a collection 'c' already; choose another name"):
        ServerIndex.create(url, "c", DIM)


# -- failures that stay


@BOTH
def test_a_rate_limit_that_stays(url: IndexUrl, qdrant: Any) -> None:
    index = ServerIndex.create(url, "c", DIM, patience_s=0.5)
    qdrant.engine.faults = [("upsert", Fault(429, "Rate limiting exceeded"))] * 99
    with pytest.raises(IndexFailedError) as error:
        index.upsert([ONE], ROW, [{}])
    assert str(error.value) == (
        f"the Qdrant server at {url.server} still limits the rate after 0.5 s (Rate limiting "
        "exceeded); send less at once, or raise its limits"
    )
    index.close()


@BOTH
def test_no_room_is_left(url: IndexUrl, qdrant: Any) -> None:
    index = ServerIndex.create(url, "c", DIM, patience_s=0.5)
    qdrant.engine.faults = [("upsert", Fault(507, "No space left"))] * 99
    with pytest.raises(IndexFailedError) as error:
        index.upsert([ONE], ROW, [{}])
    assert str(error.value) == (
        f"the Qdrant server at {url.server} has no memory or disk left (No space left); make room "
        "or add a node, then run the same command again"
    )
    index.close()


@BOTH
def test_a_server_that_does_not_answer_in_time(
    url: IndexUrl, qdrant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ServerIndex.create(url, "c", DIM).close()
    monkeypatch.setattr("search.server_collection.REQUEST_S", 1)
    with ServerIndex.open(url, "c", patience_s=1) as index:
        qdrant.engine.lock.acquire()  # the server is stuck
        try:
            with pytest.raises(IndexFailedError) as error:
                index.count({"creator": ["a"]})
        finally:
            qdrant.engine.lock.release()
    said = str(error.value)
    assert said.startswith(f"the Qdrant server at {url.server} did not count points in time (")
    assert said.endswith("); it is overloaded, or its disk is slow")


@BOTH
def test_any_other_failure_is_told_at_once(index: ServerIndex, qdrant: Any, url: IndexUrl) -> None:
    qdrant.engine.faults = [("count", Fault(500, "Service internal error:\n  panicked"))]
    with pytest.raises(IndexFailedError) as error:
        index.count({"creator": ["a"]})
    assert str(error.value) == (
        f"the Qdrant server at {url.server} failed to count points: Service internal error: "
        "panicked"
    )
    assert index.count({"creator": ["a"]}) == 0


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_nobody_answers(grpc: bool) -> None:
    port = _free_port()
    url = IndexUrl("127.0.0.1", port, port if grpc else 0)
    with pytest.raises(IndexFailedError) as error:
        ServerIndex.open(url, "c", patience_s=0.5)
    said = str(error.value)
    protocol = "gRPC" if grpc else "REST"
    assert said.startswith(f"no Qdrant server answers at 127.0.0.1, port {port} ({protocol}: ")
    assert "; check the address, or start one: docker run -p 6333:6333 -p 6334:6334 qdrant" in said
    assert ("?grpc_port=0 in the URL goes through the REST port alone" in said) == grpc
    assert "\n" not in said


def test_no_tls_there(qdrant: Any) -> None:
    url = IndexUrl("127.0.0.1", qdrant.port, 0, tls=True)
    with pytest.raises(IndexFailedError) as error:
        ServerIndex.open(url, "c", patience_s=0.5)
    assert str(error.value).startswith(
        f"no secure connection to qdrants://127.0.0.1:{qdrant.port}?grpc_port=0 ("
    )
    assert str(error.value).endswith(
        "); check the certificate, or write qdrant:// for a server without TLS"
    )


@BOTH
def test_keys(url: IndexUrl, qdrant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    qdrant.engine.key = "right"
    monkeypatch.delenv("ATTRIB_QDRANT_API_KEY", raising=False)
    with pytest.raises(IndexFailedError) as error:
        ServerIndex.create(url, "c", DIM)
    assert str(error.value) == (
        f"the Qdrant server at {url.server} wants an API key (Must provide an API key or an "
        "Authorization bearer token); set ATTRIB_QDRANT_API_KEY in the environment"
    )
    monkeypatch.setenv("ATTRIB_QDRANT_API_KEY", "wrong-secret")
    with pytest.raises(IndexFailedError) as error:
        ServerIndex.create(url, "c", DIM)
    assert str(error.value) == (
        f"the Qdrant server at {url.server} does not accept the API key in ATTRIB_QDRANT_API_KEY "
        "for this (Invalid API key or JWT)"
    )
    monkeypatch.setenv("ATTRIB_QDRANT_API_KEY", "right")
    with ServerIndex.create(url, "c", DIM) as index:
        index.upsert([ONE], ROW, [{}])
        assert "right" not in json.dumps(dict(index.info().details))


@BOTH
@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.18.3", "is Qdrant 1.18.3; attrib needs 1.19 or newer: upgrade the server"),
        ("0.11.0", "is Qdrant 0.11.0; attrib needs 1.19 or newer: upgrade the server"),
        ("", "does not say which version of Qdrant it is"),
    ],
)
def test_versions(url: IndexUrl, qdrant: Any, version: str, said: str) -> None:
    qdrant.engine.version = version
    with pytest.raises(IndexFailedError) as error:
        ServerIndex.open(url, "c")
    assert str(error.value) == f"the Qdrant server at {url.server} {said}"


@BOTH
@pytest.mark.parametrize("version", ["1.19.0", "1.20.1-dev", "2.0.0"])
def test_versions_that_do(url: IndexUrl, qdrant: Any, version: str) -> None:
    qdrant.engine.version = version
    with ServerIndex.create(url, "c", DIM) as index:
        assert index.info().details["version"] == version


# -- collections that will not do


@BOTH
def test_collections_that_will_not_do(url: IndexUrl, qdrant: Any) -> None:
    from qdrant_client import models

    def opened(name: str) -> str:
        with pytest.raises(IndexFailedError) as error:
            ServerIndex.open(url, name)
        return str(error.value)

    dot = models.VectorParams(size=DIM, distance=models.Distance.DOT)
    good = {"format": 1, "settings": {}, "model": "m", "fingerprint": "f", "ef": 0, "ef_points": 0}
    where = f"of the Qdrant server at {url.server} will not do: "
    engine = qdrant.engine
    engine.create("bare", models.CreateCollection(vectors=dot))
    assert opened("bare") == (
        f"the collection 'bare' {where}attrib did not make it; choose another one"
    )
    cosine = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
    engine.create("cosine", models.CreateCollection(vectors=cosine, metadata={"attrib": good}))
    assert opened("cosine") == (
        f"the collection 'cosine' {where}its distance is Cosine, not Dot; choose another one"
    )
    odd = {**good, "settings": {"m": "many"}}
    engine.create("odd", models.CreateCollection(vectors=dot, metadata={"attrib": odd}))
    assert opened("odd").startswith(f"the collection 'odd' {where}its metadata is damaged: ")
    newer = {**good, "format": 2}
    engine.create("newer", models.CreateCollection(vectors=dot, metadata={"attrib": newer}))
    assert opened("newer") == (
        "the collection 'newer' was made by a newer attrib (format 2; this one reads 1); upgrade "
        "attrib"
    )
    assert opened("none") == (
        f"the Qdrant server at {url.server} has no collection 'none'; check the address, or "
        "restore the collection from a snapshot"
    )
    with pytest.raises(UsageError) as error:
        ServerIndex.create(url, "bare", DIM)
    assert str(error.value) == (
        f"the Qdrant server at {url.server} has a collection 'bare' already; choose another name"
    )


# -- strict mode


@BOTH
def test_strict_mode_is_kept_to_where_that_costs_nothing(url: IndexUrl, qdrant: Any) -> None:
    ServerIndex.create(url, "c", DIM, ServerSettings(sample_size=64)).close()
    qdrant.engine.strict(
        "c", max_query_limit=20, upsert_max_batchsize=30, search_max_batchsize=2,
        search_allow_exact=False,
    )  # fmt: skip
    with ServerIndex.open(url, "c") as index:
        points = ids(100)
        index.upsert(points, rows(100), [{"creator": "a"} for _ in points])
        assert index.count() == 100
        assert qdrant.engine.calls.count("upsert") == 4
        assert [uuid for page in index.scroll(batch=50) for uuid in page] == sorted(points)
        assert len(index.sample().ids) == 64
        found = index.search(rows(5, seed=1), 20, where={"creator": ["a"]})
        assert [len(hits.ids) for hits in found] == [20] * 5
        index.build()
        with pytest.raises(IndexRefusedError) as error:
            index.search(rows(1), 21)
        assert str(error.value).startswith(
            f"the Qdrant server at {url.server} refuses to search: Bad request: Limit exceeded 22"
        )
        with pytest.raises(IndexRefusedError, match="Exact search disabled"):
            index.search(rows(1), 5, exact=True)


# -- what is put there


@BOTH
def test_a_large_upsert_goes_in_parts(index: ServerIndex, qdrant: Any) -> None:
    points = ids(40)
    captions = [{"key": str(i), "caption": "x" * 1_000_000} for i in range(40)]
    index.upsert(points, rows(40), captions)
    assert 5 <= qdrant.engine.calls.count("upsert") <= 6  # 40 MB by 8
    assert index.count() == 40
    assert index.fetch(points[-1:], fields=["key"]) == [{"key": "39"}]


@BOTH
def test_the_sample_is_that_of_the_embedded_index(url: IndexUrl, tmp_path: Any) -> None:
    from search.edge import EdgeIndex, EdgeSettings

    points = ids(3000)
    with (
        EdgeIndex.create(tmp_path / "edge", DIM, EdgeSettings(sample_size=1500)) as edge,
        ServerIndex.create(url, "c", DIM, ServerSettings(sample_size=1500)) as index,
    ):
        for each in (edge, index):
            each.upsert(points, rows(3000), [{}] * 3000)
        assert list(index.sample().ids) == list(edge.sample().ids)
        gone = list(edge.sample().ids)[:1000]  # so many that the embedded one draws anew
        index.delete(gone)
        edge.delete(gone)
        assert list(index.sample().ids) == list(edge.sample().ids)
        assert len(index.sample().ids) == 1500


def test_several_processes_put_points_in_at_once(qdrant: Any) -> None:
    import subprocess
    import sys
    import textwrap

    url = qdrant.url(grpc=True)
    ServerIndex.create(parse_index_url(url), "c", DIM).close()
    program = textwrap.dedent(f"""
        import sys
        from uuid import UUID
        import numpy as np
        from search.index_url import parse_index_url
        from search.server import ServerIndex
        start = int(sys.argv[1])
        ids = [UUID(int=i * 7919) for i in range(start, start + 60)]
        rows = np.tile(np.array([[1, 0, 0, 0]], np.float32), (60, 1))
        with ServerIndex.open(parse_index_url("{url}"), "c") as index:
            for at in range(0, 60, 6):
                part = slice(at, at + 6)
                index.upsert(ids[part], rows[part], [{{"key": str(i)}} for i in ids[part]])
    """)
    # Overlapping on purpose: a shard may be done twice.
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(start)]) for start in (1, 41, 81)
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    with ServerIndex.open(parse_index_url(url), "c") as index:
        assert index.count() == 140
        assert len(index.sample().ids) == 140
