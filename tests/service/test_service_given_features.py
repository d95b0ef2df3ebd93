"""Features in base64: the same answer as from their list, and every fault has its reason."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from search.service.given_features import features_of
from search.service.problems import Problem


def packed(features: NDArray[Any], kind: str) -> str:
    return base64.b64encode(features.astype(kind).tobytes()).decode()


def unit(seed: int) -> NDArray[np.float32]:
    features = np.random.default_rng(seed).standard_normal(512)
    return (features / np.linalg.norm(features)).astype(np.float32)


def test_base64_gives_the_answer_of_the_list(client: httpx.Client) -> None:
    features = unit(1)
    listed = client.post("/v1/attributions", json={"features": features.tolist(), "k": 3}).json()
    text = packed(features, "<f4")
    assert client.post("/v1/attributions", json={"features": text, "k": 3}).json() == listed
    half = features.astype(np.float16).astype(np.float32)
    listed = client.post("/v1/attributions", json={"features": half.tolist(), "k": 3}).json()
    text = packed(features, "<f2")
    assert client.post("/v1/attributions", json={"features": text, "k": 3}).json() == listed


SPOILT = unit(2)
SPOILT[7] = np.nan
FAULTS = [
    (
        "",
        "0 bytes of features were given; the 512 of the model are 2048 as float32, 1024 as float16",
    ),
    ("a", "features as a text must be base64, with its padding"),
    ("AAA", "features as a text must be base64, with its padding"),
    ("AA-_", "features as a text must be base64, with its padding"),
    ("AAAA\n", "features as a text must be base64, with its padding"),
    ("é" * 8, "features as a text must be base64, with its padding"),
    ("\ud800AAA", "features as a text must be base64, with its padding"),
    (
        packed(unit(2)[:511], "<f4"),
        "2044 bytes of features were given; the 512 of the model are 2048 as float32, 1024 as "
        "float16",
    ),
    (packed(SPOILT, "<f4"), "features must be finite numbers"),
    (packed(np.full(512, np.inf), "<f2"), "features must be finite numbers"),
    (packed(2 * unit(2), "<f4"), "features of 'features' are not L2-normalised: norm 2"),
    (packed(unit(2), ">f4"), None),
]


@pytest.mark.parametrize(("text", "detail"), FAULTS)
def test_what_is_wrong_with_base64_is_told(
    client: httpx.Client, text: str, detail: str | None
) -> None:
    body = {"features": text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")}
    response = client.post("/v1/attributions", json=body)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (422, "urn:attrib:problem:wrong-call")
    if detail is None:  # the wrong end first: other numbers, whose norm is none, or not finite
        assert "finite" in problem["detail"] or "not L2-normalised" in problem["detail"]
    else:
        assert problem["detail"] == detail


@given(
    arrays.arrays(
        np.float32, st.integers(1, 40), elements=st.floats(-1e4, 1e4, width=16).map(np.float32)
    )
)
def test_all_three_forms_of_numbers_that_fit_into_16_bits_are_the_same(
    features: NDArray[np.float32],
) -> None:
    dim = len(features)
    for form in (features.tolist(), packed(features, "<f4"), packed(features, "<f2")):
        read = features_of(form, dim)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, features)


@given(
    st.one_of(
        st.text(),
        st.lists(st.one_of(st.booleans(), st.none(), st.integers(), st.floats())),
        st.none(),
    ),
    st.integers(1, 8),
)
def test_whatever_is_given_is_features_or_a_problem(value: object, dim: int) -> None:
    try:
        features = features_of(value, dim)
    except Problem:
        return
    assert features.shape == (dim,)
    assert np.isfinite(features).all()
