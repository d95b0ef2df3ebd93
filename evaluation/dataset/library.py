"""The images that exemplars and prior images are chosen from, and the choice."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from evaluation.dataset.settings import BuildSettings
from ingest.decode import decode
from ingest.errors import ImageError, SourceError, UsageError
from ingest.item import Item, ItemSource, printable
from ingest.record import Reject
from ingest.source import TarSource, UrlListSource, open_sources

__all__ = ["Entry", "Library", "Subject"]

_CLASS_FIELDS = ("class", "class_word", "category", "label")
_LEAST_OF_CREATOR = 3
_SHOWN = 8
_MAX_ENTRIES = 5_000_000


@dataclass(frozen=True)
class Entry:
    """One image of the library.

    Attributes:
        key: unique in the library.
        word: its class word, '' where none is known.
        creator: '' where unknown.
        caption: '' where unknown.
    """

    key: str
    word: str
    creator: str
    caption: str
    source: ItemSource
    item: Item

    def data(self) -> bytes:
        """The bytes of its file, which may be no image.

        Raises:
            ImageError: it cannot be had.
            SourceError: it cannot be read.
        """
        record = self.source.read(self.item)
        if isinstance(record, Reject):
            raise ImageError(record.reason, record.detail)
        return record.data

    def read(self) -> tuple[bytes, Image.Image]:
        """The bytes of its file, and the decoded image.

        Raises:
            ImageError: not an image that can be used.
            SourceError: it cannot be read.
        """
        data = self.data()
        return data, decode(data).image


@dataclass(frozen=True)
class Subject:
    """What one model is to be customized on.

    Attributes:
        name: the class word, or the creator.
        exemplars: one for an object; all images of a creator, in the order of choice.
        priors: real images of the class, without the exemplars.
    """

    name: str
    exemplars: tuple[Entry, ...]
    priors: tuple[Entry, ...]


class Library:
    """All images of some sources, by class word and by creator.

    Args:
        specs: folders, lists or tables of images; sidecars and columns give captions, creators and
            classes.
        class_field: metadata field with the class word; None for the first of ``class``,
            ``class_word``, ``category`` and ``label`` that an image has, or else its folder's name.

    Raises:
        SourceError: a source that cannot be read.
        UsageError: a tar or a list of URLs, whose images cannot be read one by one.
    """

    def __init__(self, specs: Sequence[str], *, class_field: str | None = None) -> None:
        self.class_field = class_field
        self.entries: list[Entry] = []
        for source in open_sources(list(specs)):
            if isinstance(source, TarSource | UrlListSource):
                raise UsageError(
                    f"{source.name}: exemplars are read one by one; unpack it into a folder"
                )
            for item in source.items():
                self.entries.append(_entry(source, item, class_field))
                if len(self.entries) > _MAX_ENTRIES:
                    raise UsageError(f"more than {_MAX_ENTRIES:,} images to choose exemplars from")
        keys = {entry.key for entry in self.entries}
        if len(keys) != len(self.entries):
            raise SourceError("two of the exemplar sources have images of the same key")

    def subjects(
        self, settings: BuildSettings, is_known: Callable[[str], bool]
    ) -> tuple[Iterator[Subject], list[str]]:
        """All that models can be made of, in order; and why some could not be.

        The choice is a function of the keys and the seed: more models begin with the same ones.

        Args:
            settings: kind, seed and number of prior images.
            is_known: whether the generator's tokenizer can say a word.

        Raises:
            UsageError: nothing to choose from.
        """
        if settings.kind == "object":
            return self._objects(settings, is_known)
        return self._styles(settings)

    def _objects(
        self, settings: BuildSettings, is_known: Callable[[str], bool]
    ) -> tuple[Iterator[Subject], list[str]]:
        by_word: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            by_word[entry.word].append(entry)
        told = []
        if nameless := by_word.pop("", []):
            first = printable(nameless[0].key)
            told.append(f"images without a class word, left out: {len(nameless)} (first: {first})")
        if split := sorted(word for word in by_word if not is_known(word)):
            shown = ", ".join(split[:_SHOWN])
            if (more := len(split) - _SHOWN) > 0:
                images = sum(len(by_word[word]) for word in split)
                shown += f" and {more} more ({images} images in all)"
            told.append(f"class words that the tokenizer splits away, left out: {shown}")
        for word in split:
            del by_word[word]
        usable = _shuffled([e for some in by_word.values() for e in some], settings.seed, "object")
        if not usable:
            raise UsageError(f"no exemplar can be chosen: {told[-1] if told else 'no images'}")

        def subjects() -> Iterator[Subject]:
            for entry in usable:
                others = [other for other in by_word[entry.word] if other is not entry]
                yield Subject(entry.word, (entry,), _priors(others, settings, entry.key))

        return subjects(), told

    def _styles(self, settings: BuildSettings) -> tuple[Iterator[Subject], list[str]]:
        by_creator: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.creator:
                by_creator[entry.creator].append(entry)
        told = []
        names = [name for name, some in by_creator.items() if len(some) >= _LEAST_OF_CREATOR]
        if few := len(by_creator) - len(names):
            told.append(f"creators of fewer than {_LEAST_OF_CREATOR} images, left out: {few}")
        if not names:
            raise UsageError(
                f"no exemplar can be chosen: {told[0] if told else 'no image has a creator'}"
            )
        names.sort(key=lambda name: _place(settings.seed, "style", name))

        def subjects() -> Iterator[Subject]:
            for name in names:
                exemplars = _shuffled(by_creator[name], settings.seed, "exemplar")
                others = [e for e in self.entries if e.creator != name and e.caption]
                yield Subject(name, tuple(exemplars), _priors(others, settings, name))

        return subjects(), told


def _entry(source: ItemSource, item: Item, class_field: str | None) -> Entry:
    metadata = source.metadata(item)
    word = ""
    for name in (class_field,) if class_field else _CLASS_FIELDS:
        if value := metadata.extra.get(name):
            word = str(value)
            break
    else:
        if class_field is None and "/" in item.key:
            word = item.key.rpartition("/")[0].rpartition("/")[2]
    return Entry(item.key, _plain(word), metadata.creator, metadata.caption, source, item)


def _plain(word: str) -> str:
    """``animals/farm_animals`` as ``farm animals``."""
    last = word.rstrip("/").rpartition("/")[2]
    return " ".join(re.sub(r"[^\w'-]+|_", " ", last.lower()).split())


def _shuffled(entries: Sequence[Entry], seed: int, what: str) -> list[Entry]:
    return sorted(entries, key=lambda entry: _place(seed, what, entry.key))


def _priors(entries: Sequence[Entry], settings: BuildSettings, of: str) -> tuple[Entry, ...]:
    return tuple(
        heapq.nsmallest(
            settings.customization.prior_images,
            entries,
            key=lambda entry: _place(settings.seed, "prior " + of, entry.key),
        )
    )


def _place(seed: int, what: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\x00{what}\x00{name}".encode(errors="surrogatepass")).digest()
