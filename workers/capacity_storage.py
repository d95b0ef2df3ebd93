"""Memory, disk and nodes of a planned index, and its feature shards.

The model of the memory is that of Qdrant's own account of 400 million LAION vectors: codes, links
of the graph, ids. It reproduces that account (docs/scale.md).
"""

from __future__ import annotations

import math

from ingest.errors import UsageError
from workers.capacity_plan import GIB, NUMBER_BYTES, Figure, Hardware, Workload
from workers.capacity_sources import CODE_BITS, COEFFICIENTS, Coefficient

__all__ = ["disk", "memory", "nodes"]


def memory(work: Workload) -> list[Figure]:
    """RAM of the index over all replicas, by part."""
    points = work.images * work.replicas
    of = f"{points:.4g} points"
    if work.quantization == "none":
        each: float = work.dim * NUMBER_BYTES[work.datatype]
        codes = Figure(
            "ram.codes",
            "vectors",
            points * each,
            "bytes",
            f"{of} x {work.dim} x {NUMBER_BYTES[work.datatype]} bytes; the page cache has them",
        )
    else:
        extra = COEFFICIENTS[f"code_{work.quantization}"]
        bits = CODE_BITS[work.quantization]
        each = work.dim * bits / 8 + extra.value
        codes = Figure(
            "ram.codes",
            f"{work.quantization} codes",
            points * each,
            "bytes",
            f"{of} x ({work.dim} x {bits:g} / 8 + {extra.value:g}) bytes",
            (extra,),
        )
    link, id_ = COEFFICIENTS["link"], _id_coefficient(work)
    graph = Figure(
        "ram.graph",
        "graph",
        points * 2 * work.m * link.value,
        "bytes",
        f"{of} x 2 x m {work.m} x {link.value:g} bytes; the page cache has it",
        (link,),
    )
    ids = Figure(
        "ram.ids",
        "ids and versions",
        points * id_.value,
        "bytes",
        f"{of} x {id_.value:g} bytes",
        (id_,),
    )
    parts = [codes, graph, ids]
    if work.filters:
        parts.append(_field_indexes("ram.fields", points, of, "; the page cache has them"))
    return [*parts, _total("ram", "RAM, all replicas", parts)]


def disk(work: Workload) -> list[Figure]:
    """Disk of the index over all replicas, by part; feature shards and thumbnails once."""
    points = work.images * work.replicas
    of = f"{points:.4g} points"
    number = NUMBER_BYTES[work.datatype]
    own, listed = COEFFICIENTS["own_payload"], COEFFICIENTS["list_payload"]
    payload, text = own.value + listed.value, f"({listed.value:g} + {own.value:g})"
    basis: tuple[Coefficient, ...] = (listed, own)
    if work.payload_bytes is not None:
        payload, basis, text = work.payload_bytes, (), f"{work.payload_bytes:g}"
    parts = [
        Figure(
            "disk.vectors",
            "vectors",
            float(points * work.dim * number),
            "bytes",
            f"{of} x {work.dim} x {number} bytes",
        ),
        Figure(
            "disk.payloads", "payloads", points * payload, "bytes", f"{of} x {text} bytes", basis
        ),
    ]
    parts.append(_field_indexes("disk.fields", points, of, ""))
    parts.append(_same(work, "disk.search", "codes, graph, ids"))
    index = _total("disk", "disk of the index, all replicas", parts)
    metadata, thumbnail = COEFFICIENTS["metadata"], COEFFICIENTS["thumbnail"]
    each = 2 * work.base_dim + metadata.value
    shards = Figure(
        "disk.features",
        "feature shards, once",
        work.images * each,
        "bytes",
        f"{work.images:.4g} images x ({work.base_dim} x 2 + {metadata.value:g}) bytes",
        (metadata,),
    )
    pictures = Figure(
        "disk.thumbnails",
        "thumbnails, once",
        work.images * thumbnail.value if work.thumbnails else 0.0,
        "bytes",
        f"{work.images:.4g} images x {thumbnail.value:g} bytes" if work.thumbnails else "none kept",
        (thumbnail,) if work.thumbnails else (),
    )
    ledger = Figure(
        "disk.ledger",
        "ledger, once",
        work.images * COEFFICIENTS["ledger"].value,
        "bytes",
        f"{work.images:.4g} images x {COEFFICIENTS['ledger'].value:g} bytes",
        (COEFFICIENTS["ledger"],),
    )
    return [*parts, index, shards, pictures, ledger]


