"""A collection on a server as a whole: connecting, making it, what is known of it, its alias."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import QdrantClient, models

from ingest.errors import IndexFailedError, ModelMismatchError, UsageError
from search.index_url import IndexUrl, api_key
from search.server_calls import CONNECT_S, ServerCalls
from search.server_requests import create_options, field_indexes
from search.server_settings import ServerSettings, read_server_settings, settings_record

__all__ = [
    "MINIMUM",
    "REQUEST_S",
    "ServerFacts",
    "StrictLimits",
    "check_made_for",
    "check_server",
    "check_version",
    "connect",
    "drop_collection",
    "is_local",
    "make_collection",
    "name_collection",
    "read_facts",
    "write_tuning",
]

MINIMUM = (1, 19)
"""The oldest server that places each part of a collection in memory or on disk as it is told."""

REQUEST_S = 120
"""How long one answer may take: an exact search of a large collection needs its time."""

FORMAT = 1
"""Version of what is kept in a collection's metadata and payloads."""

_KEY = "attrib"
_GRPC_OPTIONS = {
    # Back at once when a node is: left to itself gRPC waits up to two minutes.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 3000,
}


@dataclass(frozen=True)
class StrictLimits:
    """What the collection's strict mode allows; None where it sets no limit.

    Known beforehand, so that attrib stays within it where that costs nothing; what is asked for
    beyond it the server refuses.
    """

    query_limit: int | None = None
    upsert_points: int | None = None
    search_queries: int | None = None
    ef: int | None = None
    oversampling: float | None = None
    allow_exact: bool = True


@dataclass(frozen=True)
class ServerFacts:
    """What a collection says of itself.

    Attributes:
        name: on the server.
        dim: length of a feature.
        settings: that it was made with.
        model: name of the attribution model, for messages.
        fingerprint: feature fingerprint of that model, '' where none was given.
        ef: candidates that `build` found to be needed, 0 before.
        ef_points: size of the collection when it was measured.
        strict: limits of strict mode.
        version: of the server.
    """

    name: str
    dim: int
    settings: ServerSettings
    model: str
    fingerprint: str
    ef: int = 0
    ef_points: int = 0
    strict: StrictLimits = StrictLimits()
    version: str = ""


def connect(url: IndexUrl) -> QdrantClient:
    """A client for that server, with the API key of the environment; nothing is sent yet."""
    with warnings.catch_warnings():
        # A key without TLS is the user's own choice of network, and said in the documentation.
        warnings.simplefilter("ignore")
        return QdrantClient(
            host=url.host if ":" not in url.host else f"[{url.host}]",
            port=url.port,
            grpc_port=url.grpc_port,
            prefer_grpc=bool(url.grpc_port),
            https=url.tls,
            api_key=api_key(),
            timeout=REQUEST_S,
            check_compatibility=False,  # `check_version` does, with an error instead of a warning
            grpc_options=dict(_GRPC_OPTIONS),
        )


def is_local(client: QdrantClient) -> bool:
    """Whether it is qdrant-client's own small stand-in for a server, inside this process."""
    options = client.init_options
    return options.get("location") == ":memory:" or options.get("path") is not None


def check_version(client: QdrantClient, calls: ServerCalls) -> str:
    """The server's version.

    Raises:
        IndexFailedError: nothing answers, it is no Qdrant, or it is too old.
    """
    first = ServerCalls(calls.url, min(CONNECT_S, calls.patience_s))
    version = str(getattr(first("tell its version", client.info), "version", ""))
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found:
        raise IndexFailedError(f"{calls.where} does not say which version of Qdrant it is")
    if (int(found[1]), int(found[2])) < MINIMUM:
        needed = ".".join(map(str, MINIMUM))
        raise IndexFailedError(
            f"{calls.where} is Qdrant {version}; attrib needs {needed} or newer: upgrade the server"
        )
    return version


def check_server(url: IndexUrl, name: str) -> None:
    """Return if a collection of that name can be asked for there, whether or not there is one.

    Raises:
        IndexFailedError: nothing answers, it is no Qdrant, too old, or refuses the key.
    """
    client, calls = connect(url), ServerCalls(url, CONNECT_S)
    try:
        check_version(client, calls)
        calls("look for a collection", client.collection_exists, name)
    finally:
        client.close()


def make_collection(
    client: QdrantClient,
    calls: ServerCalls,
    name: str,
    dim: int,
    settings: ServerSettings,
    model: str,
    fingerprint: str,
) -> None:
    """Make an empty collection, with its payload indexes.

    Raises:
        UsageError: the server has one of that name, or the dimension is out of range.
        IndexFailedError: the server fails.
    """
    if not 1 <= dim <= 65_535:
        raise UsageError(f"features must have 1 to 65535 numbers, not {dim}")
    check_version(client, calls)
    if calls("look for a collection", client.collection_exists, name):
        raise UsageError(f"{calls.where} has a collection {name!r} already; choose another name")
    record = {_KEY: _record(ServerFacts(name, dim, settings, model, fingerprint))}
    options = create_options(dim, settings, record)
    try:
        calls("make a collection", client.create_collection, name, **options)
    except IndexFailedError:
        # A try whose answer was lost makes the next one fail: there is such a collection already.
        if not calls("look for a collection", client.collection_exists, name):
            raise
        made = calls("describe the collection", client.get_collection, name)
        if made.config.metadata != record:
            raise
    if not is_local(client):  # which has no use for them, and warns
        for field, schema in field_indexes(settings):
            calls(
                "index a payload field",
                client.create_payload_index,
                name,
                field_name=field,
                field_schema=schema,
                wait=True,
            )


