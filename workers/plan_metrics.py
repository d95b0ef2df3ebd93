"""The plan as a whole, for Prometheus: what `attrib status` shows, read anew whenever it asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.errors import AttribError
from workers.board import Board
from workers.metrics import serving
from workers.progress import Status, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

__all__ = ["serve_plan"]

_ADDRESS = "127.0.0.1"


@contextmanager
def serve_plan(root: Path, board: Board, port: int) -> Iterator[str]:
    """Serve the state of a data folder's ingest to this machine; the address.

    Raises:
        UsageError: the port is taken.
    """
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(_Plan(root, board))
    with serving(registry, port, _ADDRESS):
        yield f"http://{_ADDRESS}:{port}/metrics"


class _Plan:
    def __init__(self, root: Path, board: Board) -> None:
        self._root = root
        self._board = board

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked when this is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """As prometheus_client calls it; nothing, where the data folder is gone."""
        with suppress(AttribError):
            yield from _families(status_of(self._root, self._board))


def _families(now: Status) -> Iterator[Metric]:
    """A series of what is not known is left out."""
    from prometheus_client.core import GaugeMetricFamily

    yield GaugeMetricFamily(
        "attrib_ingest_running", "Whether a process plans and takes in.", float(now.running)
    )
    yield GaugeMetricFamily(
        "attrib_ingest_redis_up", "Whether Redis answers.", float(not now.redis)
    )
    yield GaugeMetricFamily("attrib_ingest_workers", "Workers that live.", len(now.workers))
    shards = GaugeMetricFamily("attrib_ingest_shards", "Shards of this run.", labels=["state"])
    for state, count in (
        ("done", now.done),
        ("at_work", now.at_work),
        ("waiting", now.waiting),
        ("dead", len(now.dead)),
    ):
        shards.add_metric([state], count)
    yield shards
    images = GaugeMetricFamily("attrib_ingest_images", "Images done.", labels=["result"])
    images.add_metric(["ok"], now.images - now.rejected)
    images.add_metric(["rejected"], now.rejected)
    yield images
    yield GaugeMetricFamily(
        "attrib_ingest_images_per_second", "Of the last minute.", now.rate if now.running else 0.0
    )
    if now.total is not None:
        yield GaugeMetricFamily("attrib_ingest_planned_shards", "Shards in all.", now.total)
    if now.images_total is not None:
        yield GaugeMetricFamily("attrib_ingest_planned_images", "Images in all.", now.images_total)
    if now.remaining_s is not None:
        yield GaugeMetricFamily(
            "attrib_ingest_remaining_seconds", "Until the end, at that rate.", now.remaining_s
        )
