"""What a training set of a given size takes: memory, disk, nodes, hours of GPUs, cost of a query.

Pure arithmetic: every figure carries its formula with the numbers put in and the coefficients that
it rests on, each with where it comes from.
"""

from __future__ import annotations

from workers import capacity_storage, capacity_time
from workers.capacity_plan import GIB, CapacityPlan, Figure, Hardware, Workload

__all__ = ["GIB", "CapacityPlan", "Figure", "Hardware", "Workload", "plan_capacity"]


def plan_capacity(work: Workload, on: Hardware) -> CapacityPlan:
    """The whole plan.

    Raises:
        UsageError: a node's disk that cannot hold even one segment.
    """
    memory = capacity_storage.memory(work)
    disk = capacity_storage.disk(work)
    nodes = capacity_storage.nodes(work, on, memory, disk)
    known = {figure.name: figure.value or 0.0 for figure in nodes}
    return CapacityPlan(
        (
            *memory,
            *disk,
            *nodes,
            *capacity_time.ingest(work, on, known),
            *capacity_time.query(work, on, known),
        )
    )
