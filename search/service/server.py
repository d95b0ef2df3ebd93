"""The service as a process: it listens at once, loads beside that, and ends in good order."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from embed.model import AttributionModel
from ingest.errors import RunError
from search.service.app import make_app
from search.service.engine import Engine
from search.service.metrics import Metrics
from search.service.protocol import protocol_of
from search.service.settings import ServiceSettings

__all__ = ["Service"]

_POLL_S = 0.01
_GRACE = 10
"""Times the limit of one request: a batch that was accepted takes longer."""


class Service:
    """One service of one data folder.

    Args:
        root: the data folder.
        settings: of the service.
        model: refuse to serve with another model than this.

    Raises:
        UsageError: an examples folder that is not there.
    """

    def __init__(
        self, root: Path, settings: ServiceSettings, model: AttributionModel | None = None
    ) -> None:
        metrics = Metrics()
        self._settings = settings
        self._failure: BaseException | None = None
        self._over = threading.Event()
        self.engine = Engine(root, settings, metrics, model)
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(self.engine, settings, metrics),
                host=settings.host,
                port=settings.port,
                http=protocol_of(settings.timeout_s, metrics),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(_GRACE * settings.timeout_s),
                h11_max_incomplete_event_size=32 * 1024,
            )
        )

    def run(self, *, ready: Callable[[int], None] | None = None) -> None:
        """Serve until SIGINT, SIGTERM or `stop`; what was accepted by then is finished.

        `ready`: called with the port once model and index are warm.

        Raises:
            AttribError: the folder or the model cannot be used.
            RunError: the port cannot be listened on.
        """
        before = self._take_signals()
        loading = threading.Thread(target=self._load, args=(ready,), name="attrib-load")
        try:
            loading.start()
            asyncio.run(self._server.serve())
        except SystemExit as exc:  # uvicorn's way to say that it could not start
            if self._failure is None:
                self._failure = RunError(_why_not(self._settings, exc.__context__))
                self._failure.__cause__ = exc
        finally:
            self._over.set()
            loading.join()
            self.engine.close()
            for kind, handler in before.items():
                signal.signal(kind, handler)
        if self._failure is not None:
            raise self._failure

    def _take_signals(self) -> dict[int, Any]:
        """uvicorn raises a signal once more after its end, which would end us before `close`.

        Returns the handlers that were there.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        kinds = (signal.SIGINT, signal.SIGTERM)
        return {kind: signal.signal(kind, lambda *_: self.stop()) for kind in kinds}

    def stop(self) -> None:
        """End `run`, from any thread."""
        self._server.should_exit = True

    def _load(self, ready: Callable[[int], None] | None) -> None:
        try:
            self.engine.load()
            while not self._server.started:
                if self._over.wait(_POLL_S):
                    return
            if ready is not None:
                ready(self._port())
        except BaseException as exc:
            self._failure = exc
            self.stop()

    def _port(self) -> int:
        for server in getattr(self._server, "servers", []):
            for listening in server.sockets:
                return int(listening.getsockname()[1])
        return self._settings.port


def _why_not(settings: ServiceSettings, error: BaseException | None) -> str:
    """Why a port cannot be listened on, by what the system said."""
    where = f"{settings.host}:{settings.port}"
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {where}: no address is known of the host {settings.host}"
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRNOTAVAIL:
        return f"cannot listen on {where}: this machine does not have the address {settings.host}"
    if number == errno.EADDRINUSE or number is None:
        return f"cannot listen on {where}: is something else there?"
    return f"cannot listen on {where}: {os.strerror(number).lower()}"
