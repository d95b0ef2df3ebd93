"""Creators of an audit, read for its report: all that an image owes something to, and the training
image that stands for its main one.

Lines of attributions are many more than the report shows (up to 1,000 an image), so they are sifted
here by column, before any becomes an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.audit.report_tables import batches, image_columns
from search.audit.tables import ATTRIBUTIONS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Influencers", "main_sources"]

_NONE = 2.0**-63
"""Influence that the table of shares rounds to nothing: see `search.audit.shares`."""


def main_sources(out: Path) -> dict[str, str]:
    """By key of an image that is flagged one-creator: id of its main creator's first line, that
    is of the training image of theirs with the most influence."""
    import pyarrow as pa
    import pyarrow.compute as pc

    main = {
        image["image"]: image["main_creator"]
        for image in image_columns(out, ["image", "flags", "main_creator"])
        if "one-creator" in (image["flags"] or ()) and image["main_creator"]
    }
    if not main:
        return {}
    keys, names = (pa.array(list(each), pa.string()) for each in (main, main.values()))
    found: dict[str, str] = {}
    for batch in batches(out / ATTRIBUTIONS, ["image", "creator", "training_id"]):
        wanted = names.take(pc.index_in(batch.column("image"), value_set=keys))
        own = batch.filter(pc.fill_null(pc.equal(batch.column("creator"), wanted), False))
        for image, place in _firsts(own.column("image")):
            found.setdefault(image, own.column("training_id")[place].as_py())
    return found


def _firsts(column: pa.Array) -> Iterator[tuple[str, int]]:
    coded = column.dictionary_encode()
    codes, places = np.unique(coded.indices.to_numpy(), return_index=True)
    for code, place in zip(codes.tolist(), places.tolist(), strict=True):
        yield coded.dictionary[code].as_py(), place


class Influencers:
    """The known creators with influence on each generated image, asked for in order of the gallery.

    They are those that the table of shares counts: each of its lines `known` of the field creator
    has as many images as name it here.
    """

    def __init__(self, out: Path) -> None:
        self._runs = self._read(out)
        self._next: tuple[str, list[str]] | None = next(self._runs, None)

    def of(self, image: Mapping[str, Any]) -> list[str]:
        """Their names, each once, in no order; of an image that comes after those asked before."""
        names: dict[str, None] = {}
        # Lines of one image may lie in two batches.
        while self._next is not None and self._next[0] == image["image"]:
            names.update(dict.fromkeys(self._next[1]))
            self._next = next(self._runs, None)
        return list(names)

    def _read(self, out: Path) -> Iterator[tuple[str, list[str]]]:
        import pyarrow.compute as pc

        for batch in batches(out / ATTRIBUTIONS, ["image", "creator", "influence"]):
            has = pc.and_(
                pc.greater(batch.column("influence"), _NONE),
                pc.not_equal(batch.column("creator"), ""),
            )
            kept = batch.filter(pc.fill_null(has, False))
            images = kept.column("image").dictionary_encode()
            creators = kept.column("creator").dictionary_encode()
            names = creators.dictionary.to_pylist()
            keys = images.dictionary.to_pylist()  # by first line, so in order of the gallery
            if not keys:
                continue
            pairs = images.indices.to_numpy().astype(np.int64) * len(names)
            pairs = np.unique(pairs + creators.indices.to_numpy())
            of_image, of_creator = np.divmod(pairs, len(names))
            ends = np.searchsorted(of_image, np.arange(len(keys)), side="right")
            for key, codes in zip(keys, np.split(of_creator, ends[:-1]), strict=True):
                yield key, [names[code] for code in codes.tolist()]
