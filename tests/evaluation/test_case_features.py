"""CaseFeatures: a hand-worked case of three models, cut, mapped and refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embed.mapper import Mapper, MapperPair
from evaluation.features import CaseFeatures
from ingest.errors import ModelError, RunError, SourceError, WeightsError


def case() -> CaseFeatures:
    """Models a, b, c with 2, 1 and 3 exemplars; row i of the exemplars is (i, 1)."""
    return CaseFeatures(
        name="case",
        model_ids=("a", "b", "c"),
        exemplars=np.array([[i, 1] for i in range(6)], dtype=np.float32),
        chunks=np.array([0, 2, 3, 6]),
        synth=np.array([[i, 2] for i in range(5)], dtype=np.float32),
        synth_model=np.array([2, 0, 1, 0, 2]),
        synth_type=("gpt", "gpt", "media", "media", "media"),
    )


def test_counts() -> None:
    features = case()
    assert features.dim == 2
    np.testing.assert_array_equal(features.positives, [3, 2, 1, 2, 3])
    np.testing.assert_array_equal(features.exemplars_of(1), [[2, 1]])
    np.testing.assert_array_equal(features.exemplars_of(2), [[3, 1], [4, 1], [5, 1]])


def test_some_models_in_another_order() -> None:
    some = case().of_models([2, 0])
    assert some.model_ids == ("c", "a")
    np.testing.assert_array_equal(some.exemplars[:, 0], [3, 4, 5, 0, 1])
    np.testing.assert_array_equal(some.chunks, [0, 3, 5])
    np.testing.assert_array_equal(some.synth[:, 0], [0, 1, 3, 4])  # in their own order
    np.testing.assert_array_equal(some.synth_model, [0, 1, 1, 0])
    assert some.synth_type == ("gpt", "gpt", "media", "media")
    np.testing.assert_array_equal(some.positives, [3, 2, 2, 3])


def test_no_models() -> None:
    none = case().of_models([])
    assert (len(none.exemplars), len(none.synth), none.dim) == (0, 0, 2)


def test_each_side_has_its_mapper() -> None:
    pair = MapperPair(Mapper.channel([1, 0]), Mapper.channel([0, -3]))
    mapped = case().mapped(pair)
    np.testing.assert_array_equal(mapped.exemplars, [[0, 0]] + [[1, 0]] * 5)
    np.testing.assert_array_equal(mapped.synth, [[0, -1]] * 5)
    assert mapped.model_ids == case().model_ids
    with pytest.raises(ModelError, match=r"base features are \(6, 2\), the mapper takes \(n, 3\)"):
        case().mapped(MapperPair.identity(3))


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        (
            {"synth": np.zeros((5, 3), np.float32)},
            ModelError,
            "case: exemplars are (6, 2), generated images (5, 3); both must be (images, dim) of "
            "one dim",
        ),
        ({"model_ids": ("a", "b", "a")}, SourceError, "case: two models of one name"),
        (
            {"chunks": np.array([0, 2, 6])},
            SourceError,
            "case: the exemplars are not divided among 3 models",
        ),
        (
            {"chunks": np.array([0, 2, 3, 5])},
            SourceError,
            "case: the exemplars are not divided among 3 models",
        ),
        ({"chunks": np.array([0, 2, 2, 6])}, SourceError, "case: model b has no exemplar"),
        ({"chunks": np.array([0, 4, 3, 6])}, SourceError, "case: model b has no exemplar"),
        (
            {"synth_type": ("gpt",)},
            SourceError,
            "case: not every generated image has a model and a type",
        ),
        (
            {"synth_model": np.array([0, 1, 2, 3, 0])},
            SourceError,
            "case: a generated image of a model that is not there",
        ),
        (
            {"exemplars": np.full((6, 2), np.inf, np.float32)},
            WeightsError,
            "case: 6 of 6 exemplars have features that are not finite",
        ),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], kind: type[RunError], expected: str) -> None:
    with pytest.raises(kind) as caught:
        replace(case(), **changes)
    assert str(caught.value) == expected
