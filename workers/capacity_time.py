"""How long a planned ingest takes, and what a query costs."""

from __future__ import annotations

import math

from search.edge_settings import EdgeSettings
from workers.capacity_plan import Figure, Hardware, Workload
from workers.capacity_sources import COEFFICIENTS, Coefficient

__all__ = ["ingest", "query"]

_HOUR_S = 3600


def ingest(work: Workload, on: Hardware, known: dict[str, float]) -> list[Figure]:
    """Ingest shards, GPU-hours, and the seconds of every stage; `known`: the figures of nodes."""
    images = f"{work.images:.4g} images"
    upload, indexing = COEFFICIENTS["upload"], COEFFICIENTS["indexing"]
    per_node = known["nodes.points"]
    longer, denser = COEFFICIENTS["run_dim"], COEFFICIENTS["run_m"]
    by_dim, by_m = max(1.0, work.dim / longer.value), max(1.0, work.m / denser.value)
    upload_s = per_node / (upload.value * on.node_cores) * by_dim
    index_s = per_node / (indexing.value * on.node_cores) * by_dim * by_m
    tasks = Figure(
        "ingest.shards",
        "ingest shards",
        math.ceil(work.images / work.shard_size),
        "shards",
        f"{images} / {work.shard_size}",
    )
    later = [
        Figure(
            "ingest.upload",
            "upload",
            upload_s,
            "s",
            f"{per_node:.4g} points / ({upload.value:g} x {on.node_cores} cores) x {by_dim:.3g}",
            (upload, longer),
        ),
        Figure(
            "ingest.indexing",
            "building the graphs",
            index_s,
            "s",
            f"{per_node:.4g} points / ({indexing.value:g} x {on.node_cores} cores) x {by_dim:.3g} "
            f"x {by_m:.3g}",
            (indexing, longer, denser),
        ),
    ]
    if on.rate is None:
        missing = "needs the images/s of a device: give --gpu or --images-per-second"
        return [
            tasks,
            Figure("ingest.gpu_hours", "GPU-hours", None, "hours", missing),
            Figure("ingest.embedding", "embedding", None, "s", missing),
            *later,
            Figure("ingest.total", "the whole ingest", None, "s", missing),
        ]
    overlap, decoding = COEFFICIENTS["overlap"], COEFFICIENTS["decoding"]
    rate, share = on.rate.value, ""
    basis: tuple[Coefficient, ...] = (on.rate,)
    if on.rate.basis != "given":  # a rate that was given is that of the whole pipeline
        rate, share, basis = rate * overlap.value, f" x {overlap.value:g}", (on.rate, overlap)
    embed_s = work.images / (rate * on.gpus)
    return [
        tasks,
        Figure(
            "ingest.gpu_hours",
            "GPU-hours",
            work.images / rate / _HOUR_S,
            "hours",
            f"{images} / ({on.rate.value:g} images/s{share}) / {_HOUR_S}",
            basis,
        ),
        Figure(
            "ingest.decoding_cores",
            "cores that decode, a GPU",
            math.ceil(rate / decoding.value),
            "cores",
            f"{rate:.4g} images/s / {decoding.value:g}",
            (decoding,),
        ),
        Figure(
            "ingest.embedding",
            "embedding",
            embed_s,
            "s",
            f"GPU-hours / {on.gpus} GPU" + ("s" if on.gpus > 1 else ""),
        ),
        *later,
        Figure(
            "ingest.total",
            "the whole ingest",
            max(embed_s, upload_s) + index_s,
            "s",
            "the longer of embedding and upload, which go together; then the graphs; "
            "downloads of images are not counted",
        ),
    ]


def query(work: Workload, on: Hardware, known: dict[str, float]) -> list[Figure]:
    """What one complete answer costs, and how long it takes; `known`: the figures of nodes."""
    support = COEFFICIENTS["support"]
    limit = int(support.value)
    candidates = math.ceil(limit * EdgeSettings(quantization=work.quantization).candidates_per_hit)
    # As search/edge_shard.py and search/server_search.py widen the graph search.
    ef = max(128, 4 * (limit - 32), candidates)
    graphs, cores = known["nodes.graphs"], on.node_cores
    nodes = known["nodes.count"]
    everywhere = math.ceil(graphs * nodes / work.replicas)
    reads = 0 if work.quantization == "none" else candidates * graphs
    graph_ms, disk_ms, read_ms = (
        COEFFICIENTS[name] for name in ("graph_ms", "graph_disk_ms", "read_ms")
    )
    rounds = graphs / min(cores, graphs)
    return [
        Figure(
            "query.comparisons",
            "comparisons, at most",
            everywhere * ef * 2 * work.m,
            "comparisons",
            f"{everywhere} graphs x ef {ef} x 2 x m {work.m}, of codes",
            (support,),
        ),
        Figure(
            "query.reads",
            "vectors read, a node, at most",
            reads,
            "vectors",
            f"{candidates} candidates x {graphs:g} graphs: each one compares its own again"
            if reads
            else "none beside those in memory",
            (support,),
        ),
        Figure(
            "query.warm",
            "latency, all in memory, at least",
            rounds * graph_ms.value / 1e3,
            "s",
            f"{graphs:g} graphs / {min(cores, graphs):g} cores x {graph_ms.value:g} ms",
            (graph_ms,),
        ),
        Figure(
            "query.cold",
            "latency, vectors on disk",
            (rounds * disk_ms.value + reads * read_ms.value) / 1e3,
            "s",
            f"{rounds:.3g} graphs a core x {disk_ms.value:g} ms + {reads:g} x {read_ms.value:g} ms",
            (disk_ms, read_ms),
        ),
    ]
