"""A Qdrant server for tests, over real sockets: REST and gRPC before qdrant-client's local mode.

Where a real Qdrant can be had, tests run on it as well (ATTRIB_TEST_QDRANT_URL). This one takes its
place elsewhere: it speaks both protocols, checks API keys and strict mode, and fails as it is told.

    python qdrant_stand_in.py [--port P] [--grpc-port P]

prints both ports and serves until its input ends, so that no server outlives the test that
started it.
"""

from __future__ import annotations

import argparse
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from types import TracebackType

import grpc as grpc_library
from qdrant_client import grpc
from qdrant_engine import Engine, Fault
from qdrant_grpc import CollectionsService, PointsService, RootService
from qdrant_rest import RestHandler

__all__ = ["Engine", "Fault", "Server"]


class Server:
    """Both protocols on free ports of this machine; a context manager."""

    def __init__(self, engine: Engine | None = None, *, port: int = 0, grpc_port: int = 0) -> None:
        self.engine = engine or Engine()
        handler = type("Handler", (RestHandler,), {"engine": self.engine})
        self._rest = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._rest.daemon_threads = True
        self.port = self._rest.server_address[1]
        self._pool = ThreadPoolExecutor(8)
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._grpc = grpc_library.server(self._pool, options=options)
        grpc.add_PointsServicer_to_server(PointsService(self.engine), self._grpc)
        grpc.add_CollectionsServicer_to_server(CollectionsService(self.engine), self._grpc)
        grpc.add_QdrantServicer_to_server(RootService(self.engine), self._grpc)
        self.grpc_port = self._grpc.add_insecure_port(f"127.0.0.1:{grpc_port}")
        self._thread = threading.Thread(target=self._rest.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        self._grpc.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rest.shutdown()
        self._rest.server_close()
        self._thread.join()
        self._grpc.stop(None).wait()
        self._pool.shutdown()

    def url(self, *, grpc: bool) -> str:
        return f"qdrant://127.0.0.1:{self.port}?grpc_port={self.grpc_port if grpc else 0}"


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--grpc-port", type=int, default=0)
    given = parser.parse_args()
    with Server(port=given.port, grpc_port=given.grpc_port) as server:
        print(server.port, server.grpc_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
