"""What a worker measures, for Prometheus.

The processes that embed write into files of a common folder (prometheus_client's multi-process
mode), so that the supervisor serves sums that survive them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingest.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["FOLDER_VARIABLE", "Metrics", "serve", "serving"]

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_BUCKETS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)


class Metrics:
    """The counters of this process."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        registry = CollectorRegistry()
        self._images = Counter(
            "attrib_worker_images", "Images done.", ["result"], registry=registry
        )
        self._shards = Counter(
            "attrib_worker_shards", "Shards that ended.", ["state"], registry=registry
        )
        self._seconds = Histogram(
            "attrib_worker_shard_seconds",
            "Time that a shard took.",
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self._stages = Counter(
            "attrib_worker_stage_seconds", "Time by stage.", ["stage"], registry=registry
        )
        for result in ("ok", "rejected"):
            self._images.labels(result)
        for state in ("done", "failed", "dead"):
            self._shards.labels(state)
        for stage in ("read", "embed", "index"):
            self._stages.labels(stage)

    def images(self, ok: int, rejected: int) -> None:
        """So many images are done."""
        self._images.labels("ok").inc(ok)
        self._images.labels("rejected").inc(rejected)

    def done(self, seconds: float) -> None:
        """A shard is done."""
        self._shards.labels("done").inc()
        self._seconds.observe(seconds)

    def failed(self, *, last: bool) -> None:
        """A shard failed; `last`: for good."""
        self._shards.labels("failed").inc()
        if last:
            self._shards.labels("dead").inc()

    def spent(self, stage: str, seconds: float) -> None:
        """Time went into a stage."""
        self._stages.labels(stage).inc(max(0.0, seconds))


class _Up:
    """A gauge of what lives at the moment of asking."""

    def __init__(self, alive: Callable[[], dict[str, int]]) -> None:
        self._alive = alive

    def collect(self) -> Iterable[Metric]:
        """As prometheus_client calls it."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily(
            "attrib_worker_up", "Processes that embed, by device.", labels=["device"]
        )
        for device, count in self._alive().items():
            up.add_metric([device], count)
        yield up


@contextmanager
def serve(port: int, address: str, alive: Callable[[], dict[str, int]]) -> Iterator[None]:
    """Serve the sums of all processes that write into the folder; `alive`: processes by device.

    Raises:
        UsageError: the port is taken.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=os.environ[FOLDER_VARIABLE])  # type: ignore[no-untyped-call]
    registry.register(_Up(alive))
    with serving(registry, port, address):
        yield


@contextmanager
def serving(registry: CollectorRegistry, port: int, address: str) -> Iterator[None]:
    """Serve what is registered.

    Raises:
        UsageError: the port is taken.
    """
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, address, registry=registry)
    except OSError as exc:
        raise UsageError(
            f"port {port} cannot be served: {exc.strerror}; choose another --metrics-port"
        ) from exc
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
