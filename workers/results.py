"""What a worker leaves of a shard, beside the dataset's features, for the coordinator to take in.

    done/plan-<plan>                            whose folder this is
    done/<number>-<plan>.json.gz                the result, written last: its presence means done
    done/<number>-<plan>.<send>.failed.json     why that sending came to nothing
    done/staged/<number>-<plan>.<send>/         its feature shard, in the layout of `embed.shards`

Nothing else in a data folder is written by a worker. A name belongs to one sending, and only the
coordinator moves a feature shard to its place: whatever a worker does that was thought dead, it
does where it can do no harm.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from embed.shards import shard_paths
from ingest.errors import RejectReason
from ingest.ledger import TarRow
from ingest.record import Reject
from ingest.storage import Location
from search.admission import Origin
from search.writer import Finished
from workers.files import exists, move, names_in, read, remove, remove_tree, write

__all__ = [
    "Done",
    "Failed",
    "Image",
    "Outcome",
    "Result",
    "adopt",
    "discard",
    "failures",
    "is_ours",
    "mark_ours",
    "read_result",
    "results",
    "staged",
    "tidy",
    "write_failure",
    "write_result",
]

FORMAT = 1
_RESULT = re.compile(r"(?P<number>\d+)-(?P<plan>[0-9a-f]+)\.json\.gz")
_OF_SHARD = re.compile(r"(?P<number>\d+)-(?P<plan>[0-9a-f]+)\.")
_FAILED = re.compile(r"(?P<number>\d+)-(?P<plan>[0-9a-f]+)\.(?P<send>[0-9a-f]+)\.failed\.json")

Why = Literal["failed", "died", "stopped"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a shard, as admission has to know it; the next row of the feature shard."""

    key: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an image: itself, or a reject."""

    what: Image | Reject
    origin: Origin


@dataclass(frozen=True)
class Result:
    """A shard that a worker did.

    Attributes:
        number: of the shard.
        plan: that it is of.
        send: of the sending that did it, which its feature shard is staged under.
        digest: of its spec.
        fingerprint: of the features.
        worker: that did it.
        seconds: that it took.
        outcomes: of its images, in the order in which they came.
        tar: the tar that it was made of, if it was.
        broken: why nothing more came of that tar, where it ended too early.
    """

    number: int
    plan: str
    send: str
    digest: str
    fingerprint: str
    worker: str
    seconds: float
    outcomes: Sequence[Outcome]
    tar: TarRow | None = None
    broken: str = ""

    @property
    def finished(self) -> Finished:
        """How the pipeline ended."""
        return Finished(self.tar, self.broken)


@dataclass(frozen=True)
class Done:
    """What is known of a result by its name."""

    number: int
    plan: str


@dataclass(frozen=True)
class Failed:
    """A sending that came to nothing.

    Attributes:
        number: of the shard.
        plan: that it is of.
        send: which.
        why: it failed, its process died of it, or the worker was stopped, which is no fault of it.
        reason: for people.
        worker: that had it.
    """

    number: int
    plan: str
    send: str
    why: Why
    reason: str
    worker: str


def staged(features: Location, plan: str, number: int, send: str) -> Location:
    """Folder for the feature shard of a sending."""
    return features / "done" / "staged" / f"{number:05d}-{plan}.{send}"


def mark_ours(features: Location, plan: str) -> None:
    """Make the folder, and let workers know that it is the one they were sent to."""
    write(features / "done" / f"plan-{plan}", b"")


def is_ours(features: Location, plan: str) -> bool:
    """Whether the coordinator's folder is what this process sees under that name."""
    return exists(features / "done" / f"plan-{plan}")


def write_result(features: Location, result: Result) -> None:
    """Say that a shard is done: the last act of a worker."""
    values = {
        "format": FORMAT,
        **{
            name: getattr(result, name)
            for name in (
                "number",
                "plan",
                "send",
                "digest",
                "fingerprint",
                "worker",
                "seconds",
                "broken",
            )
        },
        "tar": None if result.tar is None else asdict(result.tar),
        "outcomes": [_outcome(outcome) for outcome in result.outcomes],
    }
    text = json.dumps(values, separators=(",", ":"))
    data = gzip.compress(text.encode("ascii"), 3, mtime=0)
    write(_result_path(features, result.plan, result.number), data)


