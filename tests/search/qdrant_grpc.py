"""The gRPC interface of the Qdrant stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc as grpc_library
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_engine import Engine, Fault

ERRORS = {
    400: grpc_library.StatusCode.INVALID_ARGUMENT,
    401: grpc_library.StatusCode.UNAUTHENTICATED,
    403: grpc_library.StatusCode.PERMISSION_DENIED,
    404: grpc_library.StatusCode.NOT_FOUND,
    409: grpc_library.StatusCode.ALREADY_EXISTS,
    429: grpc_library.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc_library.StatusCode.INTERNAL,
    503: grpc_library.StatusCode.UNAVAILABLE,
    507: grpc_library.StatusCode.RESOURCE_EXHAUSTED,
}


class _Front:
    """What the gRPC services share."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def answer(self, name: str, context: Any, handle: Callable[[], Any]) -> Any:
        key = dict(context.invocation_metadata()).get("api-key")
        try:
            with self.engine.lock:
                self.engine.enter(name, key)
                return handle()
        except Fault as fault:
            after = fault.headers.get("Retry-After")
            if after:
                context.set_trailing_metadata((("retry-after", after),))
            context.abort(ERRORS[fault.status], fault.said)


class RootService(_Front, grpc.QdrantServicer):  # type: ignore[misc,name-defined]
    def HealthCheck(self, request: Any, context: Any) -> Any:  # noqa: N802
        reply = grpc.HealthCheckReply(title="qdrant", version=self.engine.version)
        return self.answer("version", context, lambda: reply)


class CollectionsService(_Front, grpc.CollectionsServicer):  # type: ignore[misc,name-defined]
    def _done(self, name: str, context: Any, handle: Callable[[], Any]) -> Any:
        return self.answer(
            name, context, lambda: grpc.CollectionOperationResponse(result=bool(handle()))
        )

    def CollectionExists(self, request: Any, context: Any) -> Any:  # noqa: N802
        def handle() -> Any:
            exists = self.engine.client.collection_exists(request.collection_name)
            return grpc.CollectionExistsResponse(result=grpc.CollectionExists(exists=exists))

        return self.answer("exists", context, handle)

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        asked = models.CreateCollection(
            vectors=GrpcToRest.convert_vectors_config(request.vectors_config),
            hnsw_config=GrpcToRest.convert_hnsw_config_diff(request.hnsw_config),
            quantization_config=GrpcToRest.convert_quantization_config(request.quantization_config)
            if request.HasField("quantization_config")
            else None,
            shard_number=request.shard_number or None,
            replication_factor=request.replication_factor or None,
            write_consistency_factor=request.write_consistency_factor or None,
            metadata=GrpcToRest.convert_payload(request.metadata),
        )
        name = request.collection_name
        return self._done("create", context, lambda: self.engine.create(name, asked))

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        asked = models.UpdateCollection(
            hnsw_config=GrpcToRest.convert_hnsw_config_diff(request.hnsw_config)
            if request.HasField("hnsw_config")
            else None,
            metadata=GrpcToRest.convert_payload(request.metadata) or None,
        )
        name = request.collection_name
        return self._done("update", context, lambda: self.engine.update(name, asked))

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        def handle() -> Any:
            info = self.engine.describe(request.collection_name)
            return grpc.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

        return self.answer("describe", context, handle)

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._done("drop", context, lambda: self.engine.drop(request.collection_name))

    def UpdateAliases(self, request: Any, context: Any) -> Any:  # noqa: N802
        operations = [GrpcToRest.convert_alias_operations(action) for action in request.actions]
        client = self.engine.client
        return self._done("alias", context, lambda: client.update_collection_aliases(operations))

    def ListAliases(self, request: Any, context: Any) -> Any:  # noqa: N802
        def handle() -> Any:
            known = self.engine.client.get_aliases().aliases
            return grpc.ListAliasesResponse(
                aliases=[RestToGrpc.convert_alias_description(alias) for alias in known]
            )

        return self.answer("aliases", context, handle)


class PointsService(_Front, grpc.PointsServicer):  # type: ignore[misc,name-defined]
    def _done(self, name: str, context: Any, handle: Callable[[], Any]) -> Any:
        def carried_out() -> Any:
            handle()
            status = grpc.UpdateStatus.Completed
            return grpc.PointsOperationResponse(result=grpc.UpdateResult(status=status))

        return self.answer(name, context, carried_out)

    def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        name = request.collection_name
        return self._done("upsert", context, lambda: self.engine.upsert(name, points))

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        chosen = GrpcToRest.convert_points_selector(request.points)
        name, client = request.collection_name, self.engine.client
        return self._done("delete", context, lambda: client.delete(name, points_selector=chosen))

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        schema = str(request.field_index_params)
        name, index = request.collection_name, self.engine.index
        return self._done("index", context, lambda: index(name, request.field_name, schema))

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        def handle() -> Any:
            records = self.engine.client.retrieve(
                request.collection_name,
                [GrpcToRest.convert_point_id(point) for point in request.ids],
                GrpcToRest.convert_with_payload_interface(request.with_payload),
                GrpcToRest.convert_with_vectors_selector(request.with_vectors),
            )
            return grpc.GetResponse(result=[_record(one) for one in records])

        return self.answer("retrieve", context, handle)

    def Scroll(self, request: Any, context: Any) -> Any:  # noqa: N802
        asked = models.ScrollRequest(
            limit=request.limit,
            filter=_filter(request),
            offset=GrpcToRest.convert_point_id(request.offset)
            if request.HasField("offset")
            else None,
            order_by=GrpcToRest.convert_order_by(request.order_by)
            if request.HasField("order_by")
            else None,
            with_payload=GrpcToRest.convert_with_payload_interface(request.with_payload),
            with_vector=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )

        def handle() -> Any:
            records, following = self.engine.scroll(request.collection_name, asked)
            after = None if following is None else RestToGrpc.convert_extended_point_id(following)
            return grpc.ScrollResponse(
                result=[_record(one) for one in records], next_page_offset=after
            )

        return self.answer("scroll", context, handle)

    def Count(self, request: Any, context: Any) -> Any:  # noqa: N802
        def handle() -> Any:
            found = self.engine.client.count(request.collection_name, _filter(request), exact=True)
            return grpc.CountResponse(result=grpc.CountResult(count=int(found.count)))

        return self.answer("count", context, handle)

    def Facet(self, request: Any, context: Any) -> Any:  # noqa: N802
        def handle() -> Any:
            found = self.engine.client.facet(
                request.collection_name, key=request.key, limit=request.limit
            )
            hits = [RestToGrpc.convert_facet_value_hit(hit) for hit in found.hits]
            return grpc.FacetResponse(hits=hits)

        return self.answer("facet", context, handle)

    def QueryBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        asked = [
            models.QueryRequest(
                query=GrpcToRest.convert_query(one.query),
                filter=_filter(one),
                params=GrpcToRest.convert_search_params(one.params),
                limit=one.limit,
                with_payload=False,
                with_vector=False,
            )
            for one in request.query_points
        ]

        def handle() -> Any:
            return grpc.QueryBatchResponse(
                result=[
                    grpc.BatchResult(
                        result=[RestToGrpc.convert_scored_point(point) for point in answer.points]
                    )
                    for answer in self.engine.query(request.collection_name, asked)
                ]
            )

        return self.answer("query", context, handle)


def _filter(request: Any) -> Any:
    return GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None


def _record(record: models.Record) -> Any:
    record.payload = record.payload or {}  # the conversion takes no payload for an error
    return RestToGrpc.convert_record(record)
