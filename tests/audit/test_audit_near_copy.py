"""Near-copies: pictures compared by their edges, and who is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from made_drawings import answer_of, drawing
from PIL import Image, ImageDraw, ImageOps

from ingest.errors import UsageError
from search.answer import Row
from search.audit.copy_edits import EDITS, edited
from search.audit.copy_score import Edges, compare, score_of
from search.audit.flags import Thresholds
from search.audit.near_copy import BY_EDGES, ROWS, Found, NearCopy

LIGHT = [name for name, edit in EDITS.items() if edit.light]


@dataclass
class Settings:
    copy_model: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)


class Training:
    """Thumbnails by name; counts who asked for them."""

    def __init__(self, pictures: Mapping[str, Image.Image]) -> None:
        self.pictures = pictures
        self.asked: list[str] = []

    def image_of(self, row: Row) -> Image.Image | None:
        self.asked.append(row.key)
        return self.pictures.get(row.key)


def score(generated: Image.Image, training: Image.Image) -> float:
    return score_of(compare(Edges.of(generated), Edges.of(training)))


def test_picture_agrees_with_itself_entirely() -> None:
    edges = Edges.of(drawing(1))
    found = compare(edges, edges)
    assert found.edges == pytest.approx(1)
    assert found.contained == pytest.approx(1)
    assert found.colours == pytest.approx(1)


def test_mirrored_picture_agrees_as_the_picture_does() -> None:
    found = compare(Edges.of(ImageOps.mirror(drawing(1))), Edges.of(drawing(1)))
    assert found.edges == pytest.approx(1, abs=0.02)
    assert found.colours == pytest.approx(1, abs=0.02)


def test_crop_is_found_in_its_place() -> None:
    whole = drawing(2)
    part = whole.crop((30, 20, 198, 188)).resize(whole.size, Image.Resampling.BICUBIC)
    found = compare(Edges.of(part), Edges.of(whole))
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
    found = compare(Edges.of(generated), Edges.of(training))
    assert found.contained > 0.95
    assert found.edges < found.contained


def test_few_straight_edges_need_more_agreement_than_many() -> None:
    flag = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(flag).rectangle((20, 60, 204, 110), "red")
    edges, drawn = Edges.of(flag), Edges.of(drawing(1))
    assert edges.repetition > drawn.repetition
    assert edges.detail < drawn.detail
    assert score_of(compare(edges, edges)) < score_of(compare(drawn, drawn))


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
    looks = NearCopy(Settings(), training.image_of)
    found = [
        looks.check(edited(drawing(seed), edit, seed), answer_of(["5", str(seed)], [0.9, 0.8]))
        for seed in range(5)
    ]
    assert [one.training_id for one in found] == list("01234")
    assert all(one.score is not None and one.score >= BY_EDGES for one in found)


def test_other_drawings_on_white_are_no_near_copies() -> None:
    training = Training({f"{seed}": drawing(seed) for seed in range(20)})
    looks = NearCopy(Settings(), training.image_of)
    for seed in range(20, 40):
        names = [str((seed + other) % 20) for other in range(3)]
        found = looks.check(drawing(seed), answer_of(names, [0.9, 0.8, 0.7]))
        assert found.training_id == ""
        assert found.score is not None
        assert found.score < 0.5


def test_only_the_most_similar_rows_are_looked_at_and_once() -> None:
    training = Training({name: drawing(n) for n, name in enumerate("abcdef")})
    looks = NearCopy(Settings(), training.image_of)
    answer = answer_of(list("abcdef"), [0.1, 0.6, 0.2, 0.9, 0.8, 0.3])
    looks.check(drawing(0), answer)
    looks.check(drawing(0), answer)
    assert training.asked == ["d", "e", "b"]
    assert len(training.asked) == ROWS


def test_rows_below_the_similarity_are_not_looked_at() -> None:
    training = Training({"a": drawing(0), "b": drawing(1)})
    looks = NearCopy(Settings(thresholds=Thresholds(look_from=0.7)), training.image_of)
    assert looks.check(drawing(0), answer_of(["a", "b"], [0.69, 0.5])) == Found("", None)
    assert training.asked == []
    assert looks.check(drawing(0), answer_of(["a", "b"], [0.7, 0.5])).training_id == "a"
    assert training.asked == ["a"]


def test_threshold_decides_and_the_score_stays() -> None:
    training = Training({"a": drawing(0)})
    answer = answer_of(["a"], [0.9])
    strict = NearCopy(Settings(thresholds=Thresholds(near_copy=1.0)), training.image_of)
    found = strict.check(drawing(0), answer)
    assert found.training_id == ""
    lax = NearCopy(Settings(thresholds=Thresholds(near_copy=found.score)), training.image_of)
    assert lax.check(drawing(0), answer) == Found("a", found.score)


def test_answers_without_rows_or_thumbnails_have_no_score() -> None:
    looks = NearCopy(Settings(), Training({}).image_of)
    assert looks.check(drawing(0), answer_of([], [])) == Found("", None)
    assert looks.check(drawing(0), answer_of(["a"], [0.9])) == Found("", None)


def test_backbone_of_unknown_threshold_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        NearCopy(Settings("efficientnet-lite0"), Training({}).image_of)
    assert str(caught.value) == (
        "it is not known from which cosine of efficientnet-lite0 on two pictures are copies: "
        "measure it (docs/audit-flags.md) and give it, as in --threshold near-copy=0.9"
    )


def test_backbone_compares_by_its_cosine() -> None:
    from embed.embedder import Embedder
    from embed.registry import find_model

    training = Training({"a": drawing(0), "b": drawing(1)})
    settings = Settings("efficientnet-lite0", Thresholds(near_copy=0.8))
    looks = NearCopy(settings, training.image_of)
    found = looks.check(edited(drawing(1), "JPEG quality 50", 0), answer_of("ab", [0.9, 0.9]))
    model = find_model("efficientnet-lite0")
    apply = model.backbone.preprocessing.apply
    pixels = [apply(edited(drawing(1), "JPEG quality 50", 0)), apply(drawing(1))]
    features = Embedder(model.backbone).embed(np.stack(pixels))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    assert found.training_id == "b"
    assert found.score == pytest.approx(float(features[0] @ features[1]), abs=1e-5)
