"""A plan in words: the training set, the hardware, and figures with their formulas."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from ingest.errors import UsageError
from search.edge_settings import Quantization
from workers.capacity_sources import COEFFICIENTS, Coefficient

__all__ = ["GIB", "NUMBER_BYTES", "CapacityPlan", "Figure", "Hardware", "Workload"]

GIB = 2**30

NUMBER_BYTES = {"float16": 2, "float32": 4}
"""Bytes of one number of a vector."""


@dataclass(frozen=True)
class Workload:
    """A training set and how its index is to keep it.

    Attributes:
        images: training images.
        dim: numbers of a feature in the index.
        base_dim: numbers of a base feature, which the feature shards keep.
        quantization: code of the vectors in memory; none keeps the vectors themselves there.
        datatype: of the vectors in the index.
        m: links of a point in the graph; the lowest layer has twice as many.
        replicas: copies of the index.
        payload_bytes: of a point; None: a LAION list's fields and attrib's own.
        ids: attrib's ids are UUIDs; numbers are for comparisons with other people's collections.
        filters: whether memory is to hold the indexes of the fields that filters name; they are
            on disk in any case.
        thumbnails: whether feature shards keep them.
        shard_size: images of an ingest shard.

    Raises:
        UsageError: a value that none can have.
    """

    images: int
    dim: int
    base_dim: int
    quantization: Quantization = "turbo4"
    datatype: Literal["float16", "float32"] = "float16"
    m: int = 16
    replicas: int = 1
    payload_bytes: float | None = None
    ids: Literal["uuid", "number"] = "uuid"
    filters: bool = True
    thumbnails: bool = True
    shard_size: int = 1024

    def __post_init__(self) -> None:
        if self.quantization not in get_args(Quantization):
            raise UsageError(
                f"no quantization {self.quantization!r}; choose one of "
                + ", ".join(get_args(Quantization))
            )
        if self.datatype not in NUMBER_BYTES:
            raise UsageError(f"no datatype {self.datatype!r}; choose float16 or float32")
        _at_least_one(
            images=self.images,
            dim=self.dim,
            base_dim=self.base_dim,
            m=self.m,
            replicas=self.replicas,
            shard_size=self.shard_size,
        )
        if self.payload_bytes is not None and not 0 <= self.payload_bytes < math.inf:
            raise UsageError(f"payload_bytes must not be negative, not {self.payload_bytes:g}")


@dataclass(frozen=True)
class Hardware:
    """What it is to run on.

    Attributes:
        node_ram_gib: memory of a node of the index.
        node_disk_gib: its disk; None: as much as it takes.
        node_cores: its cores.
        gpus: devices that embed.
        rate: images/s of one device; None: not known.
        max_segment_kib: the server's `max_segment_size`; None: its default.

    Raises:
        UsageError: a value that none can have; a node that holds less than the system takes.
    """

    node_ram_gib: float = 64
    node_disk_gib: float | None = None
    node_cores: int = 8
    gpus: int = 1
    rate: Coefficient | None = None
    max_segment_kib: int | None = None

    def __post_init__(self) -> None:
        _at_least_one(node_cores=self.node_cores, gpus=self.gpus)
        if self.max_segment_kib is not None:
            _at_least_one(max_segment_kib=self.max_segment_kib)
        system = COEFFICIENTS["system"].value
        if not system < self.node_ram_gib * GIB < math.inf:
            raise UsageError(
                f"node_ram_gib must be above {system / GIB:.1f}, which the system takes, "
                f"not {self.node_ram_gib:g}"
            )
        if self.node_disk_gib is not None and not 0 < self.node_disk_gib < math.inf:
            raise UsageError(f"node_disk_gib must be above 0, not {self.node_disk_gib:g}")
        if self.rate is not None and not 0 < self.rate.value < math.inf:
            raise UsageError(f"images_per_second must be above 0, not {self.rate.value:g}")


@dataclass(frozen=True)
class Figure:
    """One line of a plan.

    Attributes:
        name: `group.what`, for programs.
        title: for people.
        value: in `unit`; None where a coefficient is missing, and `formula` says which.
        unit: bytes, s, hours, or what is counted.
        formula: with the numbers put in.
        rests_on: coefficients it uses itself; what it takes from other figures rests on theirs.
    """

    name: str
    title: str
    value: float | None
    unit: str
    formula: str
    rests_on: tuple[Coefficient, ...] = ()


class CapacityPlan:
    """Figures in the order in which they are to be read."""

    def __init__(self, figures: Iterable[Figure]) -> None:
        self.figures = tuple(figures)
        self._by_name = {figure.name: figure for figure in self.figures}

    def __getitem__(self, name: str) -> Figure:
        return self._by_name[name]

    def value(self, name: str) -> float:
        """The value of a figure that is known.

        Raises:
            UsageError: it is not.
        """
        value = self._by_name[name].value
        if value is None:
            raise UsageError(f"{name} is not known: {self._by_name[name].formula}")
        return value

    def coefficients(self) -> tuple[Coefficient, ...]:
        """Each one once, in the order of its first use."""
        used = {c.name: c for figure in self.figures for c in figure.rests_on}
        return tuple(used.values())


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")