def read_result(features: Location, done: Done) -> Result | None:
    """A result; None where the file is gone, damaged or of a newer attrib."""
    try:
        data = read(_result_path(features, done.plan, done.number))
        values = json.loads(gzip.decompress(data or b""))
        if values.pop("format") > FORMAT:
            return None
        tar = values.pop("tar")
        outcomes = [_read_outcome(outcome) for outcome in values.pop("outcomes")]
        return Result(**values, tar=None if tar is None else TarRow(**tar), outcomes=outcomes)
    except (gzip.BadGzipFile, zlib.error, EOFError, ValueError, KeyError, TypeError):
        return None


def write_failure(features: Location, failed: Failed) -> None:
    """Say that a sending came to nothing."""
    write(_failure_path(features, failed), json.dumps(asdict(failed)).encode("ascii"))


def results(features: Location, plan: str) -> list[Done]:
    """The results there are, of this plan, in order of their numbers."""
    found = (_RESULT.fullmatch(name) for name in names_in(features / "done"))
    return sorted(
        (Done(int(m["number"]), plan) for m in found if m and m["plan"] == plan),
        key=lambda done: done.number,
    )


def failures(features: Location, plan: str) -> list[Failed]:
    """The failures there are, of this plan."""
    found = []
    for name in names_in(features / "done"):
        match = _FAILED.fullmatch(name)
        if match and match["plan"] == plan:
            with suppress(ValueError, TypeError):
                found.append(Failed(**json.loads(read(features / "done" / name) or b"")))
    return found


def adopt(features: Location, result: Result, *, rows: int) -> None:
    """Move the staged feature shard to its place. Broken off, it can be done again.

    `rows`: images in it.
    """
    folder = staged(features, result.plan, result.number, result.send)
    pairs = zip(
        shard_paths(folder, result.number), shard_paths(features, result.number), strict=True
    )
    if rows == 0:
        remove([target for _, target in pairs])  # of an earlier version of the shard
        return
    for source, target in pairs:
        move(source, target)


def discard(features: Location, plan: str, number: int, send: str | None = None) -> None:
    """Remove what workers left of a shard: of one sending, or (None) all of it, result and all."""
    begin = f"{number:05d}-{plan}."
    folder = features / "done"
    if send is None:
        for name in names_in(folder):
            if name.startswith(begin):
                remove([folder / name])
    else:
        remove([folder / f"{begin}{send}.failed.json"])
    for name in names_in(folder / "staged"):
        if name.startswith(begin) if send is None else name == f"{begin}{send}":
            remove_tree(folder / "staged" / name)


def tidy(features: Location, *, keep: Collection[int]) -> None:
    """Remove what was left of shards that nobody asks for any more; with none to `keep`, all."""
    folder = features / "done"
    if not keep:
        remove_tree(folder)
        return
    for name in [*names_in(folder), *names_in(folder / "staged")]:
        match = _OF_SHARD.match(name)
        if match and int(match["number"]) not in keep:
            discard(features, match["plan"], int(match["number"]))


def _result_path(features: Location, plan: str, number: int) -> Location:
    return features / "done" / f"{number:05d}-{plan}.json.gz"


def _failure_path(features: Location, failed: Failed) -> Location:
    return features / "done" / f"{failed.number:05d}-{failed.plan}.{failed.send}.failed.json"


def _outcome(outcome: Outcome) -> list[Any]:
    what, origin = outcome.what, outcome.origin
    if isinstance(what, Image):
        return [what.key, what.path, what.sha256, origin.path, origin.signature]
    reject = [what.key, what.path, what.reason.value, what.detail]
    return [reject, origin.path, origin.signature]


def _read_outcome(values: list[Any]) -> Outcome:
    if len(values) == 5:
        key, path, sha256, origin, signature = values
        return Outcome(Image(key, path, sha256), Origin(origin, signature))
    (key, path, reason, detail), origin, signature = values
    return Outcome(Reject(key, path, RejectReason(reason), detail), Origin(origin, signature))
