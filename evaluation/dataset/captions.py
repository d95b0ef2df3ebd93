"""Free prompts that a language model writes, behind any endpoint that speaks OpenAI's protocol.

As the paper had ChatGPT write captions of each class (section 3.1). What comes back is other
people's text: each line is looked at, and only what is a prompt is kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from evaluation.dataset.endpoint import AnswerError, Endpoint, RefusedError, UnreachedError, asked
from evaluation.dataset.generator import TOKEN
from evaluation.dataset.prompts import SLOT
from evaluation.dataset.settings import BuildSettings
from ingest.errors import RunError
from ingest.item import printable

__all__ = ["Captions"]

_MAX_LENGTH = 200
"""Characters: CLIP's 77 tokens hold them. Generators that read less say so."""
_ROUNDS = 3
_NAMED = 8
_STYLE = "any style"
_BULLET = re.compile(r"^(?:[-*•–]|\(?\d{1,3}[.):])\s+")
_QUOTES = "\"'“”‘’«»`"


class Captions:
    """Templates of an endpoint by class word; each word is asked for once.

    Args:
        endpoint: to be asked.
        settings: kind, and images of a model: half of them have a caption of their own.
        kept: `values` of an earlier call: nothing is asked any more.
        is_read: whether the generator reads as far as a template's slot.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: BuildSettings,
        kept: Mapping[str, Any] | None = None,
        *,
        is_read: Callable[[str], bool] = bool,
    ) -> None:
        self._endpoint = endpoint
        self._is_read = is_read
        self._kind = settings.kind
        self._count = settings.per_model - settings.per_model // 2
        self._is_kept = kept is not None
        self._written = _texts((kept or {}).get("written"), list)
        self._lacking = _texts((kept or {}).get("lacking"), str)
        self._down = ""

    def of(self, name: str) -> tuple[str, ...]:
        """Templates for a class word, or for any creator; () where the shipped ones are to serve.

        Raises:
            RunError: the endpoint refuses, which no waiting will mend, or was never there.
        """
        # Whose style it is to be does not matter for what is shown in it, and is nobody's business.
        name = name if self._kind == "object" else _STYLE
        if not self._is_kept and name not in self._written and name not in self._lacking:
            self._ask(name)
        return tuple(self._written.get(name, ()))

    def told(self) -> list[str]:
        """At most one line: for which words the shipped prompts serve, and why."""
        if not self._lacking:
            return []
        names = sorted(self._lacking)
        shown = ", ".join(f"{printable(name)}: {self._lacking[name]}" for name in names[:_NAMED])
        more = ", ..." if len(names) > _NAMED else ""
        return [f"{self._endpoint.url} wrote too few prompts, ours are used ({shown}{more})"]

    def values(self) -> dict[str, Any]:
        """All of it as JSON values, for the plan."""
        return {
            "endpoint": self._endpoint.url,
            "model": self._endpoint.model,
            "written": {name: list(texts) for name, texts in self._written.items()},
            "lacking": dict(self._lacking),
        }

    def _ask(self, name: str) -> None:
        found: dict[str, str] = {}
        why = self._down
        for turn in range(_ROUNDS if not self._down else 0):
            try:
                text = asked(self._endpoint, _request(name, self._kind, self._count - len(found)))
            except RefusedError as exc:
                url = self._endpoint.url
                raise RunError(f"cannot have prompts written by {url}: {exc}") from exc
            except AnswerError as exc:
                why = str(exc)
                never = isinstance(exc, UnreachedError) and not (self._written or self._lacking)
                if never and turn + 1 == _ROUNDS:
                    # A mistyped address: a whole set with other prompts than were asked for.
                    raise RunError(
                        f"cannot have prompts written by {self._endpoint.url}: {exc}; start it, or "
                        "leave --prompts-from out"
                    ) from exc
                if turn + 1 < _ROUNDS:
                    time.sleep(self._endpoint.pause_s * 2**turn)
                continue
            why = ""
            for line in text.splitlines():
                caption = _usable(line, name if self._kind == "object" else "", self._endpoint.key)
                if caption and len(found) < self._count and self._is_read(caption):
                    found.setdefault(caption.casefold(), caption)
            if len(found) == self._count:
                break
        if 2 * len(found) >= self._count:
            self._written[name] = list(found.values())
            return
        if why and not found:
            self._down = why
        self._lacking[name] = why or f"{len(found)} of {self._count}"


def _request(name: str, kind: str, count: int) -> str:
    form = (
        f"Give one caption a line, {count} lines in all: no numbers, no quotation marks, nothing "
        "else."
    )
    if kind == "object":
        return (
            f"Write {count} short, varied captions of images that show a {name}: in places, at "
            f"events, together with other things. Write {SLOT} instead of the word {name}, exactly "
            f"once in each caption, as in: {SLOT} on a wooden table. {form}"
        )
    return (
        f"Write {count} short, varied captions of pictures by an artist: landscapes, people, "
        f"things, scenes. Each ends with the words: in the style of {SLOT}. Write {SLOT} exactly "
        f"like this, and once in each caption. {form}"
    )


def _usable(line: str, word: str, key: str) -> str | None:
    """The template in a line, if there is one; a class word that was written out is its slot."""
    text = _BULLET.sub("", " ".join(line.split())).strip(_QUOTES + " ")
    if word:
        spoken = rf"(?<!\w){re.escape(word)}(?!\w)"
        if SLOT in text:
            text = re.sub(rf"{re.escape(SLOT)} {spoken}", SLOT, text, flags=re.IGNORECASE)
        else:
            text = re.sub(spoken, SLOT, text, flags=re.IGNORECASE)
    wrong = (
        text.count(SLOT) != 1
        or len(text) > _MAX_LENGTH
        or len(text) < len(SLOT) + 2
        or not text.isprintable()
        or TOKEN in text
        or (key and key in text)
    )
    return None if wrong else text


def _texts(values: object, kind: type) -> dict[str, Any]:
    """What a plan kept, if it is of the right kind."""
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, kind)}
