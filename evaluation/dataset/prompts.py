"""The prompts that customized models are asked with: free ones, and procedural ones.

As in the paper (section 3.1): for objects free prompts around ``<new1> class`` and media ("a
watercolor of <new1> class"); for styles free prompts "in the style of <new1>" and objects in it.
The lists are our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.dataset.generator import TOKEN
from evaluation.dataset.settings import Kind
from ingest.errors import SourceError, UsageError

__all__ = ["SLOT", "Prompt", "PromptLists", "read_prompts", "shipped_prompts", "without_token"]

SLOT = "{}"
_MAX_BYTES = 4 * 1024 * 1024
_MAX_LENGTH = 1000


@dataclass(frozen=True)
class Prompt:
    """kind: ``free``, or ``media`` (objects) / ``object`` (styles); text: with the new word."""

    kind: str
    text: str


@dataclass(frozen=True)
class PromptLists:
    """Templates, each with one slot ``{}`` for what the new word stands for.

    Attributes:
        free: written prompts.
        procedural: of media for objects; of objects for styles.
        kind: of the procedural ones, as AbC's test cases call them: ``media`` or ``object``.
    """

    free: tuple[str, ...]
    procedural: tuple[str, ...]
    kind: str

    def choose(self, subject: str, count: int, choices: np.random.Generator) -> list[Prompt]:
        """`count` prompts of `subject`, half free (one more if odd), none twice before all once."""
        free = _drawn(self.free, count - count // 2, choices)
        procedural = _drawn(self.procedural, count // 2, choices)
        return [
            *(Prompt("free", text.replace(SLOT, subject)) for text in free),
            *(Prompt(self.kind, text.replace(SLOT, subject)) for text in procedural),
        ]


def shipped_prompts(kind: Kind) -> PromptLists:
    """The lists that come with attrib."""
    lists = _shipped()
    if kind == "object":
        return PromptLists(tuple(lists["object"]["free"]), tuple(lists["object"]["media"]), "media")
    made = tuple(
        template.replace("{object}", thing)
        for template in lists["style"]["object"]
        for thing in lists["objects"]
    )
    return PromptLists(tuple(lists["style"]["free"]), made, "object")


def read_prompts(path: Path, kind: Kind) -> PromptLists:
    """Free prompts of a text file, one a line; each with one slot ``{}``. ``#`` begins a comment.

    The procedural ones are attrib's own.

    Raises:
        SourceError: unreadable.
        UsageError: no prompt, or one without a slot; it names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path} is larger than {_MAX_BYTES >> 20} MiB, no list of prompts is")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} is no UTF-8 text: {exc.reason}") from exc
    free = []
    for number, line in enumerate(lines, start=1):
        text = " ".join(line.split())
        if text and not text.startswith("#"):
            free.append(checked(text, f"{path}, line {number}"))
    if not free:
        raise UsageError(f"{path} holds no prompt")
    own = shipped_prompts(kind)
    return PromptLists(tuple(free), own.procedural, own.kind)


def without_token(prompt: str) -> str:
    """The same words for a generator that does not know the new one."""
    for phrase in (f" in the style of {TOKEN}", f"{TOKEN} ", TOKEN):
        prompt = prompt.replace(phrase, "")
    return " ".join(prompt.split())


def checked(text: str, where: str) -> str:
    """The template, if it is one.

    Raises:
        UsageError: it is not.
    """
    if text.count(SLOT) != 1:
        raise UsageError(
            f"{where}: a prompt needs one slot {SLOT} for {TOKEN}, this has {text.count(SLOT)}: "
            f"{text[:60]!r}"
        )
    if re.search(r"[\x00-\x1f\x7f]", text) or len(text) > _MAX_LENGTH:
        raise UsageError(f"{where}: not one line of up to {_MAX_LENGTH} characters")
    return text


def _drawn(templates: Sequence[str], count: int, choices: np.random.Generator) -> list[str]:
    drawn: list[str] = []
    while len(drawn) < count:
        order = choices.permutation(len(templates))
        drawn += [templates[i] for i in order[: count - len(drawn)]]
    return drawn


@cache
def _shipped() -> dict[str, Any]:
    text = resources.files(__package__ or "evaluation.dataset").joinpath("prompt_lists.json")
    lists: dict[str, Any] = json.loads(text.read_text("utf-8"))
    return lists
