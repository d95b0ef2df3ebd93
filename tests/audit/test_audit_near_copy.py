"""Near-copies: pictures compared by their edges, and who is looked at."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from made_drawings import answer_of, drawing
from PIL import Image, ImageDraw, ImageOps

from ingest.errors import UsageError
from search.answer import Attribution, Owner
from search.audit.copy_edits import EDITS, edited
from search.audit.copy_score import Agreement, Edges, compare, copy_scores, score_of
from search.audit.flags import Thresholds
from search.audit.near_copy import BY_EDGES, LOOKED_AT, Found, NearCopy

LIGHT = [name for name, edit in EDITS.items() if edit.light]


@dataclass
class Settings:
    copy_model: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)


class Training:
    """Thumbnails by id; counts who asked for them."""

    def __init__(self, pictures: Mapping[str, Image.Image]) -> None:
        self.pictures = pictures
        self.asked: list[str] = []

    def thumbnails(self, ids: Sequence[str]) -> list[bytes | None]:
        self.asked += ids
        return [png(self.pictures[id]) if id in self.pictures else None for id in ids]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def check(looks: NearCopy, image: Image.Image, answer: Attribution) -> Found:
    (found,) = looks.check_many([image], [answer])
    return found


def agreement(generated: Edges, training: Edges) -> Agreement:
    (found,) = compare(generated, [training])
    return found


def score(generated: Image.Image, training: Image.Image) -> float:
    return score_of(agreement(Edges.of(generated), Edges.of(training)))


def test_picture_agrees_with_itself_entirely() -> None:
    edges = Edges.of(drawing(1))
    found = agreement(edges, edges)
    assert found.edges == pytest.approx(1)
    assert found.contained == pytest.approx(1)
    assert found.colours == pytest.approx(1)


def test_mirrored_picture_agrees_as_the_picture_does() -> None:
    found = agreement(Edges.of(ImageOps.mirror(drawing(1))), Edges.of(drawing(1)))
    assert found.edges == pytest.approx(1, abs=0.02)
    assert found.colours == pytest.approx(1, abs=0.02)


def test_crop_is_found_in_its_place() -> None:
    whole = drawing(2)
    part = whole.crop((30, 20, 198, 188)).resize(whole.size, Image.Resampling.BICUBIC)
    found = agreement(Edges.of(part), Edges.of(whole))
    assert found.edges > 0.85
    assert found.colours > 0.9


def test_paper_agrees_with_nothing() -> None:
    white = Image.new("RGB", (224, 224), "white")
    assert score(white, white) < 0.01
    assert score(white, drawing(1)) < 0.01
    assert score(drawing(1), white) < 0.01


def test_more_beside_it_leaves_a_drawing_contained() -> None:
    training = drawing(3)
    generated = training.copy()
    ImageDraw.Draw(generated).rectangle((0, 0, 60, 24), "black")
    found = agreement(Edges.of(generated), Edges.of(training))
    assert found.contained > 0.95
    assert found.edges < found.contained


def test_few_straight_edges_need_more_agreement_than_many() -> None:
    flag = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(flag).rectangle((20, 60, 204, 110), "red")
    edges, drawn = Edges.of(flag), Edges.of(drawing(1))
    assert edges.repetition > drawn.repetition
    assert edges.detail < drawn.detail
    assert score_of(agreement(edges, edges)) < score_of(agreement(drawn, drawn))


def test_the_first_look_rules_out_what_the_second_would() -> None:
    """The coarse grid's score stands where it is low; where it is not, that of the fine one."""
    drawn = [Edges.of(drawing(seed)) for seed in range(12)]
    for generated in drawn:
        scores = copy_scores(generated, drawn)
        for training, found in zip(drawn, scores, strict=True):
            fine = score_of(agreement(generated, training))
            assert found == fine or found < 0.005
            assert (found >= BY_EDGES) == (fine >= BY_EDGES) == (generated is training)


def test_flags_of_other_colours_are_no_copies() -> None:
    flags = []
    for colours in (("red", "white", "green"), ("blue", "yellow", "orange")):
        flag = Image.new("RGB", (224, 224), "white")
        draw = ImageDraw.Draw(flag)
        for number, colour in enumerate(colours):
            draw.rectangle((0, 40 + 48 * number, 223, 88 + 48 * number), colour)
        flags.append(flag)
    assert score(*flags) < BY_EDGES


@pytest.mark.parametrize("edit", LIGHT)
def test_light_edits_are_near_copies(edit: str) -> None:
    training = Training({f"{seed}": drawing(seed) for seed in range(6)})
    looks = NearCopy(Settings(), training.thumbnails)
    found = [
        check(looks, edited(drawing(seed), edit, seed), answer_of(["5", str(seed)], [0.9, 0.8]))
        for seed in range(5)
    ]
    assert [one.training_id for one in found] == list("01234")
    assert all(one.score is not None and one.score >= BY_EDGES for one in found)


