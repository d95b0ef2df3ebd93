"""AbC test cases: what is read, what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.cases import TestCase, cases_in, exemplar_paths, read_case
from ingest.errors import SourceError

EXAMPLES = Path(__file__).parents[2] / "examples"


def model(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "exemplar": [f"real/{number}-a.png", f"real/{number}-b.png"],
        "synth": {"gpt": [f"made/{number}-0.png"], "media": [f"made/{number}-1.png"]},
        "class_id": f"class {number}",
        "category": "object",
        **changes,
    }


def write(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def touch_all(case: TestCase) -> None:
    for path in case.missing():
        (case.root / path).parent.mkdir(parents=True, exist_ok=True)
        (case.root / path).touch()


def message(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_case(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_example() -> None:
    case = read_case(EXAMPLES / "test_cases.json")
    assert case.name == "test_cases"
    assert case.root == EXAMPLES
    assert case.missing() == []
    first = case.models[0]
    assert (first.id, first.class_id, first.category, first.steps) == (
        "62",
        "action",
        "object",
        90,
    )
    assert first.exemplars == ("training/images/13d460f1a3df.jpg",)
    assert {kind: len(paths) for kind, paths in first.synth.items()} == {"gpt": 8, "media": 8}
    assert case.checked(skip_missing=False) == (case, [])
    assert (EXAMPLES / first.exemplars[0]).resolve() in exemplar_paths([case])


def test_the_official_form_has_no_ids(tmp_path: Path) -> None:
    case = read_case(write(tmp_path / "test_artchive.json", [model(i) for i in range(11)]))
    assert [m.id for m in case.models[:2]] == ["00", "01"]
    assert case.models[10].id == "10"
    assert case.models[0].steps is None


def test_the_root_is_the_nearest_folder_that_has_an_exemplar(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "b" / "c" / "case.json", [model(0), model(1)])
    assert read_case(path).root == tmp_path / "a" / "b" / "c"  # none has: its own
    # The very first exemplar may be the one that is missing.
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1-b.png").touch()
    assert read_case(path).root == tmp_path
    (tmp_path / "a" / "real").mkdir()
    (tmp_path / "a" / "real" / "1-b.png").touch()
    assert read_case(path).root == tmp_path / "a"
    assert read_case(path, root=tmp_path / "x").root == tmp_path / "x"


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    case = read_case(write(tmp_path / "case.json", [model(0), model(1)]))
    with pytest.raises(SourceError) as caught:
        case.checked(skip_missing=False)
    assert str(caught.value) == (
        f"case: 8 of its image files are missing under {tmp_path} (real/0-a.png, real/0-b.png, "
        "made/0-0.png, ...); get them, or leave them out with --skip-missing"
    )
    with pytest.raises(SourceError, match="no model is left, 8 images are missing"):
        case.checked(skip_missing=True)


def test_missing_files_are_skipped(tmp_path: Path) -> None:
    case = read_case(write(tmp_path / "case.json", [model(i) for i in range(4)]))
    touch_all(case)
    for path in (
        "real/1-a.png",  # one exemplar is left
        "real/2-a.png",
        "real/2-b.png",  # none is left
        "made/3-0.png",
        "made/3-1.png",  # no generated image is left
    ):
        (tmp_path / path).unlink()
    left, told = case.checked(skip_missing=True)
    assert [m.id for m in left.models] == ["0", "1"]
    assert left.models[0] == case.models[0]
    assert left.models[1].exemplars == ("real/1-b.png",)
    assert left.missing() == []
    assert told == [
        "case: model 1: 1 of 4 images missing (real/1-a.png), left out",
        "case: model 2: left out: its exemplars are missing (real/2-a.png, real/2-b.png)",
        "case: model 3: left out: its generated images are missing (made/3-0.png, made/3-1.png)",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 1}, "{} is not a test case: it holds an object, expected a list of models"),
        ("[]", "{} is a test case without models"),
        ("null", "{} is not a test case: it holds null, expected a list of models"),
        ([model(0), 7], "{}: model 1 is a number, expected an object"),
        ([model(0, exemplar=[])], "{}: model 0 has no exemplar"),
        ([model(0), model(1, model_id=12, exemplar=[])], "{}: model 12 has no exemplar"),
        ([{"synth": {"gpt": ["a.png"]}}], "{}: model 0 has no exemplar"),
        ([model(0, synth={})], "{}: model 0 has no generated image"),
        ([model(0, synth={"gpt": []})], "{}: model 0 has no generated image"),
        ([model(0, exemplar="a.png")], "{}: model 0: exemplar is text, expected a list of paths"),
        ([model(0, exemplar=[3])], "{}: model 0: exemplar holds a number, expected a path"),
        ([model(0, exemplar=[""])], "{}: model 0: exemplar holds '', which no file can be"),
        (
            [model(0, exemplar=["a\x00b"])],
            "{}: model 0: exemplar holds 'a\\\\x00b', which no file can be",
        ),
        (
            [model(0, exemplar=["\ud800"])],
            "{}: model 0: exemplar holds '\\\\ud800', which no file can be",
        ),
        (
            [model(0, synth=["a.png"])],
            "{}: model 0: synth is a list, expected an object of lists by prompt type",
        ),
        (
            [model(0, synth={"gpt": {"a": 1}})],
            "{}: model 0: synth gpt is an object, expected a list of paths",
        ),
        (
            [model(0, exemplar=["/etc/passwd"])],
            "{}: model 0: exemplar /etc/passwd leads out of the test case's folder; paths must "
            "be relative to it",
        ),
        (
            [model(0, synth={"gpt": ["a/../../b.png"]})],
            "{}: model 0: synth gpt a/../../b.png leads out of the test case's folder; paths must "
            "be relative to it",
        ),
        ([model(0, model_id=True)], "{}: model 0: model_id is true or false"),
        ([model(0, model_id=4), model(1, model_id=4)], "{}: model 4 stands in it twice"),
        ([model(0, class_id=[1])], "{}: model 0: class_id is a list, expected text"),
        (
            [model(0, customization_steps="9")],
            "{}: model 0: customization_steps is text, expected a number",
        ),
        ("[NaN]", "{} cannot be read as JSON: NaN is no JSON number"),
        ("[" * 100_000, "{} is not a test case: it is nested too deep"),
    ],
)
def test_hostile_files(tmp_path: Path, values: Any, expected: str) -> None:
    path = write(tmp_path / "case.json", values)
    assert message(path) == expected.format(path)


def test_unreadable_files(tmp_path: Path) -> None:
    assert message(tmp_path / "no.json") == (
        f"cannot read {tmp_path / 'no.json'}: No such file or directory"
    )
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00[")
    assert "cannot be read as JSON" in message(tmp_path / "bytes.json")
    assert "cannot be read as JSON" in message(write(tmp_path / "cut.json", '[{"exemplar": ['))


def test_names_that_no_disk_takes_are_missing(tmp_path: Path) -> None:
    case = read_case(write(tmp_path / "case.json", [model(0, exemplar=["x" * 5000])]))
    assert "x" * 5000 in case.missing()


def test_paths_with_dots_inside_the_root_are_fine(tmp_path: Path) -> None:
    case = read_case(write(tmp_path / "case.json", [model(0, exemplar=["a/../b.png"])]))
    assert exemplar_paths([case]) == {tmp_path / "b.png"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["exemplar", "synth", "class_id", "category", "model_id", "gpt"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=3))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.json", values)
    refused, case = "", None
    try:
        case = read_case(path)
    except SourceError as exc:
        refused = str(exc)
    assert (str(path) in refused) != (case is not None)
    if case is not None:
        assert all(m.exemplars and any(m.synth.values()) for m in case.models)
        case.missing()


def test_a_folder_of_cases(tmp_path: Path) -> None:
    write(tmp_path / "b.json", [model(0)])
    write(tmp_path / "a.json", [model(1)])
    write(tmp_path / "prompts.json", {"made/0-0.png": "a cat"})
    write(tmp_path / "numbers.json", [1, 2])
    assert [case.name for case in cases_in(tmp_path)] == ["a", "b"]
    assert [case.name for case in cases_in(tmp_path / "b.json")] == ["b"]
    # One that begins like a test case is not passed over in silence.
    write(tmp_path / "c.json", [model(0), model(1, exemplar=[])])
    with pytest.raises(SourceError, match=r"c\.json: model 1 has no exemplar"):
        cases_in(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no test cases in .*empty"):
        cases_in(tmp_path / "empty")
