"""What a report's page reads of an audit: an index of all images, and blocks with the details.

Lists rather than objects, because there is one for every generated image; the page's `data.js`
reads them by place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.audit.report_blocks import Spool
from search.audit.report_settings import ReportSettings
from search.audit.report_tables import Answer

__all__ = ["AnswerWriter", "clip", "rounded"]

METHODS = ("exact", "complete", "estimated")


def clip(text: object, most: int) -> str:
    """Text of others, its beginning where it is long."""
    text = "" if text is None else str(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def rounded(value: object) -> float | None:
    """Six decimals; the tables have the rest. None where it is no finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(float(value), 6)


def _steps(numbers: Iterable[int]) -> list[int]:
    """Different numbers in order, each as what it is above the one before: an image may have
    hundreds of creators, and small numbers pack well."""
    ordered = sorted(numbers)
    return [number - last for last, number in zip([0, *ordered], ordered, strict=False)]


class AnswerWriter:
    """Writes generated images one after the other into four spools.

    Args:
        index: a list an image: what is searched, sorted by and shown in the table.
        details: a list an image: what its wall needs.
        training: a list a training image, once however often it is shown.
        names: the creators' names that the index refers to.
        generated, of_training: number of the picture, by key and by training id.
        flags: names of the flags; an image's are bits in this order.

    Memory grows with the training images shown (an id and a number each), not with the gallery.
    """

    def __init__(
        self,
        index: Spool,
        details: Spool,
        training: Spool,
        names: Spool,
        *,
        generated: Mapping[str, int],
        of_training: Mapping[str, int],
        flags: Sequence[str],
        settings: ReportSettings,
    ) -> None:
        self._index, self._details, self._training = index, details, training
        self._names = names
        self._generated, self._of_training = generated, of_training
        self._bits = {name: 1 << place for place, name in enumerate(flags)}
        self._settings = settings
        self._places: dict[str, int] = {}
        self._name_places: dict[str, int] = {}

    def add(self, answer: Answer, influencers: Iterable[str]) -> None:
        """Write one image; `influencers`: all known creators with influence on it."""
        image = answer.image
        ranks: dict[int, list[dict[str, Any]]] = {}
        copied = of_main = -1
        for line in answer.lines:
            if line["training_id"] == image["copy_of"]:
                copied = self._place(line)
            if line["training_id"] == answer.main_id:
                of_main = self._place(line)
            if line["rank"] <= self._settings.sources:
                ranks.setdefault(line["rank"], []).append(line)
        rows = [self._row(lines) for lines in ranks.values()]
        first = rows[0][4][0] if rows else -1
        most = self._settings.text
        self._index.add(
            [
                clip(image["image"], most),
                clip(image["prompt"], most),
                self._generated.get(image["image"], -1),
                sum(self._bits.get(flag, 0) for flag in image["flags"] or ()),
                rounded(image["remaining"]),
                rounded(image["effective_sources"]),
                rounded(image["top_influence"]),
                rounded(image["top_similarity"]),
                METHODS.index(image["method"]) if image["method"] in METHODS else -1,
                image["sources"],
                self._name(image["main_creator"]),
                rounded(image["main_creator_share"]),
                _steps(self._name(name) for name in influencers),
                [copied, first, of_main],
                clip(image["duplicate_of"], most),
                rounded(image["copy_score"]),
            ]
        )
        self._details.add(self._detail(image, rows, copied))

    def _detail(self, image: Mapping[str, Any], rows: list[Any], copied: int) -> list[Any]:
        most = self._settings.text
        shown = math.fsum(row[1] for row in rows)
        more = max((image["sources"] or 0) - len(rows), 0)
        rest = max(1 - shown - image["remaining"], 0.0) if more else 0.0
        return [
            clip(image["path"], most),
            image["width"],
            image["height"],
            clip(image["metadata"], most),
            rounded(image["remaining_low"]),
            rounded(image["remaining_high"]),
            image["support"],
            clip(image["note"], most),
            clip(image["copy_of"], most),
            copied,
            image["sha256"],
            [[row[0], *map(rounded, row[1:4]), *row[4:]] for row in rows],
            more,
            rounded(rest),
        ]

    def _row(self, lines: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Similarity, influence, its interval, the records, and how many more there are."""
        shown = lines[: self._settings.owners]
        return [
            rounded(lines[0]["similarity"]),
            math.fsum(line["influence"] for line in lines),
            math.fsum(line["influence_low"] for line in lines),
            min(math.fsum(line["influence_high"] for line in lines), 1.0),
            [self._place(line) for line in shown],
            len(lines) - len(shown),
        ]

    def _place(self, line: Mapping[str, Any]) -> int:
        place = self._places.get(line["training_id"])
        if place is None:
            most = self._settings.text
            fields = ("training_id", "training_key", "dataset", "creator", "licence", "url")
            record = [clip(line[name], most) for name in (*fields, "path", "caption")]
            place = self._training.add([*record, self._of_training.get(line["training_id"], -1)])
            self._places[line["training_id"]] = place
        return place

    def _name(self, name: str) -> int:
        if not name:
            return -1
        place = self._name_places.get(name)
        if place is None:
            place = self._names.add(clip(name, self._settings.text))
            self._name_places[name] = place
        return place