def nodes(work: Workload, on: Hardware, ram: list[Figure], space: list[Figure]) -> list[Figure]:
    """How many nodes, and what each one holds; from the figures of `memory` and `disk`.

    Raises:
        UsageError: a node's disk that cannot hold even one segment.
    """
    system, merging = COEFFICIENTS["system"], COEFFICIENTS["merging"]
    ram_bytes, disk_bytes = _sum(ram, "ram.total"), _sum(space, "disk.total")
    points = work.images * work.replicas
    segment, segment_basis = _segment_bytes(on)
    per_segment = max(1, int(segment // (work.dim * NUMBER_BYTES[work.datatype])))
    free = on.node_ram_gib * GIB - system.value
    by_ram = math.ceil(ram_bytes / free)
    text = f"{ram_bytes:.4g} / ({on.node_ram_gib:g} GiB - {system.value:.3g}) = {by_ram} for memory"
    needed = by_ram
    room = merging.value * min(per_segment, points) * disk_bytes / points
    if on.node_disk_gib is not None:
        spare = on.node_disk_gib * GIB - room
        if spare <= 0:
            raise UsageError(
                f"a node's disk of {on.node_disk_gib:g} GiB holds not even the "
                f"{room / GIB:.1f} GiB that merging a segment takes"
            )
        by_disk = math.ceil(disk_bytes / spare)
        text += f"; {disk_bytes:.4g} / ({on.node_disk_gib:g} GiB - {room:.3g}) = {by_disk} for disk"
        needed = max(needed, by_disk)
    # A whole number of nodes for each copy, so that copies can stand in zones of their own.
    count = work.replicas * math.ceil(needed / work.replicas)
    per_node = math.ceil(points / count)
    graphs = max(1, math.ceil(per_node / per_segment))
    shards = COEFFICIENTS["shards"]
    index_shards = math.ceil(shards.value * count / work.replicas)
    return [
        Figure(
            "nodes.count",
            "nodes",
            count,
            "nodes",
            text + (f"; up to a multiple of {work.replicas} replicas" if work.replicas > 1 else ""),
            (system, merging) if on.node_disk_gib is not None else (system,),
        ),
        Figure(
            "nodes.ram",
            "RAM of a node in use",
            ram_bytes / count + system.value,
            "bytes",
            f"{ram_bytes:.4g} / {count} + {system.value:.3g}",
            (system,),
        ),
        Figure(
            "nodes.disk",
            "disk of a node in use",
            disk_bytes / count + room,
            "bytes",
            f"{disk_bytes:.4g} / {count} + {room:.3g} while a segment is merged",
            (merging,),
        ),
        Figure(
            "nodes.points",
            "points of a node",
            per_node,
            "points",
            f"{points:.4g} / {count}",
        ),
        Figure(
            "nodes.graphs",
            "graphs of a node",
            graphs,
            "graphs",
            f"{per_node:.4g} / ({segment:.4g} bytes of vectors a segment: {per_segment:.4g})",
            segment_basis,
        ),
        Figure(
            "nodes.shards",
            "index shards",
            index_shards,
            "shards",
            f"{shards.value:g} x {count} / {work.replicas}",
            (shards,),
        ),
    ]


def _same(work: Workload, name: str, title: str) -> Figure:
    """What lies in memory and on disk alike."""
    points = work.images * work.replicas
    code = 0.0
    if work.quantization != "none":
        code = (
            work.dim * CODE_BITS[work.quantization] / 8
            + COEFFICIENTS[f"code_{work.quantization}"].value
        )
    link, id_ = COEFFICIENTS["link"], _id_coefficient(work)
    each = code + 2 * work.m * link.value + id_.value
    return Figure(
        name,
        title,
        points * each,
        "bytes",
        f"{points:.4g} points x ({code:g} + {2 * work.m * link.value:g} + {id_.value:g}) bytes",
        (link, id_),
    )


def _field_indexes(name: str, points: int, of: str, where: str) -> Figure:
    coefficient = COEFFICIENTS["field_index"]
    return Figure(
        name,
        "field indexes",
        points * coefficient.value,
        "bytes",
        f"{of} x {coefficient.value:g} bytes{where}",
        (coefficient,),
    )


def _id_coefficient(work: Workload) -> Coefficient:
    return COEFFICIENTS["id" if work.ids == "uuid" else "number_id"]


def _segment_bytes(on: Hardware) -> tuple[float, tuple[Coefficient, ...]]:
    if on.max_segment_kib is not None:
        return float(on.max_segment_kib * 1024), ()
    segment = COEFFICIENTS["segment"]
    return segment.value * on.node_cores, (segment,)


def _total(group: str, title: str, parts: list[Figure]) -> Figure:
    value = sum(part.value or 0.0 for part in parts)
    return Figure(f"{group}.total", title, value, "bytes", "the sum of the above")


def _sum(figures: list[Figure], name: str) -> float:
    return next(f.value or 0.0 for f in figures if f.name == name)
