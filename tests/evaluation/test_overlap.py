"""Customized models that stand in two splits, told by what their images hold."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embed.model import AttributionModel
from embed.registry import find_model
from evaluation.case_set import CaseSet
from evaluation.cases import TestCase, read_case
from evaluation.lineup import seen_models
from evaluation.overlap import Contents, Seen, contents_of, facts_of, refuse_overlap
from evaluation.run import evaluate_models
from ingest.errors import SourceError, UsageError


def case(folder: Path, name: str, *models: tuple[str, str]) -> TestCase:
    """A model a pair of words: a letter an exemplar, a letter a generated image, of that content.

    Images of one content have other names in each test case.
    """
    written = []
    for number, letters in enumerate(models):
        paths: list[list[str]] = []
        for kind, word in zip(("real", "made"), letters, strict=True):
            paths.append([f"{name}-{kind}/{number}-{letter}.png" for letter in word])
            for path, letter in zip(paths[-1], word, strict=True):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(f"{kind} {letter}".encode())
        half = len(paths[1]) // 2
        synth = {"gpt": paths[1][:half], "media": paths[1][half:]}
        written.append({"exemplar": paths[0], "synth": synth})
    (folder / f"{name}.json").write_text(json.dumps(written), encoding="utf-8")
    return read_case(folder / f"{name}.json")


def contents(test_case: TestCase) -> list[Contents]:
    return [contents_of(model, test_case.root) for model in test_case.models]


def tuned_on(*cases: TestCase) -> AttributionModel:
    facts = facts_of([one for test_case in cases for one in contents(test_case)])
    return replace(find_model("efficientnet-lite0"), name="mine", card={"tuning": facts})


def told(model: AttributionModel, test: TestCase, allowed: bool = False) -> str | None:
    return seen_models([model], [test], allowed).get("mine")


# -- train and test --------------------------------------------------------------------------------


def test_splits_with_nothing_in_common(tmp_path: Path) -> None:
    train = case(tmp_path, "train", ("ab", "pq"), ("c", "rs"))
    # Ids are the same in both, and what is real in one may be made in the other.
    test = case(tmp_path, "test", ("de", "abt"), ("f", "u"))
    refuse_overlap([train], [test])
    assert told(tuned_on(train), test) is None


@pytest.mark.parametrize(
    ("model", "path"),
    [(("b", "x"), "test-real/1-b.png"), (("f", "xs"), "test-made/1-s.png")],
)
def test_one_image_in_both_is_refused(tmp_path: Path, model: tuple[str, str], path: str) -> None:
    train = case(tmp_path, "train", ("a", "pq"), ("bc", "rs"))
    test = case(tmp_path, "test", ("d", "t"), model)
    with pytest.raises(UsageError) as caught:
        refuse_overlap([train], [test], "tuning and validation")
    assert str(caught.value) == (
        "model 1 of test stands in tuning and validation: model 1 of train has "
        f"{path} too; a model belongs to one split"
    )


def test_an_image_that_several_models_made_tells_none_of_them(tmp_path: Path) -> None:
    """Such as the black image of a safety filter."""
    train = case(tmp_path, "train", ("a", "pz"), ("b", "qz"))
    test = case(tmp_path, "test", ("c", "rz"))
    refuse_overlap([train], [test])
    assert told(tuned_on(train), test) is None


def test_overlap_through_a_link(tmp_path: Path) -> None:
    train = case(tmp_path, "train", ("a", "p"))
    test = case(tmp_path, "test", ("b", "q"))
    (tmp_path / "test-real" / "0-b.png").unlink()
    (tmp_path / "test-real" / "0-b.png").symlink_to(tmp_path / "train-real" / "0-a.png")
    with pytest.raises(UsageError, match="model 0 of test stands in train and test"):
        refuse_overlap([train], [test])


# -- a model and what it was tuned on --------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "why"),
    [
        (("bc", "rs"), "the same"),
        (("bc", "r"), "fewer images"),
        (("bc", "xyz"), "other images of it"),
        (("b", "xyz"), "fewer exemplars, other images"),
        (("bcd", "sx"), "one image of it"),
        (("d", "r"), "one image of it alone"),
    ],
)
def test_a_model_seen_in_training_is_refused(
    tmp_path: Path, letters: tuple[str, str], why: str
) -> None:
    model = tuned_on(case(tmp_path, "train", ("a", "pq"), ("bc", "rs")))
    test = case(tmp_path, "test", ("e", "t"), letters)
    line = "model mine was tuned on 1 of these models (first: 1 of test)"
    with pytest.raises(UsageError) as caught:
        evaluate_models([model], CaseSet((test,)), "nowhere", watch=pytest.fail, note=pytest.fail)
    assert str(caught.value) == (
        f"{line}; its scores would say nothing of others: leave them out, or add --allow-seen"
    ), why
    assert told(model, test, allowed=True) == f"{line}; its scores say nothing of others"


def test_an_exemplar_in_common_is_told(tmp_path: Path) -> None:
    model = tuned_on(case(tmp_path, "train", ("a", "pq"), ("bc", "rs")))
    test = case(tmp_path, "test", ("e", "t"), ("bd", "x"), ("cf", "y"))
    assert told(model, test) == (
        "model mine was tuned on some of the exemplars of 2 of these models (first: 1 of test); "
        "their scores may flatter it"
    )


def test_a_card_of_before_is_understood(tmp_path: Path) -> None:
    """It has a hash of all images of a model together."""
    train = case(tmp_path, "train", ("a", "pq"), ("b", "rs"))
    hashes = [one.whole for one in contents(train)]
    assert [len(one) for one in hashes] == [16, 16]
    assert len(set(hashes)) == 2
    model = replace(tuned_on(train), card={"tuning": {"models": [hashes[1], "0" * 16]}})
    with pytest.raises(UsageError, match=r"was tuned on 1 of these models \(first: 1 of train\)"):
        told(model, train)
    assert told(model, case(tmp_path, "test", ("b", "r"))) is None


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"tuning": None},
        {"tuning": {"models": 3}},
        {"tuning": {"models": [3], "generated": "x", "exemplars": None}},
        {"tuning": {"models": ["0" * 16], "generated": ["0" * 16], "exemplars": ["0" * 16]}},
    ],
)
def test_cards_that_name_none_of_them(tmp_path: Path, card: dict[str, Any]) -> None:
    test = case(tmp_path, "test", ("a", "p"))
    assert told(replace(tuned_on(), card=card), test) is None


def test_what_cards_hold_of_other_kinds_is_passed_over() -> None:
    assert not Seen.in_card(None)
    assert not Seen.in_card({"tuning": {"models": [3, None]}})
    found = Seen.in_card({"tuning": {"models": ["a", 3], "exemplars": ["b"]}})
    assert found == Seen(frozenset("a"), frozenset(), frozenset("b"))


def test_a_model_is_known_wherever_its_files_are(tmp_path: Path) -> None:
    train = case(tmp_path, "train", ("ab", "pqr"))
    (first,) = contents(train)
    moved = tmp_path / "moved"
    moved.mkdir()
    (model,) = train.models
    names = {path: f"{number}.png" for number, path in enumerate(model.images)}
    for path, name in names.items():
        shutil.copy(tmp_path / path, moved / name)
    renamed = replace(
        model,
        exemplars=tuple(names[path] for path in reversed(model.exemplars)),
        synth={"gpt": tuple(names[path] for made in model.synth.values() for path in made)},
    )
    other = contents_of(renamed, moved)
    assert other.whole == first.whole
    assert other.generated.keys() == first.generated.keys()
    assert other.exemplars == {key: names[path] for key, path in first.exemplars.items()}
    (moved / "0.png").write_bytes(b"another")
    assert contents_of(renamed, moved).whole != first.whole
    (moved / "0.png").unlink()
    with pytest.raises(SourceError, match="cannot read "):
        contents_of(renamed, moved)
