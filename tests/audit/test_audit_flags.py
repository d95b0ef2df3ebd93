"""What raises a flag, and thresholds: given and derived."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from brute_index import BruteIndex
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import UsageError
from search.audit.derived import NOTHING_CLOSE, nearest_others, thresholds_for
from search.audit.flags import (
    FLAGS,
    Flag,
    Thresholds,
    flags_in_words,
    image_flags,
    parse_thresholds,
)
from search.audit.near_copy import BY_EDGES, COPY_MODELS

GIVEN = Thresholds(near_copy=0.9, look_from=0.5, nothing_close=0.4)
PLAIN: dict[str, Any] = {
    "copy_of": "",
    "top_influence": 0.49,
    "top_similarity": 0.4,
    "sources": 9,
    "main_creator": "A",
    "main_creator_share": 0.49,
    "duplicate_of": "",
}


@pytest.mark.parametrize(
    ("changed", "flags"),
    [
        ({}, []),
        ({"copy_of": "id"}, ["near-copy"]),
        ({"top_influence": 0.5}, ["one-source"]),
        ({"main_creator_share": 0.5}, ["one-creator"]),
        ({"main_creator": "", "main_creator_share": 0.7}, []),
        ({"top_similarity": 0.399}, ["nothing-close"]),
        ({"top_similarity": None}, []),
        ({"duplicate_of": "a.png"}, ["duplicate"]),
        (
            {"copy_of": "id", "top_influence": 0.9, "main_creator_share": 0.9},
            ["near-copy", "one-creator", "one-source"],
        ),
    ],
)
def test_flags_of_an_image(changed: dict[str, Any], flags: list[str]) -> None:
    assert image_flags(PLAIN | changed, GIVEN) == flags


def test_nothing_close_is_not_raised_where_no_threshold_is_known() -> None:
    unknown = replace(GIVEN, nothing_close=None)
    assert image_flags(PLAIN | {"top_similarity": -1.0}, unknown) == []


MODELS = ["efficientnet-lite0", "efficientnet-lite0-clipart", "mine"]


@pytest.mark.parametrize("model", MODELS)
def test_every_flag_says_what_it_is_and_how_often_it_errs(model: str) -> None:
    told = flags_in_words(thresholds_for(None, model), model)
    assert tuple(told) == FLAGS
    for name, flag in told.items():
        assert flag.name == name
        assert all((flag.title, flag.definition, flag.threshold, flag.error))
        assert "look-from" not in flag.threshold
        assert "_" not in flag.threshold


def rates(model: str, copy_model: str = "", **given: float) -> dict[str, Flag]:
    """What the flags say where all but `given` is left to what is usual."""
    usual = thresholds_for(None, model, Thresholds(**given), copy_model)
    return dict(flags_in_words(usual, model, copy_model))


def test_rates_are_quoted_at_the_thresholds_that_they_were_measured_at() -> None:
    """A default that moves on without its rates being measured again must not quote them."""
    assert set(NOTHING_CLOSE) == {"efficientnet-lite0", "efficientnet-lite0-clipart"}
    for model in NOTHING_CLOSE:
        told = rates(model)
        for name in ("near-copy", "nothing-close", "duplicate"):
            assert "not measured" not in told[name].error, name
            assert "95 %" in told[name].error, name
            assert told[name].measured_by == "python -m benchmarks.near_copy"
    for copy_model in COPY_MODELS:
        assert "by its authors" in rates("mine", copy_model)["near-copy"].error


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"near_copy": 0.99}, "near-copy"),
        ({"nothing_close": 0.3}, "nothing-close"),
        ({"duplicate": 8}, "duplicate"),
    ],
)
def test_no_rate_is_quoted_at_another_threshold(given: dict[str, float], name: str) -> None:
    flag = rates("efficientnet-lite0", **given)[name]
    assert flag.error == "not measured at this threshold"
    assert flag.measured_by == ""
    assert f"{next(iter(given.values())):g}" in flag.threshold
    others = {other for other in FLAGS if other != name}
    plain = rates("efficientnet-lite0")
    told = rates("efficientnet-lite0", **given)
    assert {other for other in FLAGS if told[other] == plain[other]} == others


def test_words_name_the_thresholds_that_were_used() -> None:
    told = rates("mine", one_source=0.8, one_creator=0.1, near_copy=0.99, look_from=0.25)
    assert told["one-source"].definition == (
        "One training image carries 80 % of the influence or more."
    )
    assert told["one-source"].threshold == "influence 80 %"
    assert "together carry 10 % of the influence or more" in told["one-creator"].definition
    assert told["one-creator"].threshold == "summed influence 10 %"
    assert told["near-copy"].threshold == (
        "score 0.99; those with a similarity of 0.25 and more are looked at"
    )
    usual = rates("mine")
    assert "carries half of the influence" in usual["one-source"].definition
    assert usual["near-copy"].threshold == f"score {BY_EDGES:g}; all ten are looked at"
    whole = rates("mine", one_source=1)
    assert "carries all of the influence." in whole["one-source"].definition


def test_nothing_close_that_is_not_raised_says_so() -> None:
    flag = rates("mine")["nothing-close"]
    assert flag.threshold == "none is known for mine, and none was given: the flag is not raised"
    assert flag.error == "none, as it is not raised"
    given = rates("mine", nothing_close=0.3)["nothing-close"]
    assert given.definition.startswith("No training image has a similarity of 0.3 or more")
    assert given.error == "not measured at this threshold"


def test_a_copy_model_is_not_told_the_rates_of_edges() -> None:
    other = rates("efficientnet-lite0", "dino-vitb16", near_copy=BY_EDGES)["near-copy"]
    assert other.error == "not measured at this threshold with dino-vitb16"
    assert other.threshold.startswith(f"cosine of dino-vitb16 {BY_EDGES:g}; ")
    assert "edges" not in other.definition
    assert "dino-vitb16" in other.definition
    known, cosine = next(iter(COPY_MODELS.items()))
    assert "not measured at" in rates("mine", known, near_copy=cosine + 0.1)["near-copy"].error


def test_thresholds_are_parsed() -> None:
    parsed = parse_thresholds(["near-copy=0.8", "nothing-close=0.25", "near-copy=0.9"])
    assert parsed == Thresholds(near_copy=0.9, nothing_close=0.25)
    assert parse_thresholds([]) == Thresholds()
    assert parse_thresholds(["one-source=0.6"], GIVEN) == replace(GIVEN, one_source=0.6)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "near=0.9",
            "no threshold 'near': there are near-copy, look-from, one-source, one-creator, "
            "nothing-close, duplicate",
        ),
        ("near-copy", "threshold 'near-copy' needs a number, as in near-copy=0.9"),
        ("near-copy=nan", "threshold 'near-copy=nan' needs a number, as in near-copy=0.9"),
        ("one-source=high", "threshold 'one-source=high' needs a number, as in one-source=0.9"),
        ("one-source=1.5", "threshold one-source must be from 0 to 1, not 1.5"),
        ("duplicate=-1", "threshold duplicate must be from 0 to 256, not -1"),
        ("nothing-close=-2", "threshold nothing-close must be from -1 to 1, not -2"),
    ],
)
def test_wrong_thresholds_are_refused(text: str, error: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_thresholds([text])
    assert str(caught.value) == error


@given(st.text() | st.text().map(lambda value: f"near-copy={value}x"))
def test_no_text_fails_in_another_way(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_thresholds([text])
    assert len(str(caught.value).splitlines()) == 1


@given(st.sampled_from(["near-copy", "one-source", "nothing-close"]), st.floats(0, 1))
def test_numbers_come_back_as_given(name: str, number: float) -> None:
    parsed = parse_thresholds([f"{name}={number!r}"])
    assert getattr(parsed, name.replace("-", "_")) == number


def index_of(vectors: np.ndarray) -> BruteIndex:
    index = BruteIndex(vectors.shape[1], sample_size=10_000)
    normed = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ids = [uuid.UUID(int=number) for number in range(len(vectors))]
    index.upsert(ids, normed, [{} for _ in ids])
    return index


def test_thresholds_come_from_the_collection_and_the_model() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((250, 8))
    derived = thresholds_for(index_of(vectors), "efficientnet-lite0")
    normed = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarities = normed @ normed.T
    np.fill_diagonal(similarities, -1)
    nearest = similarities.max(axis=1)
    assert derived.near_copy == BY_EDGES
    assert derived.nothing_close == NOTHING_CLOSE["efficientnet-lite0"]
    assert derived.look_from == pytest.approx(np.quantile(nearest, 0.005), abs=1e-4)
    assert thresholds_for(index_of(vectors), "efficientnet-lite0") == derived


def test_equal_pictures_are_not_each_other_s_nearest() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((20, 8))
    once = nearest_others(index_of(vectors))
    twice = nearest_others(index_of(np.concatenate([vectors, vectors])))
    assert sorted(twice.tolist()) == pytest.approx(sorted(once.tolist() * 2), abs=1e-6)


def test_what_is_given_stays_and_nothing_is_searched() -> None:
    index = index_of(np.random.default_rng(3).standard_normal((300, 8)))
    assert thresholds_for(index, "efficientnet-lite0", GIVEN) == GIVEN
    assert index.limits == []


def test_small_collections_and_services_leave_it_open() -> None:
    small = index_of(np.random.default_rng(3).standard_normal((50, 8)))
    for index in (small, None):
        assert thresholds_for(index, "mine") == Thresholds(near_copy=BY_EDGES)


def test_copy_model_has_a_threshold_of_its_own() -> None:
    name, cosine = next(iter(COPY_MODELS.items()))
    assert thresholds_for(None, "mine", copy_model=name).near_copy == cosine
    with pytest.raises(UsageError):
        thresholds_for(None, "mine", copy_model="dino-vitb16")
    assert thresholds_for(None, "mine", Thresholds(near_copy=0.5), "dino-vitb16").near_copy == 0.5
