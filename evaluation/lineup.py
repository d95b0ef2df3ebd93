"""Which attribution models are evaluated beside each other, and whether they may be."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from embed.model import AttributionModel, identity_model
from evaluation.cases import TestCase
from evaluation.overlap import Contents, Seen, contents_of
from ingest.errors import UsageError

__all__ = ["by_backbone", "is_tuned", "seen_models"]


def is_tuned(model: AttributionModel) -> bool:
    """Whether its mappers change anything."""
    pair = model.mappers
    return not pair.real_mapper.kind == pair.synth_mapper.kind == "identity"


def by_backbone(models: Sequence[AttributionModel], untuned: bool) -> list[list[AttributionModel]]:
    """Models that share base features, the untuned first; backbones in order of appearance.

    Args:
        models: of different names.
        untuned: add the untuned model of a backbone that is named with tuned ones only.

    Raises:
        UsageError: two models of one name, or on different weights of one backbone.
    """
    groups: dict[str, list[AttributionModel]] = {}
    for model in models:
        key = json.dumps(model.backbone.to_dict(), sort_keys=True)
        groups.setdefault(key, []).append(model)
    for key, group in groups.items():
        hashes = {model.weights_hash for model in group if model.weights_hash}
        if len(hashes) > 1:
            raise UsageError(
                f"{', '.join(model.name for model in group)} stand on different weights of "
                f"{group[0].backbone.name}; evaluate them one by one"
            )
        if untuned and all(is_tuned(model) for model in group):
            group.append(_untuned(group[0], {model.name for model in models}))
        known = next(iter(hashes), "")
        groups[key] = sorted((replace(m, weights_hash=known) for m in group), key=is_tuned)
    names = [model.name for group in groups.values() for model in group]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two of the models are named {twice}; evaluate each once")
    return list(groups.values())


def _untuned(model: AttributionModel, taken: Collection[str]) -> AttributionModel:
    plain = identity_model(model.backbone)
    return replace(plain, name=f"{plain.name} untuned") if plain.name in taken else plain


def seen_models(
    models: Sequence[AttributionModel], cases: Sequence[TestCase], allowed: bool
) -> dict[str, str]:
    """A warning for each model, by name, that was tuned on some of these customized models.

    A model says so in its card, see `evaluation.overlap`. One that shares no more than some
    exemplars with them is warned of, too.

    Raises:
        UsageError: one was tuned on some of them and it is not `allowed`.
        SourceError: an image that cannot be read.
    """
    contents: dict[str, Contents] = {}
    told = {}
    for model in models:
        seen = Seen.in_card(model.card)
        if seen and not contents:
            contents = {
                f"{one.id} of {case.name}": contents_of(one, case.root)
                for case in cases
                for one in case.models
            }
        both = [name for name, one in contents.items() if seen.has(one)]
        near = [name for name, one in contents.items() if seen.has_exemplar_of(one)]
        if both:
            line = f"model {model.name} was tuned on {len(both)} of these models (first: {both[0]})"
            if not allowed:
                raise UsageError(
                    f"{line}; its scores would say nothing of others: leave them out, or add "
                    "--allow-seen"
                )
            told[model.name] = f"{line}; its scores say nothing of others"
        elif near:
            told[model.name] = (
                f"model {model.name} was tuned on some of the exemplars of {len(near)} of these "
                f"models (first: {near[0]}); their scores may flatter it"
            )
    return told
