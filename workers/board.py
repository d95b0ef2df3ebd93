"""What coordinator and workers tell each other through Redis. All of it may be lost at any time.

    attrib                          the queue of tasks (Celery's)
    attrib:wanted:<plan>:<number>   the sending of that shard that counts, or '-' where none does
    attrib:beat:<plan>:<number>     what a worker is doing with it; gone some time after its death
    attrib:workers                  names of workers that lived of late
    attrib:worker:<name>            that a worker lives
    attrib:refused:<name>           why a worker does no work
    attrib:model:<fingerprint>      the model folder to embed with

Nothing in it depends on a clock other than Redis' own: beats expire there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit

from ingest.errors import UsageError, WorkersError

if TYPE_CHECKING:
    import redis

__all__ = ["NOT_WANTED", "QUEUE", "Beat", "Board", "WorkerState", "shown_address"]

QUEUE = "attrib"
NOT_WANTED = "-"
_WORKERS = "attrib:workers"
_REFUSED_S = 3_600
_DAY_S = 86_400
_CONNECT_S = 5.0
_ANSWER_S = 15.0


@dataclass(frozen=True)
class Beat:
    """A sign of life of a running shard.

    Attributes:
        worker: that has it.
        send: the sending that it works on.
        images: of the shard that are done.
        stage: what it is doing.
    """

    worker: str
    send: str
    images: int = 0
    stage: str = ""


@dataclass(frozen=True)
class WorkerState:
    """A sign of life of a worker.

    Attributes:
        name: host, number and device.
        device: that it embeds on, '' before its first shard.
        images: embedded since it started.
        rate: images per second of the last minute or so.
        shard: that it has, '' for none.
    """

    name: str
    device: str = ""
    images: int = 0
    rate: float = 0.0
    shard: str = ""


class Board:
    """A connection to Redis, made at the first call.

    Every method raises `WorkersError` where Redis does not answer.
    """

    def __init__(self, url: str) -> None:
        """Take the address; nothing is connected yet.

        Raises:
            UsageError: it is no address of Redis.
        """
        import redis

        self.address = shown_address(url)
        try:
            self._redis = redis.Redis.from_url(
                url,
                decode_responses=True,
                socket_connect_timeout=_CONNECT_S,
                socket_timeout=_ANSWER_S,
                health_check_interval=30,
            )
        except ValueError as exc:
            raise UsageError(
                f"{self.address} is no address of Redis: write redis://HOST:PORT/0, or rediss:// "
                "for TLS"
            ) from exc

    def close(self) -> None:
        """Close the connection."""
        with suppress(Exception):
            self._redis.close()

    def ping(self) -> None:
        """Return if Redis answers."""
        self._ask(self._redis.ping)

    # -- sendings ------------------------------------------------------------------------------

    def want(self, plan: str, number: int, send: str) -> None:
        """Only this sending of the shard counts from now on."""
        self._ask(self._redis.set, f"attrib:wanted:{plan}:{number}", send)

    def forget(self, plan: str, numbers: Sequence[int]) -> None:
        """The shards are settled: whoever still has one is to leave it."""
        if numbers:
            pipe = self._redis.pipeline(transaction=False)
            for number in numbers:
                pipe.set(f"attrib:wanted:{plan}:{number}", NOT_WANTED, ex=_DAY_S)
            self._ask(pipe.execute)

    def wanted(self, plan: str, numbers: Sequence[int]) -> list[str | None]:
        """The sendings that count; None where Redis knows nothing of the shard."""
        if not numbers:
            return []
        keys = [f"attrib:wanted:{plan}:{number}" for number in numbers]
        return cast("list[str | None]", self._ask(self._redis.mget, keys))

    def queued(self) -> int:
        """How many tasks wait in the queue."""
        return int(self._ask(self._redis.llen, QUEUE))

    # -- signs of life -------------------------------------------------------------------------

    def beat(self, plan: str, number: int, beat: Beat, lease_s: float) -> None:
        """Say that the shard is being worked on; that holds for `lease_s` seconds."""
        text = json.dumps(asdict(beat))
        self._ask(
            self._redis.set, f"attrib:beat:{plan}:{number}", text, px=max(1, round(1000 * lease_s))
        )

    def beats(self, plan: str, numbers: Sequence[int]) -> list[Beat | None]:
        """Signs of life of shards."""
        if not numbers:
            return []
        texts = self._ask(self._redis.mget, [f"attrib:beat:{plan}:{number}" for number in numbers])
        return [None if text is None else Beat(**json.loads(text)) for text in texts]

    def still(self, plan: str, number: int) -> None:
        """The shard is worked on no more."""
        self._ask(self._redis.delete, f"attrib:beat:{plan}:{number}")

    def live(self, state: WorkerState, lease_s: float) -> None:
        """Say that a worker lives."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.sadd(_WORKERS, state.name)
        text = json.dumps(asdict(state))
        pipe.set(f"attrib:worker:{state.name}", text, px=max(1, round(1000 * lease_s)))
        self._ask(pipe.execute)

    def leave(self, name: str) -> None:
        """A worker ends."""
        self._ask(self._redis.delete, f"attrib:worker:{name}")

    def workers(self) -> list[WorkerState]:
        """The workers that live, by name."""
        texts = self._of_workers("attrib:worker:")
        return [WorkerState(**json.loads(text)) for text in texts.values()]

    def refuse(self, name: str, why: str) -> None:
        """Say why a worker does no work."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.sadd(_WORKERS, name)
        pipe.set(f"attrib:refused:{name}", why, ex=_REFUSED_S)
        self._ask(pipe.execute)

    def refusals(self) -> dict[str, str]:
        """Why workers did no work within the last hour, by worker."""
        return self._of_workers("attrib:refused:")

    def tidy(self) -> None:
        """Forget the names of those who neither live nor refuse."""
        known = self.workers()
        names = {worker.name for worker in known} | self.refusals().keys()
        gone = [name for name in self._ask(self._redis.smembers, _WORKERS) if name not in names]
        if gone:
            self._ask(self._redis.srem, _WORKERS, *gone)

    # -- the model -----------------------------------------------------------------------------

    def publish(self, fingerprint: str, packed: str) -> None:
        """Keep a model folder for the workers, where it is not there yet."""
        self._ask(self._redis.set, f"attrib:model:{fingerprint}", packed, nx=True, ex=30 * _DAY_S)

    def published(self, fingerprint: str) -> str | None:
        """The model folder of that fingerprint; None where Redis has it not, or not any more."""
        return cast("str | None", self._ask(self._redis.get, f"attrib:model:{fingerprint}"))

    def _of_workers(self, prefix: str) -> dict[str, str]:
        """A text of each worker, by its name."""
        names = sorted(self._ask(self._redis.smembers, _WORKERS))
        if not names:
            return {}
        texts = self._ask(self._redis.mget, [prefix + name for name in names])
        return {name: text for name, text in zip(names, texts, strict=True) if text is not None}

    def _ask(self, call: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401 (the vendor's types)
        import redis

        try:
            return call(*args, **more)
        except redis.RedisError as exc:
            raise WorkersError(_why(self.address, exc)) from exc


def shown_address(url: str) -> str:
    """The address without its password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url.rpartition("@")[2]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return urlunsplit((parts.scheme, f"{host}{port}", parts.path, "", ""))


def _why(address: str, exc: redis.RedisError) -> str:
    import redis

    if isinstance(exc, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return (
            f"Redis at {address} refuses the password; give it as redis://:PASSWORD@HOST:PORT/0 "
            "with --redis or in ATTRIB_REDIS"
        )
    if isinstance(exc, redis.ConnectionError | redis.TimeoutError):
        return (
            f"Redis at {address} does not answer; start it with `redis-server`, or name another "
            "with --redis or ATTRIB_REDIS"
        )
    return f"Redis at {address} failed: {' '.join(str(exc).split())}"
