"""How an embedded index is laid out, and the file that remembers it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ingest.errors import DataFolderError, UsageError

__all__ = [
    "FORMAT",
    "OVERSAMPLING",
    "EdgeSettings",
    "Quantization",
    "read_settings",
    "write_settings",
]

FORMAT = 1
"""Version of the folder's layout; a newer one is refused, an older one will be migrated here."""

_FILE = "index.json"

Quantization = Literal["none", "int8", "turbo4", "turbo2", "turbo1", "binary"]

OVERSAMPLING = {
    "none": 1.0,
    "int8": 2.0,
    "turbo4": 2.0,
    "turbo2": 3.0,
    "turbo1": 4.0,
    "binary": 4.0,
}
"""Candidates per hit that give recall@50 >= 0.99 with each code, before rescoring."""


@dataclass(frozen=True)
class EdgeSettings:
    """Settings of an embedded index; the defaults suit a million points of 512 on a laptop.

    Attributes:
        m: links of a point in the HNSW graph.
        ef_construct: candidates while the graph is built.
        ef: candidates while it is searched, at least; four per hit for limits beyond 64, and more
            where `build` finds that this collection needs them (see `search.edge_tuning`).
        quantization: a shorter code of the vectors for the first pass. Hits are always compared
            again with the original vectors, so that similarities are exact whatever the code.
        oversampling: candidates per hit in that first pass; None: what gives 0.99 recall@50 for
            queries that resemble stored points. For queries that resemble none, int8 and turbo4
            still do; turbo2, turbo1 and binary do not (turbo1 0.65, binary 0.46 in a test).
        quantized_in_ram: pin the codes in memory; False leaves them to the page cache.
        vectors_on_disk: read vectors from disk when they are needed; False loads them into the page
            cache when the index is opened, from which the system takes memory back under pressure
            (1,000,000 x 512 float32 are 2 GB).
        datatype: float16 halves the vectors and moves similarities by up to 1e-4.
        index_threads: threads that build the graph; 0: one a core, at most 8.
        search_threads: threads that search; 0: one a core.
        index_above: points that a segment may hold before `build` gives it a graph; below, every
            point is compared, which is exact and takes a few milliseconds.
        sample_size: points in the fixed uniform sample.
    """

    m: int = 16
    ef_construct: int = 128
    ef: int = 128
    quantization: Quantization = "none"
    oversampling: float | None = None
    quantized_in_ram: bool = True
    vectors_on_disk: bool = False
    datatype: Literal["float32", "float16"] = "float32"
    index_threads: int = 0
    search_threads: int = 0
    index_above: int = 10_000
    sample_size: int = 16_384

    def __post_init__(self) -> None:
        if self.quantization not in get_args(Quantization):
            raise UsageError(
                f"no quantization {self.quantization!r}; choose one of "
                + ", ".join(get_args(Quantization))
            )
        if self.datatype not in ("float32", "float16"):
            raise UsageError(f"no datatype {self.datatype!r}; choose float32 or float16")
        for name in ("m", "ef_construct", "ef", "index_above", "sample_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("index_threads", "search_threads"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.oversampling is not None and not 1.0 <= self.oversampling <= 100.0:
            raise UsageError(f"oversampling must lie in 1..100, not {self.oversampling}")

    @property
    def candidates_per_hit(self) -> float:
        """The oversampling in force."""
        if self.oversampling is not None:
            return self.oversampling
        return OVERSAMPLING[self.quantization]


def write_settings(folder: Path, dim: int, settings: EdgeSettings) -> None:
    """Write `folder/index.json`."""
    content = {"format": FORMAT, "dim": dim, "settings": asdict(settings)}
    (folder / _FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> tuple[int, EdgeSettings]:
    """The dimension and the settings in `folder/index.json`.

    Raises DataFolderError where there is no such file, it is damaged or of a newer format.
    """
    file = folder / _FILE
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise DataFolderError(f"{folder} holds no index (there is no {_FILE} in it)") from exc
    except OSError as exc:
        raise DataFolderError(f"cannot read {file}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise _damaged(file, str(exc)) from exc
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or version < 1:
        raise _damaged(file, "it names no format version")
    if version > FORMAT:
        raise DataFolderError(
            f"{folder} was written by a newer attrib (index format {version}; this one reads "
            f"{FORMAT}); upgrade attrib"
        )
    dim, given = content.get("dim"), content.get("settings")
    if not isinstance(dim, int) or dim < 1 or not isinstance(given, dict):
        raise _damaged(file, "dim or settings are missing")
    unknown = set(given) - {field.name for field in fields(EdgeSettings)}
    if unknown:
        raise _damaged(file, f"it names an unknown setting {min(unknown)!r}")
    try:
        return dim, EdgeSettings(**given)
    except (UsageError, TypeError) as exc:
        raise _damaged(file, str(exc)) from exc


def _damaged(file: Path, detail: str) -> DataFolderError:
    detail = " ".join(detail.split())
    return DataFolderError(f"{file} is damaged ({detail}); put it back from a backup")
