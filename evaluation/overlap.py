"""Whether two splits share a customized model: told by the content of images, not by their names.

Ids are counted anew in each test case and files are moved and copied; what a generator made and
what it was customized on stay the same. A model of a test is the same as one of a training when
they share a generated image, or when every exemplar of it was an exemplar in training: then its
generator was drawn toward nothing new, however few or other images of it are listed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.cases import CustomizedModel, TestCase
from ingest.errors import SourceError, UsageError
from ingest.item import printable

__all__ = ["Contents", "Seen", "contents_of", "facts_of", "refuse_overlap"]

_HASH = 16


@dataclass(frozen=True, slots=True)
class Contents:
    """A customized model by the content of its images: 16 hex digits each.

    Attributes:
        whole: of all its images together, as cards before `generated` and `exemplars` have it.
        generated: of each generated image, to its path.
        exemplars: of each exemplar, to its path.
    """

    whole: str
    generated: Mapping[str, str]
    exemplars: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """What customized models something was tuned on.

    Attributes:
        whole: hashes of `Contents.whole`.
        generated: of generated images.
        exemplars: of exemplars.
    """

    whole: frozenset[str] = frozenset()
    generated: frozenset[str] = frozenset()
    exemplars: frozenset[str] = frozenset()

    @classmethod
    def in_card(cls, card: object) -> Seen:
        """What a model's card says; whatever else stands there is passed over."""
        tuning = card.get("tuning") if isinstance(card, dict) else None
        values = tuning if isinstance(tuning, dict) else {}
        return cls(*(_texts(values.get(name)) for name in ("models", "generated", "exemplars")))

    def __bool__(self) -> bool:
        return bool(self.whole or self.generated or self.exemplars)

    def has(self, model: Contents) -> bool:
        """Whether that customized model is one of them."""
        return (
            model.whole in self.whole
            or not self.generated.isdisjoint(model.generated)
            or self.exemplars.issuperset(model.exemplars)
        )

    def has_exemplar_of(self, model: Contents) -> bool:
        """Whether an exemplar of that customized model is one of theirs too."""
        return not self.exemplars.isdisjoint(model.exemplars)


def contents_of(model: CustomizedModel, root: Path) -> Contents:
    """A customized model by the content of its images, which lie below `root`.

    Raises:
        SourceError: one of them cannot be read.
    """
    digests = {path: _digest(root / path) for path in dict.fromkeys(model.images)}
    whole = hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()[:_HASH]
    made = (path for paths in model.synth.values() for path in paths)
    return Contents(
        whole,
        {digests[path][:_HASH]: path for path in made},
        {digests[path][:_HASH]: path for path in model.exemplars},
    )


def facts_of(models: Sequence[Contents]) -> dict[str, list[str]]:
    """For the card of a model that was tuned on these, see `Seen.in_card`.

    A generated image that several of them have, such as the black one of a safety filter, tells
    none of them and is left out.
    """
    made = Counter(digest for model in models for digest in model.generated)
    return {
        "models": [model.whole for model in models],
        "generated": sorted(digest for digest, count in made.items() if count == 1),
        "exemplars": sorted({digest for model in models for digest in model.exemplars}),
    }


def refuse_overlap(
    a: Sequence[TestCase], b: Sequence[TestCase], what: str = "train and test"
) -> None:
    """Refuse two splits that share a model: one exemplar or generated image in both tells.

    Raises:
        UsageError: it names the first model that stands in both.
        SourceError: an image that cannot be read.
    """
    first = list(_models(a))
    shared = Counter(digest for *_, contents in first for digest in contents.generated)
    owners: dict[str, tuple[TestCase, CustomizedModel]] = {}
    for case, model, contents in first:
        alone = (digest for digest in contents.generated if shared[digest] == 1)
        for digest in (*contents.exemplars, *alone):
            owners.setdefault(digest, (case, model))
    for case, model, contents in _models(b):
        for digest, path in {**contents.exemplars, **contents.generated}.items():
            found = owners.get(digest)
            if found is not None:
                raise UsageError(
                    f"model {model.id} of {case.name} stands in {what}: model {found[1].id} of "
                    f"{found[0].name} has {printable(path)} too; a model belongs to one split"
                )


def _models(cases: Iterable[TestCase]) -> Iterator[tuple[TestCase, CustomizedModel, Contents]]:
    for case in cases:
        for model in case.models:
            yield case, model, contents_of(model, case.root)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as exc:
        raise SourceError(f"cannot read {printable(str(path))}: {exc}") from exc


def _texts(value: Any) -> frozenset[str]:  # noqa: ANN401 (JSON)
    return (
        frozenset(one for one in value if isinstance(one, str))
        if isinstance(value, list)
        else (frozenset())
    )