def test_other_drawings_on_white_are_no_near_copies() -> None:
    training = Training({f"{seed}": drawing(seed) for seed in range(20)})
    looks = NearCopy(Settings(), training.thumbnails)
    for seed in range(20, 40):
        names = [str((seed + other) % 20) for other in range(3)]
        found = check(looks, drawing(seed), answer_of(names, [0.9, 0.8, 0.7]))
        assert found.training_id == ""
        assert found.score is not None
        assert found.score < 0.5


def test_only_the_most_similar_rows_are_looked_at_and_once() -> None:
    names = list("abcdefghijkl")
    training = Training({name: drawing(n) for n, name in enumerate(names)})
    looks = NearCopy(Settings(), training.thumbnails)
    answer = answer_of(names, [0.1, 0.6, 0.2, 0.9, 0.8, 0.3, 0.25, 0.35, 0.4, 0.45, 0.5, 0.55])
    check(looks, drawing(0), answer)
    check(looks, drawing(0), answer)
    assert training.asked == list("deblkjihfg")
    assert len(training.asked) == LOOKED_AT


def test_images_of_a_batch_ask_once_and_are_found_alone() -> None:
    training = Training({f"{seed}": drawing(seed) for seed in range(4)})
    calls: list[list[str]] = []

    def thumbnails(ids: Sequence[str]) -> list[bytes | None]:
        calls.append(list(ids))
        return training.thumbnails(ids)

    answers = [answer_of(["0", "1"], [0.9, 0.8]), answer_of(["1", "2", "3"], [0.9, 0.8, 0.7])]
    found = NearCopy(Settings(), thumbnails).check_many([drawing(1), drawing(3)], answers)
    assert [one.training_id for one in found] == ["1", "3"]
    assert calls == [["0", "1", "2", "3"]]


def test_equal_files_have_the_thumbnail_that_one_of_their_records_has() -> None:
    training = Training({"second": drawing(0)})
    answer = answer_of(["first"], [0.9])
    row = replace(answer.rows[0], owners=(*answer.rows[0].owners, Owner("second", "second")))
    found = check(
        NearCopy(Settings(), training.thumbnails), drawing(0), replace(answer, rows=(row,))
    )
    assert found.training_id == "first"
    assert training.asked == ["first", "second"]


def test_a_thumbnail_that_is_no_image_is_none() -> None:
    looks = NearCopy(Settings(), lambda ids: [b"no image"] * len(ids))
    assert check(looks, drawing(0), answer_of(["a"], [0.9])) == Found("", None)


def test_rows_below_the_similarity_are_not_looked_at() -> None:
    training = Training({"a": drawing(0), "b": drawing(1)})
    looks = NearCopy(Settings(thresholds=Thresholds(look_from=0.7)), training.thumbnails)
    assert check(looks, drawing(0), answer_of(["a", "b"], [0.69, 0.5])) == Found("", None)
    assert training.asked == []
    assert check(looks, drawing(0), answer_of(["a", "b"], [0.7, 0.5])).training_id == "a"
    assert training.asked == ["a"]


def test_threshold_decides_and_the_score_stays() -> None:
    training = Training({"a": drawing(0)})
    answer = answer_of(["a"], [0.9])
    strict = NearCopy(Settings(thresholds=Thresholds(near_copy=1.0)), training.thumbnails)
    found = check(strict, drawing(0), answer)
    assert found.training_id == ""
    lax = NearCopy(Settings(thresholds=Thresholds(near_copy=found.score)), training.thumbnails)
    assert check(lax, drawing(0), answer) == Found("a", found.score)


def test_answers_without_rows_or_thumbnails_have_no_score() -> None:
    looks = NearCopy(Settings(), Training({}).thumbnails)
    assert check(looks, drawing(0), answer_of([], [])) == Found("", None)
    assert check(looks, drawing(0), answer_of(["a"], [0.9])) == Found("", None)


def test_backbone_of_unknown_threshold_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        NearCopy(Settings("efficientnet-lite0"), Training({}).thumbnails)
    assert str(caught.value) == (
        "it is not known from which cosine of efficientnet-lite0 on two pictures are copies: "
        "measure it (docs/audit-flags.md) and give it, as in --threshold near-copy=0.9"
    )


def test_backbone_compares_by_its_cosine() -> None:
    from embed.embedder import Embedder
    from embed.registry import find_model

    training = Training({"a": drawing(0), "b": drawing(1)})
    settings = Settings("efficientnet-lite0", Thresholds(near_copy=0.8))
    looks = NearCopy(settings, training.thumbnails)
    found = check(looks, edited(drawing(1), "JPEG quality 50", 0), answer_of("ab", [0.9, 0.9]))
    model = find_model("efficientnet-lite0")
    apply = model.backbone.preprocessing.apply
    pixels = [apply(edited(drawing(1), "JPEG quality 50", 0)), apply(drawing(1))]
    features = Embedder(model.backbone).embed(np.stack(pixels))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    assert found.training_id == "b"
    assert found.score == pytest.approx(float(features[0] @ features[1]), abs=1e-5)
