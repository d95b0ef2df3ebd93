"""How fast points leave numpy for a server: attrib's upsert beside the ways of qdrant-client.

    python -m benchmarks.upload [--points 2000] [--dim 512]

The server is a process that reads requests and throws them away, so that what is measured is the
sender alone: checks, serialisation and the socket. With --url the points go to a real one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

import grpc as grpc_library
import numpy as np
from qdrant_client import QdrantClient, grpc, models

from search.index_url import IndexUrl, parse_index_url
from search.server import ServerIndex
from search.server_calls import ServerCalls
from search.server_collection import ServerFacts
from search.server_settings import ServerSettings

REPEATS = 5


class Sink(BaseHTTPRequestHandler):
    """Reads a request and says that it was carried out."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        """An upsert."""
        self.rfile.read(int(self.headers["Content-Length"]))
        result = {"operation_id": 0, "status": "completed"}
        answer = json.dumps({"result": result, "status": "ok", "time": 0}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def sink(ports: Any) -> None:  # noqa: ANN401  # a queue of another process
    """Serve both protocols without decoding a request."""
    completed = grpc.UpdateResult(status=grpc.UpdateStatus.Completed)
    answer = grpc.PointsOperationResponse(result=completed).SerializeToString()
    handler = grpc_library.unary_unary_rpc_method_handler(lambda request, context: answer)
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc_library.server(ThreadPoolExecutor(4), options=options)
    server.add_generic_rpc_handlers(
        (grpc_library.method_handlers_generic_handler("qdrant.Points", {"Upsert": handler}),)
    )
    rest = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    ports.put((rest.server_address[1], server.add_insecure_port("127.0.0.1:0")))
    server.start()
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    threading.Event().wait()


def points(count: int, dim: int) -> tuple[list[UUID], Any, list[dict[str, Any]]]:
    """Points with the payload of a LAION image."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = [UUID(bytes=rng.bytes(16)) for _ in range(count)]
    payloads = [
        {
            "key": f"{i:09d}",
            "dataset": "laion",
            "url": f"https://images.example/pictures/{i}.jpg",
            "caption": f"a picture of something on a table in the afternoon, number {i}",
            "creator": f"creator {i % 99}",
            "licence": "CC-BY-4.0",
            "sha256": f"{i:064x}",
            "width": 640,
            "height": 480,
            "shard": i // 10_000,
        }
        for i in range(count)
    ]
    return ids, rows, payloads


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--url", help="a real server: qdrant://host[:port]")
    given = parser.parse_args()
    if given.url:
        measure(parse_index_url(given.url), given.points, given.dim, real=True)
        return
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=sink, args=(ports,), daemon=True)
    process.start()
    rest, grpc_port = ports.get()
    measure(IndexUrl("127.0.0.1", rest, grpc_port), given.points, given.dim, real=False)
    process.terminate()


def measure(url: IndexUrl, count: int, dim: int, *, real: bool) -> None:
    """Every way, best of some."""
    ids, rows, payloads = points(count, dim)
    texts = [str(uuid) for uuid in ids]
    name = f"attrib-upload-{uuid4().hex[:8]}"
    settings = ServerSettings()
    if real:
        ServerIndex.create(url, name, dim, settings).close()
    both = {
        protocol: QdrantClient(
            host=url.host, port=url.port, grpc_port=url.grpc_port, prefer_grpc=protocol == "gRPC",
            check_compatibility=False, timeout=120,
        )
        for protocol in ("gRPC", "REST")
    }  # fmt: skip
    ways: dict[str, Callable[[], object]] = {}
    for protocol, client in both.items():
        facts = ServerFacts(name, dim, settings, "", "")
        index = ServerIndex(client, ServerCalls(url), facts, owns_client=False)
        ways[f"{protocol}: attrib's upsert"] = lambda index=index: index.upsert(ids, rows, payloads)
        ways[f"{protocol}: client.upsert(Batch)"] = lambda client=client: client.upsert(
            name, models.Batch(ids=texts, vectors=rows.tolist(), payloads=payloads), wait=True
        )
        ways[f"{protocol}: client.upload_collection"] = lambda client=client: (
            client.upload_collection(
                name, vectors=rows, ids=texts, payload=payloads, batch_size=count, wait=True
            )
        )
    print(f"{count:,} points x {dim}, payloads of {len(json.dumps(payloads[0]))} bytes")
    for way, send in ways.items():
        best_wall = best_cpu = float("inf")
        for _ in range(REPEATS):
            wall, cpu = time.perf_counter(), time.process_time()
            send()
            best_wall = min(best_wall, time.perf_counter() - wall)
            best_cpu = min(best_cpu, time.process_time() - cpu)
        print(f"{way:32} {count / best_wall:8,.0f} points/s  {count / best_cpu:8,.0f} a core")
    if real:
        ServerIndex.remove(url, name)


if __name__ == "__main__":
    main()
