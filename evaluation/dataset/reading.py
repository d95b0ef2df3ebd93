"""How far a generator reads prompts: what is behind the limit of its tokenizer it never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evaluation.dataset.generator import TOKEN, Generator
from evaluation.dataset.plan import ModelPlan
from evaluation.dataset.prompts import SLOT, PromptLists, shipped_prompts
from evaluation.dataset.settings import Kind
from ingest.errors import UsageError

__all__ = ["cut_prompts", "readable_lists", "reads_template"]

_SHOWN = 60


def reads_template(generator: Generator, template: str) -> bool:
    """Whether the generator reads as far as the new word. What follows that does not move it."""
    return generator.reads_token(template.replace(SLOT, TOKEN))


def readable_lists(
    generator: Generator, name: str, lists: PromptLists, kind: Kind
) -> tuple[PromptLists, list[str]]:
    """The lists without those of attrib's own prompts that are too long; and what is to be told.

    Raises:
        UsageError: a prompt that the caller gave is too long, or all of ours are.
    """
    shipped = set(shipped_prompts(kind).free)
    for template in lists.free:
        if template not in shipped and not reads_template(generator, template):
            raise UsageError(
                f"{name} does not read as far as {SLOT} in the prompt "
                f"{template[:_SHOWN]!r}...: shorten what is before it"
            )
    free = tuple(text for text in lists.free if reads_template(generator, text))
    procedural = tuple(text for text in lists.procedural if reads_template(generator, text))
    if not free or not procedural:
        remedy = "; give short ones with --prompts" if procedural else ": take another generator"
        raise UsageError(f"{name} does not read as far as {TOKEN} in any of our prompts{remedy}")
    whole = len(lists.free) + len(lists.procedural)
    told = []
    if lost := whole - len(free) - len(procedural):
        told.append(
            f"prompts of ours, left out: {lost} of {whole}; {name} does not read as far as {TOKEN}"
        )
    return replace(lists, free=free, procedural=procedural), told


def cut_prompts(generator: Generator, name: str, models: Sequence[ModelPlan]) -> list[str]:
    """What is to be told of prompts whose ends are not read: at most one line."""
    texts = [prompt.text for model in models for prompt in model.prompts]
    cut = [text for text in texts if not generator.reads_all(text)]
    if not cut:
        return []
    return [
        f"{len(cut)} of {len(texts)} prompts are longer than {name} reads, their ends are cut off "
        f"(first: {cut[0][:_SHOWN]!r})"
    ]
