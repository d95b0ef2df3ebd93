"""The published evaluation, slowly: one sort of the whole gallery for each query.

Follows the behaviour of `validate` and `average_precision` in `eval.py` of
https://github.com/PeterWang512/GenDataAttribution step by step, in float64: the gallery of a query
is the distractors and then its own model's exemplars; scores; argsort of the negated scores; a hit
is a position that comes from behind the distractors; average precision over the hits' positions;
recall is the hits among the first k over the number of exemplars.

Ties: `torch.argsort` promises no order among equals. On CPUs it keeps the order of the gallery, in
which the distractors come first: pessimistic. `stable=True` here asks for that order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.features import CaseFeatures


def published(
    case: CaseFeatures, distractors: NDArray[np.floating], recall_ks: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision (queries,) and recall (queries, ks)."""
    precisions, recalls = [], []
    for query, model in zip(case.synth, case.synth_model, strict=True):
        own = case.exemplars_of(int(model))
        gallery = np.concatenate([distractors, own]).astype(np.float64)
        # A sum a row, not a matrix product: equal rows must have equal scores.
        scores = np.array([float((row * query).sum()) for row in gallery])
        order = np.argsort(-scores, stable=True)
        hits = order >= len(distractors)
        positions = np.flatnonzero(hits) + 1
        precisions.append(float(np.sum(np.arange(1, len(own) + 1) / positions) / len(own)))
        recalls.append([float(hits[:k].sum() / len(own)) for k in recall_ks])
    return np.array(precisions), np.array(recalls).reshape(len(case.synth), len(recall_ks))


def features(random: np.random.Generator, count: int, dim: int) -> NDArray[np.float32]:
    """(count, dim) uniform on the sphere."""
    drawn = random.standard_normal((count, dim))
    unit: NDArray[np.float32] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


def random_case(
    random: np.random.Generator,
    exemplars: list[int],
    queries: int,
    dim: int,
    *,
    signal: float = 0.5,
    name: str = "made-up",
) -> CaseFeatures:
    """Models with the given numbers of exemplars, and queries near a random one of their model's.

    Prompt types alternate between `gpt` and `media`.
    """
    chunks = np.concatenate([[0], np.cumsum(exemplars)]).astype(np.int64)
    own = features(random, int(chunks[-1]), dim)
    model = random.integers(len(exemplars), size=queries)
    near = chunks[model] + random.integers(np.diff(chunks)[model])
    synth = signal * own[near] + (1 - signal) * features(random, queries, dim)
    synth /= np.linalg.norm(synth, axis=1, keepdims=True)
    return CaseFeatures(
        name,
        tuple(f"model {i}" for i in range(len(exemplars))),
        own,
        chunks,
        synth.astype(np.float32),
        model.astype(np.int64),
        tuple(("gpt", "media")[i % 2] for i in range(queries)),
    )
