"""Starting the process that holds a shard, and talking to it.

It is started as a plain command, not through multiprocessing: that works from a notebook, from a
script without a main guard and under threads, and never forks a process that already searches (a
forked Edge hangs).
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from ingest.errors import IndexFailedError

__all__ = ["Channel", "ProcessBusyError"]

_IN_FLIGHT_BYTES = 32 * 1024 * 1024
_IN_FLIGHT_REQUESTS = 64
_POLL_S = 0.25
_CLOSE_S = 120.0
_PAGE_BYTES = 32 * 1024 * 1024  # the engine takes room for vectors, payloads and its log in these
_ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",
    "OPENBLAS_NUM_THREADS": "1",  # of numpy: its products are small, its threads wait busily
}


class ProcessBusyError(Exception):
    """The process found the shard locked by another one."""


class Channel:
    """One child process; requests are answered in the order in which they are sent.

    Args:
        folder: where its shard lies; errors tell of it where its disk is full.
    """

    def __init__(self, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by _finish
        paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "search.edge_process",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # A session of its own: no signal of the terminal reaches it while it writes.
                start_new_session=True,
                env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
            )
        self._folder = folder
        self._connection = Connection(ours.detach())
        self._process = process
        self._errors = errors
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._sent = 0
        self._in_flight: deque[tuple[int, int, bool]] = deque()  # (number, bytes, posted)
        self._in_flight_bytes = 0
        self._failure: str | None = None
        self._broken: str | None = None
        # Runs at close, at garbage collection and at exit, whichever is first.
        self._finish = weakref.finalize(
            self, _finish, self._connection, process, errors, self._owner
        )

    @property
    def pid(self) -> int:
        """Id of the child process."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether requests can still be answered, here and now."""
        return self._broken is None and self._finish.alive and self._owner == os.getpid()

    def post(self, operation: str, *arguments: object) -> None:
        """Send a request whose answer is awaited later; a failure is raised by `settle`."""
        with self._lock:
            self._send(operation, arguments, posted=True)

    def call(
        self,
        operation: str,
        *arguments: object,
        timeout_s: float | None = None,
        waiting: Callable[[float], None] | None = None,
    ) -> Any:  # noqa: ANN401  # what the operation of that name returns
        """Send a request and return its answer.

        `waiting` is called with the seconds so far about four times a second. Raises
        IndexFailedError where the operation failed or the process is gone, ProcessBusyError where
        the shard is locked.
        """
        with self._lock:
            number = self._send(operation, arguments, posted=False)
            started = time.monotonic()
            while True:
                if self._poll(_POLL_S):
                    answered, outcome, value = self._receive()
                    if answered == number:
                        break
                    continue
                taken = time.monotonic() - started
                if waiting is not None:
                    waiting(taken)
                if timeout_s is not None and taken > timeout_s:
                    self._broken = f"the index process did not answer within {timeout_s:g} s"
                    self._process.kill()
                    raise IndexFailedError(self._broken)
            if outcome == "busy":
                raise ProcessBusyError
            if outcome != "ok":
                raise IndexFailedError(self._complaint(f"the index failed to {operation}", value))
            return value

    def settle(self) -> None:
        """Wait for everything posted, and raise the first failure among it."""
        with self._lock:
            while self._in_flight:
                if self._poll(_POLL_S):
                    self._receive()
            failure, self._failure = self._failure, None
            if failure is not None:
                raise IndexFailedError(failure)

    def close(self) -> None:
        """End the process: it flushes and lets go of the shard. Calling it again does nothing."""
        self._finish()

    def _send(self, operation: str, arguments: tuple[object, ...], *, posted: bool) -> int:
        self._check()
        message = pickle.dumps((self._sent, operation, arguments), protocol=5)
        while self._in_flight and (
            self._in_flight_bytes + len(message) > _IN_FLIGHT_BYTES
            or len(self._in_flight) >= _IN_FLIGHT_REQUESTS
            or self._poll(0)
        ):
            if self._poll(_POLL_S):
                self._receive()
        number = self._sent
        with _Whole(self):
            self._connection.send_bytes(message)
        self._sent += 1
        self._in_flight.append((number, len(message), posted))
        self._in_flight_bytes += len(message)
        return number

    def _receive(self) -> tuple[int, str, Any]:
        with _Whole(self):
            answer: tuple[int, str, Any] = pickle.loads(self._connection.recv_bytes())
        number, outcome, value = answer
        expected, size, posted = self._in_flight.popleft()
        self._in_flight_bytes -= size
        if number != expected:
            raise self._break("the index process answered out of order")
        # The failure of an operation that nobody waits for is kept for `settle`.
        if posted and outcome != "ok" and self._failure is None:
            self._failure = self._complaint("the index failed", value)
        return number, outcome, value

    def _poll(self, timeout_s: float) -> bool:
        try:
            return self._connection.poll(timeout_s)
        except OSError as exc:
            raise self._break(self._obituary()) from exc

    def _check(self) -> None:
        if self._owner != os.getpid():
            raise IndexFailedError(
                "the index was opened by another process; open it again in this one"
            )
        if not self._finish.alive:
            raise IndexFailedError("the index is closed")
        if self._broken is not None:
            raise IndexFailedError(self._broken)

    def _break(self, reason: str) -> IndexFailedError:
        self._broken = reason
        return IndexFailedError(reason)

    def _complaint(self, what: str, said: object) -> str:
        """One line on what the process could not do."""
        if "os error 28" in str(said):  # how Rust writes ENOSPC
            return self._full_disk()
        return f"{what}: {_one_line(said)}"

    def _full_disk(self) -> str:
        return (
            f"the disk of {self._folder} is full: free some space and run the same command again; "
            "what was finished is kept"
        )

    def _obituary(self) -> str:
        """One line on how the process ended, with the end of what it said."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the index process broke off the connection; open the index again"
        # A write into a mapped file whose page finds no room is a signal, not an error.
        if code == -signal.SIGBUS and _free_bytes(self._folder) < 2 * _PAGE_BYTES:
            return self._full_disk()
        if code < 0:
            try:
                how = f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was killed by signal {-code}"
        else:
            how = f"ended with exit code {code}"
        said = _last_words(self._errors)
        return f"the index process {how}{f' ({said})' if said else ''}; open the index again"


class _Whole:
    """A message goes through whole, or the channel is of no use any more (Ctrl-C included)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | EOFError):
            raise self._channel._break(self._channel._obituary()) from error
        if error is not None:
            self._channel._broken = "the index was interrupted; open it again"


def _finish(
    connection: Connection, process: subprocess.Popen[bytes], errors: IO[bytes], owner: int
) -> None:
    """Close our end, which the child takes as the request to flush and go, and wait for it."""
    connection.close()
    if owner == os.getpid():  # a forked copy of the parent must not wait for a child not its own
        try:
            process.wait(timeout=_CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()  # loses nothing: what was acknowledged is in the write-ahead log
            process.wait()
    errors.close()


def _free_bytes(folder: Path) -> int:
    """Room on the disk of `folder`, or of the nearest folder above it that is there."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
    return shutil.disk_usage(there).free


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - 4096))
    return _one_line(errors.read().decode("utf-8", "replace"))[-300:]


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 500 else line[:497] + "..."