def read_facts(client: QdrantClient, calls: ServerCalls, name: str) -> ServerFacts:
    """What the collection says of itself.

    Raises:
        IndexFailedError: there is none, attrib did not make it, or the server fails.
    """
    version = check_version(client, calls)
    if not calls("look for a collection", client.collection_exists, name):
        raise IndexFailedError(
            f"{calls.where} has no collection {name!r}; check the address, or restore the "
            "collection from a snapshot"
        )
    config = calls("describe the collection", client.get_collection, name).config
    vectors, record = config.params.vectors, (config.metadata or {}).get(_KEY)
    if not isinstance(vectors, models.VectorParams) or not isinstance(record, Mapping):
        raise _foreign(calls, name, "attrib did not make it")
    if int(record.get("format", 0)) > FORMAT:
        raise IndexFailedError(
            f"the collection {name!r} was made by a newer attrib (format {record['format']}; this "
            f"one reads {FORMAT}); upgrade attrib"
        )
    if vectors.distance != models.Distance.DOT:
        raise _foreign(calls, name, f"its distance is {vectors.distance.value}, not Dot")
    try:
        settings = read_server_settings(record["settings"])
        return ServerFacts(
            name=name,
            dim=int(vectors.size),
            settings=settings,
            model=str(record["model"]),
            fingerprint=str(record["fingerprint"]),
            ef=int(record["ef"]),
            ef_points=int(record["ef_points"]),
            strict=_strict(config.strict_mode_config),
            version=version,
        )
    except (KeyError, TypeError, ValueError, UsageError) as exc:
        raise _foreign(calls, name, f"its metadata is damaged: {exc}") from exc


def check_made_for(
    calls: ServerCalls, facts: ServerFacts, fingerprint: str | None, dim: int | None
) -> None:
    """Refuse a collection of another model or dimension; None stands for any.

    Raises:
        ModelMismatchError: it is of another one.
    """
    if dim is not None and facts.dim != dim:
        raise ModelMismatchError(
            f"the collection {facts.name!r} of {calls.where} has features of {facts.dim} numbers, "
            f"not {dim}"
        )
    if fingerprint is not None and facts.fingerprint != fingerprint:
        raise ModelMismatchError(
            f"the collection {facts.name!r} of {calls.where} was built with {facts.model} "
            f"({facts.fingerprint}), not with the model at hand ({fingerprint})"
        )


def write_tuning(
    client: QdrantClient, calls: ServerCalls, facts: ServerFacts, ef: int, points: int
) -> ServerFacts:
    """Keep what `build` measured with the collection, for every process that opens it."""
    facts = replace(facts, ef=ef, ef_points=points)
    calls(
        "note what was measured",
        client.update_collection,
        facts.name,
        metadata={_KEY: _record(facts)},
    )
    return facts


def name_collection(
    client: QdrantClient, calls: ServerCalls, alias: str, name: str, free: bool
) -> None:
    """Let an alias mean this collection from now on, in one step on the server.

    Raises:
        UsageError: a collection bears that name, or, with `free`, an alias does.
        IndexFailedError: the server fails.
    """
    aliases = calls("list the aliases", client.get_aliases).aliases
    taken = {known.alias_name: known.collection_name for known in aliases}
    if taken.get(alias) == name:
        return
    in_use = (
        free if alias in taken else calls("look for a collection", client.collection_exists, alias)
    )
    if in_use:
        raise UsageError(f"{calls.where} has a collection {alias!r} already; choose another name")
    operations: list[Any] = []
    if alias in taken:
        operations.append(
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        )
    operations.append(
        models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=name, alias_name=alias)
        )
    )
    calls(
        "switch the alias",
        client.update_collection_aliases,
        change_aliases_operations=operations,
    )


def drop_collection(client: QdrantClient, calls: ServerCalls, name: str) -> None:
    """Remove a collection with its aliases; none of that name is no error."""
    if calls("look for a collection", client.collection_exists, name):
        calls("remove a collection", client.delete_collection, name)


def _record(facts: ServerFacts) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "settings": settings_record(facts.settings),
        "model": facts.model,
        "fingerprint": facts.fingerprint,
        "ef": facts.ef,
        "ef_points": facts.ef_points,
    }


def _strict(config: Any) -> StrictLimits:  # noqa: ANN401  # the vendor has two classes for it
    if config is None or not config.enabled:
        return StrictLimits()
    return StrictLimits(
        query_limit=config.max_query_limit,
        upsert_points=config.upsert_max_batchsize,
        search_queries=config.search_max_batchsize,
        ef=config.search_max_hnsw_ef,
        oversampling=config.search_max_oversampling,
        allow_exact=config.search_allow_exact is not False,
    )


def _foreign(calls: ServerCalls, name: str, why: str) -> IndexFailedError:
    return IndexFailedError(
        f"the collection {name!r} of {calls.where} will not do: {why}; choose another one"
    )
