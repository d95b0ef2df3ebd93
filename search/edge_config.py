"""The settings of an embedded index in Edge's own terms."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from search.edge_settings import EdgeSettings

__all__ = ["shard_config"]


def shard_config(dim: int, settings: EdgeSettings) -> edge.EdgeConfig:
    """How Edge is to keep vectors, graph, quantized codes and payloads."""
    memory = edge.Memory
    datatype = edge.VectorStorageDatatype
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(
            dim,
            # Features are normalised already: the inner product is the cosine, and vectors come
            # back bit for bit as they went in.
            edge.Distance.Dot,
            datatype=datatype.Float16 if settings.datatype == "float16" else datatype.Float32,
            memory=memory.Cold if settings.vectors_on_disk else memory.Cached,
        ),
        hnsw_config=edge.HnswIndexConfig(
            m=settings.m,
            ef_construct=settings.ef_construct,
            full_scan_threshold=10_000,
            max_indexing_threads=settings.index_threads,
            payload_m=0,
            memory=memory.Cached,
        ),
        quantization_config=_quantization(settings),
        optimizers=edge.EdgeOptimizersConfig(
            indexing_threshold=max(1, settings.index_above * dim * 4 // 1024),
        ),
        max_search_threads=settings.search_threads or None,
        wal_enabled=True,
    )


def _quantization(settings: EdgeSettings) -> Any:  # noqa: ANN401  # a union of vendor classes
    memory = edge.Memory.Pinned if settings.quantized_in_ram else edge.Memory.Cached
    if settings.quantization == "none":
        return None
    if settings.quantization == "int8":
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, memory=memory)
    if settings.quantization == "binary":
        return edge.BinaryQuantizationConfig(memory=memory)
    sizes = edge.TurboQuantBitSize
    bits = {"turbo4": sizes.Bits4, "turbo2": sizes.Bits2, "turbo1": sizes.Bits1}
    return edge.TurboQuantQuantizationConfig(bits=bits[settings.quantization], memory=memory)
