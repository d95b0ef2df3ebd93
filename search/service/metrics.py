"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 100_000)


class Metrics:
    """Counters, gauges and histograms of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "attrib_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "attrib_request_seconds",
            "Time of a request, by route.",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.stage_seconds = Histogram(
            "attrib_stage_seconds",
            "Time of a stage of an answer: decode (an image), embed (a batch), search and "
            "calibrate (a batch of queries).",
            ["stage"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.batch_size = Histogram(
            "attrib_batch_size",
            "Queries embedded or searched together.",
            ["stage"],
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.support = Histogram(
            "attrib_support_images",
            "Training images with influence above 0, where they were counted.",
            registry=self.registry,
            buckets=_IMAGES,
        )
        self.answers = Counter(
            "attrib_answers",
            "Answers by method; estimated over all is the estimated share.",
            ["method"],
            registry=self.registry,
        )
        for method in ("exact", "complete", "estimated"):
            self.answers.labels(method)  # the share is 0, not absent, before the first one

        self.cut_off = Counter(
            "attrib_connections_cut_off",
            "Connections broken off because nobody read what was sent.",
            registry=self.registry,
        )

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """A number that is read whenever Prometheus asks."""
        Gauge(name, help, registry=self.registry).set_function(read)
