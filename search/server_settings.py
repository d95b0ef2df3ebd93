"""How a collection on a Qdrant server is laid out; the why of each default is in docs/scale.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ingest.errors import UsageError
from search.edge_settings import OVERSAMPLING, Quantization

__all__ = ["Placement", "ServerSettings", "read_server_settings", "settings_record"]

Placement = Literal["cold", "cached", "pinned"]
"""Where the server holds a part: read from disk, read into the page cache at the start, or kept in
memory for good."""


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a collection on a server; the defaults suit hundreds of millions of points.

    Attributes:
        m: links of a point in the HNSW graph once it is built; none are made while points come in.
        ef_construct: candidates while the graph is built.
        ef: candidates while it is searched, at least; four per hit for limits beyond 64, and more
            where `build` finds that this collection needs them.
        quantization: a shorter code of the vectors for the first pass. Hits are always compared
            again with the original vectors, so that similarities are exact whatever the code.
        oversampling: candidates per hit in that first pass; None: what the code needs, as in
            `EdgeSettings`.
        datatype: of the original vectors. float16 halves them and moves similarities by up to 1e-4.
        vectors: placement of the original vectors; they cannot be pinned.
        codes: placement of the quantized vectors.
        graph: placement of the HNSW graph.
        payloads: placement of the payloads; they cannot be pinned.
        fields: placement of the payload fields' indexes.
        shards: parts that the collection is split into over the nodes; 0: the server's default.
        replicas: copies of each shard, on different nodes.
        write_consistency: copies that must have a write before it counts.
        index_above: points that a segment may hold before it gets a graph.
        index_threads: threads that build one graph; 0: chosen by the server.
        scan_below: a filter that matches fewer points is answered by comparing all of them, which
            loses none; one that matches more goes through the graph.
        sample_size: points in the fixed uniform sample.
    """

    m: int = 16
    ef_construct: int = 128
    ef: int = 128
    quantization: Quantization = "turbo4"
    oversampling: float | None = None
    datatype: Literal["float32", "float16"] = "float16"
    vectors: Placement = "cold"
    codes: Placement = "pinned"
    graph: Placement = "cached"
    payloads: Placement = "cold"
    fields: Placement = "cached"
    shards: int = 0
    replicas: int = 1
    write_consistency: int = 1
    index_above: int = 10_000
    index_threads: int = 0
    scan_below: int = 100_000
    sample_size: int = 16_384

    def __post_init__(self) -> None:
        for name, kind in (
            ("quantization", Quantization),
            ("vectors", Placement),
            ("codes", Placement),
            ("graph", Placement),
            ("payloads", Placement),
            ("fields", Placement),
        ):
            value, allowed = getattr(self, name), get_args(kind)
            if value not in allowed:
                raise UsageError(f"no {name} {value!r}; choose one of {', '.join(allowed)}")
        for name in ("vectors", "payloads"):
            if getattr(self, name) == "pinned":
                raise UsageError(f"{name} cannot be pinned; choose cold or cached")
        if self.datatype not in ("float32", "float16"):
            raise UsageError(f"no datatype {self.datatype!r}; choose float32 or float16")
        for name in (
            "m",
            "ef_construct",
            "ef",
            "replicas",
            "write_consistency",
            "index_above",
            "sample_size",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("shards", "index_threads", "scan_below"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.write_consistency > self.replicas:
            raise UsageError(
                f"write_consistency of {self.write_consistency} needs as many replicas, "
                f"not {self.replicas}"
            )
        if self.oversampling is not None and not 1.0 <= self.oversampling <= 100.0:
            raise UsageError(f"oversampling must lie in 1..100, not {self.oversampling}")

    @property
    def candidates_per_hit(self) -> float:
        """The oversampling in force."""
        if self.oversampling is not None:
            return self.oversampling
        return OVERSAMPLING[self.quantization]


def settings_record(settings: ServerSettings) -> dict[str, Any]:
    """The settings as JSON values, to be kept with the collection."""
    return asdict(settings)


def read_server_settings(given: Mapping[str, Any]) -> ServerSettings:
    """The inverse of `settings_record`.

    Raises:
        UsageError: a setting that is unknown, or a value that none can have.
    """
    known = {field.name for field in fields(ServerSettings)}
    if unknown := set(given) - known:
        raise UsageError(f"unknown setting {min(unknown)!r}")
    # JSON has one kind of number: 16 may come back from a server as 16.0.
    whole: dict[str, Any] = {
        name: int(value) if isinstance(value, float) and name != "oversampling" else value
        for name, value in given.items()
    }
    try:
        return ServerSettings(**whole)
    except TypeError as exc:
        raise UsageError(str(exc)) from exc
