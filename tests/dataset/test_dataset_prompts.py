"""Prompt lists: slots, files, choices."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.dataset.generator import TOKEN
from evaluation.dataset.prompts import PromptLists, read_prompts, shipped_prompts, without_token
from ingest.errors import SourceError, UsageError


def test_the_shipped_lists_have_one_slot_each_and_none_twice() -> None:
    for kind, procedural in (("object", "media"), ("style", "object")):
        lists = shipped_prompts(kind)  # type: ignore[arg-type]
        assert lists.kind == procedural
        for some in (lists.free, lists.procedural):
            assert len(some) >= 20
            assert len(set(some)) == len(some)
            assert all(text.count("{}") == 1 for text in some)


def test_half_are_free_and_none_comes_twice_before_all_came_once() -> None:
    lists = PromptLists(("{} here", "{} there"), ("a bust of {}", "a map of {}"), "media")
    chosen = lists.choose("<new1> cat", 5, np.random.default_rng(0))
    assert [prompt.kind for prompt in chosen] == ["free"] * 3 + ["media"] * 2
    assert {prompt.text for prompt in chosen[:2]} == {"<new1> cat here", "<new1> cat there"}
    assert {prompt.text for prompt in chosen[3:]} == {
        "a bust of <new1> cat",
        "a map of <new1> cat",
    }
    again = lists.choose("<new1> cat", 5, np.random.default_rng(0))
    assert again == chosen


def test_a_file_of_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbf# mine\n\n  {}   on a\ttable \r\ntwo {}\n")
    lists = read_prompts(path, "object")
    assert lists.free == ("{} on a table", "two {}")
    assert lists.procedural == shipped_prompts("object").procedural


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            b"{} here\na cat\n",
            ", line 2: a prompt needs one slot {} for <new1>, this has 0: 'a cat'",
        ),
        (
            b"{} and {}\n",
            ", line 1: a prompt needs one slot {} for <new1>, this has 2: '{} and {}'",
        ),
        (b"# nothing\n", " holds no prompt"),
        (b"{} \xff\n", " is no UTF-8 text: invalid start byte"),
        (b"{}\x07\n", ", line 1: not one line of up to 1000 characters"),
        (b"{}" + b"x" * 1000, ", line 1: not one line of up to 1000 characters"),
        (b"#" * (4 << 20) + b"\n{}", " is larger than 4 MiB, no list of prompts is"),
    ],
)
def test_a_file_that_is_no_list_of_prompts(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_prompts(path, "object")
    assert str(caught.value) == f"{path}{said}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*: No such file or directory$"):
        read_prompts(tmp_path / "none.txt", "style")


@settings(deadline=None, max_examples=80)
@given(st.lists(st.text(alphabet=st.sampled_from("{}# \tab\n\r\x0b\x85\u2028é\x00"), max_size=12)))
def test_whatever_a_file_holds_ends_in_prompts_or_one_line(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.txt"
        path.write_text("\n".join(lines), encoding="utf-8")
        said = ""
        found: tuple[str, ...] = ()
        try:
            found = read_prompts(path, "object").free
        except UsageError as exc:
            said = str(exc)
    assert bool(said) != bool(found)
    assert len(said.splitlines()) <= 1
    for text in found:
        assert text.count("{}") == 1
        assert text == " ".join(text.split())
        assert text.isprintable()
        assert not text.startswith("#")


def test_a_prompt_for_the_generator_itself() -> None:
    assert without_token(f"a watercolor of {TOKEN} cat") == "a watercolor of cat"
    assert without_token(f"a harbour in the style of {TOKEN}") == "a harbour"
    assert without_token(TOKEN) == ""
