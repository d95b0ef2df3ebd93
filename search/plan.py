"""Which images a source has that the ledger does not, cut into shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ingest.errors import RejectReason
from ingest.ledger import Known, Ledger
from ingest.record import Reject
from ingest.source import Item, ItemSource, Source, TarSource
from ingest.storage import is_url, origin_of
from ingest.stored import is_there

__all__ = ["InHand", "Plan", "Work", "broken_signature", "clash", "is_another", "origin_of"]

_LOOKUP = 512  # keys asked of the ledger at once


@dataclass(frozen=True)
class Work:
    """One shard to be ingested: some items of a source, or (`items` None) a whole tar."""

    source: Source
    items: tuple[Item, ...] | None


@dataclass(frozen=True)
class InHand:
    """What is in shards that are planned and not finished: it is not planned again.

    Attributes:
        keys: of images.
        tars: as the ledger keeps their places.
    """

    keys: frozenset[str] = frozenset()
    tars: frozenset[str] = frozenset()


@dataclass
class Plan:
    """The difference between sources and ledger, streamed.

    Attributes:
        forced_from: with ``--force``, the number of the first shard of this forced run: what
            stands in an older one is embedded again.
        retry_failed: images that could not be used are tried again.
        unchanged: images passed over since the ledger has them as they are.
        buried: images passed over since they were taken down.
        clashes: images whose key another file of the dataset has.
        broken: tars that were cut off when they were read, and have not been replaced since.
        in_hand: what other machines are at.
    """

    ledger: Ledger
    dataset: str
    shard_size: int
    forced_from: int | None = None
    retry_failed: bool = False
    unchanged: int = 0
    buried: int = 0
    clashes: list[Reject] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    in_hand: InHand = field(default_factory=lambda: InHand())

    def pending(self, sources: Sequence[Source]) -> int | None:
        """How many images there are to do; None where a tar would have to be read to know."""
        total = 0
        for work in self.again().works(sources):
            if work.items is None:
                return None
            total += len(work.items)
        return total

    def again(self) -> Plan:
        """The same plan from the beginning, to count what it will come to."""
        return Plan(
            self.ledger,
            self.dataset,
            self.shard_size,
            self.forced_from,
            self.retry_failed,
            in_hand=self.in_hand,
        )

    def works(self, sources: Sequence[Source]) -> Iterator[Work]:
        """The shards to do, in order. Never more than one shard of items is held in memory."""
        for source in sources:
            if isinstance(source, TarSource):
                if self._tar_is_new(source):
                    yield Work(source, None)
            else:
                yield from self._works_of_items(source)

    def _tar_is_new(self, source: TarSource) -> bool:
        if origin_of(source.path) in self.in_hand.tars:
            return False
        known = self.ledger.tar(self.dataset, origin_of(source.path))
        if known is None:
            return True
        signature, shard = known
        if self.forced_from is not None and shard < self.forced_from:
            return True
        if signature not in (source.signature, broken_signature(source)):
            return True
        if signature == broken_signature(source):
            self.broken.append(f"{source.name} was cut off when it was read; replace it")
        self.unchanged += self.ledger.images_of(shard)
        return False

    def _works_of_items(self, source: ItemSource) -> Iterator[Work]:
        pending: list[Item] = []
        for item in self._new_items(source):
            pending.append(item)
            if len(pending) == self.shard_size:
                yield Work(source, tuple(pending))
                pending = []
        if pending:
            yield Work(source, tuple(pending))

    def _new_items(self, source: ItemSource) -> Iterator[Item]:
        some: list[Item] = []
        for item in source.items():
            some.append(item)
            if len(some) == _LOOKUP:
                yield from self._difference(some)
                some = []
        yield from self._difference(some)

    def _difference(self, items: list[Item]) -> Iterator[Item]:
        keys = [item.key for item in items]
        known = self.ledger.known(self.dataset, keys)
        buried = self.ledger.buried(self.dataset, keys)
        for item in items:
            if item.key in self.in_hand.keys:
                continue
            if item.key in buried:
                self.buried += 1
                continue
            entry = known.get(item.key)
            origin = item.origin or origin_of(item.path)
            if entry is None:
                yield item
            elif is_another(entry, origin):
                self.clashes.append(clash(item.key, origin, entry.origin))
            elif self._is_stale(entry, item, origin):
                yield item
            else:
                self.unchanged += 1

    def _is_stale(self, entry: Known, item: Item, origin: str) -> bool:
        if self.forced_from is not None and entry.shard < self.forced_from:
            return True
        if self.retry_failed and not entry.usable:
            return True
        moved = entry.origin != origin and not is_there(entry.origin)
        return moved or entry.signature != item.signature


def broken_signature(source: TarSource) -> str:
    """What the ledger keeps of a tar that ended too early: another file must follow."""
    return f"broken {source.signature}"


def is_another(known: Known | None, origin: str) -> bool:
    """Whether the ledger's image of a key is another file than `origin`, and still there."""
    if known is None or known.origin == origin:
        return False
    if not is_url(known.origin) and not is_url(origin):
        with suppress(OSError, ValueError):
            return not Path(known.origin).samefile(origin)
    return is_there(known.origin)


def clash(key: str, path: str, origin: str) -> Reject:
    """Two files of one dataset under one key: the second is refused, not silently the winner."""
    return Reject(key, path, RejectReason.DUPLICATE_KEY, f"already used by {origin}")
