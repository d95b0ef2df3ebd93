"""The names that metadata goes by."""

from __future__ import annotations

import pytest

from ingest.metadata import Metadata, column_named


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("caption", ["caption", "text", "TEXT", "title"]),
        ("creator", ["creator", "Author", "artist"]),
        ("licence", ["licence", "license"]),
        ("url", ["url", "URL"]),
    ],
)
def test_names(field: str, names: list[str]) -> None:
    for name in names:
        found = Metadata.from_row({name: " x "})
        assert getattr(found, field) == "x"
        assert found.extra == {}


def test_the_first_name_that_says_something_is_used() -> None:
    found = Metadata.from_row({"title": "T", "text": None, "caption": ""})
    assert (found.caption, found.extra) == ("T", {})


def test_extra_takes_small_scalars_only() -> None:
    row = {"a": 1, "b": 0.5, "c": True, "d": None, "e": [1], "f": {"x": 1}, "g": float("nan"),
           "h": "x" * 1001, "i": "x" * 1000, "j": "", "k": "file"}  # fmt: skip
    assert Metadata.from_row(row, without={"k"}).extra == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "i": "x" * 1000,
    }


def test_lone_surrogates_become_text_that_can_be_stored() -> None:
    assert Metadata.from_row({"caption": "a\ud800"}).caption == "a\\ud800"


def test_over_fills_the_gaps() -> None:
    upper = Metadata(caption="upper", extra={"a": 1})
    lower = Metadata(caption="lower", creator="C", extra={"a": 2, "b": 3})
    assert upper.over(lower) == Metadata(caption="upper", creator="C", extra={"a": 1, "b": 3})


def test_column_named_follows_the_order_of_the_names() -> None:
    assert column_named(["file", "path"], ["Path", "FILE"]) == "FILE"
    assert column_named(["file"], ["x"]) is None
