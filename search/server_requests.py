"""Settings, filters and points in the terms of `qdrant-client`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from search.chosen import Chosen
from search.index import INDEXED_FIELDS, Features, Payload
from search.sample import keys_from_bytes, places
from search.server_settings import ServerSettings

__all__ = [
    "PLACE",
    "build_options",
    "condition",
    "create_options",
    "field_indexes",
    "grpc_points",
    "place_of",
    "request_parts",
    "rest_points",
    "search_params",
]

PLACE = "sample_place"
"""Payload field with a point's place in the order that the uniform sample is taken from."""

_REQUEST_BYTES = 8 * 1024 * 1024  # the server takes 32 MB; more a request is no faster
_REQUEST_POINTS = 2000
_JSON_NUMBER_BYTES = 22  # a float32 written as a decimal
_POINT_BYTES = 200  # id, field names, envelope


def create_options(dim: int, settings: ServerSettings, metadata: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Arguments of `create_collection`: laid out for loading, without links between points."""
    memory = models.Memory
    number_bytes = 2 if settings.datatype == "float16" else 4
    return {
        "vectors_config": models.VectorParams(
            size=dim,
            # Features are normalised already: the inner product is the cosine, and vectors come
            # back as they went in.
            distance=models.Distance.DOT,
            datatype=models.Datatype(settings.datatype),
            memory=memory(settings.vectors),
        ),
        "hnsw_config": models.HnswConfigDiff(
            m=0,
            payload_m=0,
            ef_construct=settings.ef_construct,
            max_indexing_threads=settings.index_threads,
            memory=memory(settings.graph),
        ),
        "quantization_config": _quantization(settings),
        "optimizers_config": models.OptimizersConfigDiff(
            indexing_threshold=max(1, settings.index_above * dim * number_bytes // 1024),
        ),
        "payload": models.PayloadStorageParams(memory=memory(settings.payloads)),
        "shard_number": settings.shards or None,
        "replication_factor": settings.replicas,
        "write_consistency_factor": settings.write_consistency,
        "metadata": dict(metadata),
    }


def build_options(settings: ServerSettings) -> Any:  # noqa: ANN401
    """Arguments of `update_collection` that have the graph built."""
    return {"hnsw_config": models.HnswConfigDiff(m=settings.m, payload_m=0)}


def field_indexes(settings: ServerSettings) -> Iterator[tuple[str, Any]]:
    """Payload fields to be indexed before points come, with the parameters of each."""
    memory = models.Memory(settings.fields)
    for field in INDEXED_FIELDS:
        # Links within every value of a field would be paid for in vain: filters that the graph
        # would serve badly are answered exactly instead.
        yield (
            field,
            models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, enable_hnsw=False, memory=memory
            ),
        )
    yield (
        PLACE,
        models.IntegerIndexParams(
            type=models.IntegerIndexType.INTEGER,
            lookup=False,
            range=True,
            enable_hnsw=False,
            memory=memory,
        ),
    )


def search_params(settings: ServerSettings, ef: int, exact: bool, filtered: bool) -> Any:  # noqa: ANN401
    """How one search is to be done."""
    quantization = None
    if settings.quantization != "none":
        quantization = models.QuantizationSearchParams(
            rescore=True, oversampling=settings.candidates_per_hit
        )
    return models.SearchParams(
        hnsw_ef=ef,
        exact=exact,
        quantization=quantization,
        # Keeps a filtered walk through the graph from getting stuck between points that match.
        acorn=models.AcornSearchParams(enable=True) if filtered and not exact else None,
    )


def condition(chosen: Chosen) -> Any:  # noqa: ANN401
    """A filter, None for no restriction."""
    if not chosen:
        return None
    # What is left out is a filter of its own: a point goes only if it matches in every field.
    left_out: Any = [models.Filter(must=_fields(chosen.without))] if chosen.without else None
    return models.Filter(must=_fields(chosen.where) or None, must_not=left_out)


def place_of(packed: bytes) -> NDArray[np.int64]:
    """(ids,): places of ids laid end to end, shortened to what a signed integer holds.

    Their order is that of `search.sample.places`, so that every backend has the same sample.
    """
    return (places(keys_from_bytes(packed)) >> np.uint64(1)).astype(np.int64)


def request_parts(
    payload_bytes: Sequence[int], dim: int, binary: bool, most: int | None
) -> Iterator[slice]:
    """Cut points into requests of bounded size; `payload_bytes` of each, `most` points at once."""
    vector_bytes = dim * (4 if binary else _JSON_NUMBER_BYTES) + _POINT_BYTES
    limit = min(most or _REQUEST_POINTS, _REQUEST_POINTS)
    start, size = 0, 0
    for at, payload in enumerate(payload_bytes):
        one = payload + vector_bytes
        if at > start and (size + one > _REQUEST_BYTES or at - start >= limit):
            yield slice(start, at)
            start, size = at, 0
        size += one
    if start < len(payload_bytes):
        yield slice(start, len(payload_bytes))


def rest_points(
    ids: Sequence[UUID], rows: Features, payloads: Sequence[Payload], at: NDArray[np.int64]
) -> Any:  # noqa: ANN401
    """Points of one request as JSON will carry them."""
    return models.Batch(
        ids=[str(uuid) for uuid in ids],
        vectors=rows.tolist(),
        payloads=[
            {**payload, PLACE: place} for payload, place in zip(payloads, at.tolist(), strict=True)
        ],
    )


def grpc_points(
    ids: Sequence[UUID], rows: Features, payloads: Sequence[Payload], at: NDArray[np.int64]
) -> Any:  # noqa: ANN401
    """The same as messages, whose numbers are the rows' own bytes: no Python list is made."""
    little = rows.astype("<f4", copy=False)
    prefix = _float_prefix(rows.shape[1])
    points = []
    for uuid, row, payload, place in zip(ids, little, payloads, at.tolist(), strict=True):
        vectors = grpc.Vectors()
        vectors.vector.dense.MergeFromString(prefix + row.tobytes())
        points.append(
            grpc.PointStruct(
                id=grpc.PointId(uuid=str(uuid)),
                vectors=vectors,
                payload=RestToGrpc.convert_payload({**payload, PLACE: place}),
            )
        )
    return points


def _fields(where: Mapping[str, Sequence[str]]) -> list[Any]:
    return [
        models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        for field, values in where.items()
    ]


def _float_prefix(dim: int) -> bytes:
    """What protobuf writes before the numbers of a `DenseVector`: its first field, packed."""
    length, out = 4 * dim, bytearray([0x0A])
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def _quantization(settings: ServerSettings) -> Any:  # noqa: ANN401  # a union of vendor classes
    memory = models.Memory(settings.codes)
    if settings.quantization == "none":
        return None
    if settings.quantization == "int8":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, memory=memory)
        )
    if settings.quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(memory=memory))
    sizes = models.TurboQuantBitSize
    bits = {"turbo4": sizes.BITS4, "turbo2": sizes.BITS2, "turbo1": sizes.BITS1}
    return models.TurboQuantization(
        turbo=models.TurboQuantQuantizationConfig(bits=bits[settings.quantization], memory=memory)
    )
