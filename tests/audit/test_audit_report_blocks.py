"""What a report's data and page are made of: no text ends them, nothing else is let in."""

from __future__ import annotations

import json
import math
import zlib
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_audit import each, make_audit
from made_records import HOSTILE
from report_reader import Elements, Report

from search.audit.report import write_report
from search.audit.report_blocks import as_json, json_script, packed
from search.audit.report_numbers import counted_numbers, counted_shares

PAGE = Path(__file__).parents[2] / "search" / "audit" / "report_page"

TEXT = st.text() | st.lists(
    st.sampled_from(
        ["</script>", "<!--", "-->", "<script", "]]>", "<", "/", "!", "\\", '"', "\0", "\r"]
    )
).map("".join)
JSON = st.recursive(
    TEXT | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@given(JSON)
@example(HOSTILE)
@example({"</script><script>": "<!--<script>"})
def test_no_text_ends_the_element_that_it_stands_in(value: object) -> None:
    elements = Elements()
    elements.feed(f"<p>{json_script('data', value)}<i>after</i>")
    elements.close()
    assert [tag for tag, _ in elements.attributes] == ["p", "script", "i"]
    [(attributes, text)] = elements.scripts
    assert attributes == {"type": "application/json", "id": "data"}
    assert json.loads(text) == value
    assert "<" not in text
    assert text.isascii()
    assert not any(ord(character) < 32 for character in text)  # HTML would change NUL and CR


@given(JSON)
def test_packed_is_the_same_json_and_the_same_bytes(value: object) -> None:
    assert json.loads(zlib.decompress(b64decode(packed(value), validate=True))) == value
    assert packed(value) == packed(value)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_json_does_not_have_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json([number])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    out = make_audit(tmp_path_factory.mktemp("report") / "audit", 40, 2, hostile=True)
    return Report(write_report(out, lambda _: None, each(lambda _: None)))


def test_hostile_texts_come_back_as_they_were(hostile: Report) -> None:
    assert [item[0] for item in hostile.items("index")][:9] == [
        key if len(key) <= 2000 else key[:1999] + "…"
        for key in (f"{number}/{text}" for number, text in enumerate(HOSTILE))
    ]
    captions = {record[7] for record in hostile.items("training")}
    assert {text for text in HOSTILE if len(text) <= 2000} <= captions


def test_policy_lets_in_the_page_s_own_script_and_style_alone(hostile: Report) -> None:
    [policy] = [
        of["content"]
        for tag, of in hostile.elements.attributes
        if tag == "meta" and of.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    code = [text for of, text in hostile.elements.scripts if "type" not in of]
    assert len(code) == 2

    def digest(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules == {
        "default-src": "'none'",
        "script-src": " ".join(map(digest, code)),
        "style-src": " ".join(map(digest, hostile.elements.styles)),
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    kinds = {of.get("type") for of, _ in hostile.elements.scripts}
    assert kinds == {None, "application/json", "application/octet-stream"}


def test_page_points_nowhere_and_holds_no_code_in_attributes(hostile: Report) -> None:
    for tag, attributes in hostile.elements.attributes:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag
            if name in ("href", "src"):
                assert value is not None
                assert value.startswith(("#", "data:image/svg+xml;base64,")), (tag, value)
    for file in PAGE.glob("*.js"):
        source = file.read_text()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "fetch(",
        ):
            assert word not in source, file
    assert "@@" not in hostile.html
    code = "".join(text for of, text in hostile.elements.scripts if "type" not in of)
    assert "\nimport " not in code
    assert "\nexport " not in code


def test_wide_shares_are_counted_by_twentieths() -> None:
    found = counted_shares(np.array([0, 0.049, 0.05, 0.5, 0.999, 1, math.nan] * 20))
    assert found["edges"] == [round(step / 20, 6) for step in range(21)]
    assert found["counts"] == [40, 20, *[0] * 8, 20, *[0] * 8, 40]
    assert found["median"] == pytest.approx(0.275)
    assert not found["open"]


def test_small_shares_are_told_apart() -> None:
    """What remains beside 99 % of the influence is less than 1 %: in twentieths it was one bar."""
    remaining = np.linspace(0.0004, 0.0099, 200)
    found = counted_shares(remaining)
    assert (found["edges"][0], found["edges"][-1]) == (0, 0.01)
    assert len(found["counts"]) == 20
    assert min(found["counts"]) > 0
    assert not found["open"]
    with_one = counted_shares(np.append(remaining, 0.7))
    assert with_one["edges"][-1] <= 0.011
    assert with_one["open"]
    assert with_one["counts"][-1] == 1


def test_large_shares_begin_where_they_are() -> None:
    found = counted_shares(np.linspace(0.81, 0.899, 100))
    assert (found["edges"][0], found["edges"][-1]) == (0.81, 0.9)


@pytest.mark.parametrize(
    ("values", "edges"),
    [([0.0] * 9, [0, 0.01]), ([1.0] * 9, [0.99, 1]), ([0.3], [0.3, 0.31]), ([0.005], [0, 0.01])],
)
def test_equal_shares_are_one_bar(values: list[float], edges: list[float]) -> None:
    found = counted_shares(np.array(values))
    assert (found["edges"], found["counts"]) == (edges, [len(values)])


def test_few_images_have_few_bars() -> None:
    values = np.array([0.13, 0.14, 0.17, 0.31, 0.47])
    assert len(counted_shares(values)["counts"]) <= 8
    assert len(counted_numbers(values * 40)["counts"]) <= 8


def test_numbers_are_counted_in_round_steps_and_the_far_ones_together() -> None:
    values = np.array([1.0] * 40 + [3.2] * 40 + [20.9] * 19 + [400.0])
    found = counted_numbers(values)
    assert found["edges"] == [float(edge) for edge in range(1, 22)]  # from 1 to 20.9, by one
    assert found["open"]
    assert found["counts"] == [40, 0, 40] + [0] * 16 + [19, 1]
    assert found["median"] == pytest.approx(3.2)


def test_small_numbers_are_told_apart_beside_large_ones() -> None:
    """Steps of 5 up to 100 held half of the images in the first one."""
    values = np.array([1.0] * 40 + [1.3] * 30 + [1.7] * 30 + list(np.linspace(2, 100, 60)))
    found = counted_numbers(values)
    assert found["edges"][:4] == [1, 1.2, 1.5, 2]
    assert found["counts"][:3] == [40, 30, 30]
    widths = np.diff(found["edges"])
    assert (widths[1:] >= widths[:-1] - 1e-9).all()
    assert len(found["counts"]) <= 21


@given(st.lists(st.floats(0, 1), max_size=60))
def test_every_share_is_counted_once(values: list[float]) -> None:
    known = np.array(values, np.float64)
    found = counted_shares(known)
    assert sum(found["counts"]) == len(values)
    assert found["edges"] == sorted(set(found["edges"]))
    assert found["edges"][0] >= 0
    assert found["edges"][-1] <= 1
    assert len(found["counts"]) == len(found["edges"]) - (not found["open"])
    assert len(found["counts"]) <= 24
    if values:
        assert found["edges"][0] <= known.min() + 1e-6
        assert found["open"] or known.max() <= found["edges"][-1] + 1e-6
    few = counted_numbers(np.array([1.0, 1.0]))
    assert sum(few["counts"]) == 2
    assert counted_numbers(np.array([]))["median"] is None


@given(st.lists(st.floats(1, 1e5), max_size=60))
def test_every_number_is_counted_once(values: list[float]) -> None:
    found = counted_numbers(np.array(values, np.float64))
    assert sum(found["counts"]) == len(values)
    assert found["edges"] == sorted(set(found["edges"]))
    assert len(found["counts"]) == len(found["edges"]) - (not found["open"])
    assert len(found["counts"]) <= 24
