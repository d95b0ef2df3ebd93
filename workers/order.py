"""A task: a shard that is sent to whoever is free, with all that one has to know to do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingest.storage import Location, location
from workers.shard_spec import ShardSpec, load_spec, unpack

__all__ = ["Order", "read_order", "write_order"]


@dataclass(frozen=True)
class Order:
    """One sending of a shard.

    Attributes:
        plan: of the data folder.
        send: name of this sending.
        attempt: how often it failed before, plus one.
        last: a further failure makes it a dead letter.
        spec: the shard.
        digest: of the spec.
        features: folder of the dataset's feature shards.
        model: name of the model, for people.
        fingerprint: of the features that it has to give.
        index: (URL, collection) of the index where it is on a server.
        lease_s: without a sign of life for so long, the shard is given to another worker.
    """

    plan: str
    send: str
    attempt: int
    last: bool
    spec: ShardSpec
    digest: str
    features: Location
    model: str
    fingerprint: str
    index: tuple[str, str] | None
    lease_s: float


def write_order(
    packed: str,
    *,
    plan: str,
    send: str,
    attempt: int,
    last: bool,
    digest: str,
    features: Location,
    model: str,
    fingerprint: str,
    index: tuple[str, str] | None,
    lease_s: float,
) -> dict[str, Any]:
    """An order as JSON values; `packed` is its spec, as it is kept."""
    return {
        "plan": plan,
        "send": send,
        "attempt": attempt,
        "last": last,
        "spec": packed,
        "digest": digest,
        "features": str(features),
        "model": model,
        "fingerprint": fingerprint,
        "index": index,
        "lease_s": lease_s,
    }


def read_order(values: dict[str, Any]) -> Order:
    """The inverse of `write_order`.

    Raises:
        ValueError: it is no order, or of a newer attrib.
        UsageError: it is about a store whose package is missing here.
    """
    try:
        index = values["index"]
        return Order(
            plan=values["plan"],
            send=values["send"],
            attempt=int(values["attempt"]),
            last=bool(values["last"]),
            spec=load_spec(unpack(values["spec"])),
            digest=values["digest"],
            features=location(values["features"]),
            model=values["model"],
            fingerprint=values["fingerprint"],
            index=None if index is None else (index[0], index[1]),
            lease_s=float(values["lease_s"]),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"no order: {type(exc).__name__} {exc}") from exc
