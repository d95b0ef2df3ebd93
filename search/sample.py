"""A fixed uniform sample of a changing set of ids, kept as a bottom-n sketch.

Every id has a place in [0, 2**64) given by a mix of its bits. The sketch holds all ids whose place
is below its `bound`; the bound falls whenever more than `size` would fit. Places are as good as
random, so the members are a uniform sample without replacement, and because a place depends on the
id alone the sample does not depend on the order in which points came, on repetition, or on where a
run was interrupted.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Keys", "Sketch", "keys_from_bytes", "keys_to_bytes", "places"]

Keys: TypeAlias = NDArray[np.uint64]
"""(ids, 2): the high and the low half of each 128-bit id."""

_EVERYWHERE = 2**64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keys_from_bytes(ids: bytes) -> Keys:
    """The ids laid end to end, 16 bytes each, as (ids, 2) halves."""
    return np.frombuffer(ids, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def keys_to_bytes(keys: Keys) -> bytes:
    """The inverse of `keys_from_bytes`."""
    return keys.astype(">u8").tobytes()


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: a bijection in which every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def places(keys: Keys) -> NDArray[np.uint64]:
    """(ids,): the place of each id, uniform over 64 bits also for ids that count upwards."""
    # Part of the file format: another mix would make every sample on disk another sample.
    return _mix(_mix(keys[:, 1] + _GOLDEN) ^ (keys[:, 0] * _GOLDEN))


class Sketch:
    """The members, in order of place, and the bound below which they are complete.

    Attributes:
        size: the most members that it keeps.
        bound: every id of the set whose place is below it is a member; 2**64 before the sketch was
            full for the first time. It outlives deletions on purpose: were the room they leave
            given to the next ids that come, newer points would be sampled more often than older.
        keys: (members, 2)
    """

    def __init__(self, size: int, *, bound: int = _EVERYWHERE, keys: Keys | None = None) -> None:
        if size < 1:
            raise ValueError(f"a sample needs a size of at least 1, not {size}")
        self.size = size
        self.bound = bound
        self.keys: Keys = np.empty((0, 2), dtype=np.uint64)
        if keys is not None:
            self.add(keys)

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, keys: Keys) -> bool:
        """Take note of ids that are now in the set; True where the members changed."""
        return self._merge(keys[self._below(places(keys))])

    def remove(self, keys: Keys) -> bool:
        """Take note of ids that are no longer in the set; True where the members changed."""
        keys = keys[self._below(places(keys))]
        if not len(keys) or not len(self.keys):
            return False
        gone = {(high, low) for high, low in keys.tolist()}
        keep = np.array([(h, low) not in gone for h, low in self.keys.tolist()], dtype=np.bool_)
        self.keys = self.keys[keep]
        return not bool(keep.all())

    def merge(self, other: Sketch) -> None:
        """Become the sketch of the union of both sets (of the same `size`)."""
        if other.size != self.size:
            raise ValueError(f"sketches of {self.size} and {other.size} ids do not merge")
        if other.bound < self.bound:
            self.bound = other.bound
            self.keys = self.keys[self._below(places(self.keys))]
        self.add(other.keys)

    def is_thin(self, population: int) -> bool:
        """Whether deletions left fewer than half of the members that so many ids could give."""
        return 2 * len(self.keys) < min(self.size, population)

    def _below(self, at: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if self.bound >= _EVERYWHERE:
            return np.ones(len(at), dtype=np.bool_)
        below: NDArray[np.bool_] = at < np.uint64(self.bound)
        return below

    def _merge(self, keys: Keys) -> bool:
        if not len(keys):
            return False
        before = self.keys
        merged: Keys = np.unique(np.concatenate([before, keys]), axis=0)
        at = places(merged)
        order = np.argsort(at, kind="stable")
        merged, at = merged[order], at[order]
        if len(merged) > self.size:
            # The first place that no longer fits is the new bound, itself outside: equal places
            # (one pair in 2**64) then stay or go together, whichever came first.
            self.bound = int(at[self.size])
            merged = merged[at < np.uint64(self.bound)]
        self.keys = merged
        return not np.array_equal(before, merged)
