"""Shares over a gallery: exact sums, closed forms of the bootstrap, any cut into parts alike."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, fsum, log, sqrt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import RunError, UsageError
from search.answer import Attribution, Owner, Row
from search.audit import resampling
from search.audit.lines import lines_schema
from search.audit.resampling import RESAMPLES, Resampled
from search.audit.shares import Shares, image_statistics, lines_of
from search.audit.tables import attributions_schema, creators_schema, images_schema


def answer(rows: Sequence[tuple[float, Sequence[str]]], name: str = "g") -> Attribution:
    """Rows as (influence, creators of its equal records)."""
    number = 0
    made = []
    for rank, (influence, creators) in enumerate(rows, start=1):
        owners = []
        for creator in creators:
            owners.append(Owner(id=f"id-{number}", key=f"key-{number}", creator=creator))
            number += 1
        interval = (influence, influence)
        made.append(Row(rank, 0.9 - rank / 10, influence, interval, tuple(owners), f"hash-{rank}"))
    remaining = max(1 - fsum(influence for influence, _ in rows), 0.0)
    return Attribution(
        query=name,
        rows=tuple(made),
        remaining=remaining,
        remaining_interval=(remaining, remaining),
        method="complete",
        support=None,
        population=100,
        k=50,
        model="m",
        fingerprint="f",
        calibrator={},
        index={},
    )


def tables(*answers: Attribution) -> tuple[pa.Table, pa.Table]:
    """The two tables of images named 0, 1, ..."""
    lines: list[dict[str, Any]] = []
    images = []
    for number, each in enumerate(answers):
        lines += lines_of(str(number), each)
        images.append({"image": str(number), "remaining": each.remaining})
    return (
        pa.Table.from_pylist(lines, attributions_schema()),
        pa.Table.from_pylist(images, images_schema()),
    )


def by_value(shares: Shares) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["kind"], line["value"]): line for line in shares.table().to_pylist()}


def test_statistics_by_hand() -> None:
    found = image_statistics(answer([(0.5, ["A"]), (0.25, ["", "B", "B", "A"])]))
    assert found == {
        "sources": 2,
        "entropy": pytest.approx(0.5 * log(2) + 2 * 0.25 * log(4)),
        "effective_sources": pytest.approx(exp(1.5 * log(2))),
        "top_id": "id-0",
        "top_key": "key-0",
        "top_creator": "A",
        "top_influence": 0.5,
        "top_similarity": pytest.approx(0.8),
        "main_creator": "A",
        "main_creator_share": 0.5625,
    }


def test_equal_sources_are_so_many() -> None:
    found = image_statistics(answer([(0.25, ["A"])] * 4))
    assert found["effective_sources"] == pytest.approx(4)


def test_an_image_without_rows_has_one_effective_source_the_unknown_one() -> None:
    assert image_statistics(answer([])) == {
        "sources": 0,
        "entropy": 0.0,
        "effective_sources": 1.0,
        "top_id": "",
        "top_key": "",
        "top_creator": "",
        "top_influence": 0.0,
        "top_similarity": None,
        "main_creator": "",
        "main_creator_share": 0.0,
    }


def test_creators_of_equal_shares_go_by_name_and_the_first_known_one_is_the_top_one() -> None:
    found = image_statistics(answer([(0.5, ["", "Z", "A"])]))
    assert (found["main_creator"], found["top_creator"], found["top_id"]) == ("A", "Z", "id-0")


def test_equal_records_share_evenly() -> None:
    lines = lines_of("g.png", answer([(0.6, ["A", "B", "C"]), (0.1, ["D"])]))
    assert [line["influence"] for line in lines] == pytest.approx([0.2, 0.2, 0.2, 0.1], abs=1e-15)
    assert [line["rank"] for line in lines] == [1, 1, 1, 2]
    assert pa.Table.from_pylist(lines, attributions_schema()).num_rows == 4
    assert set(lines[0]) == set(attributions_schema().names)


influences = st.lists(
    st.tuples(st.floats(1e-12, 1), st.integers(1, 7)), min_size=0, max_size=60
)  # weights and equal records


@given(influences, st.floats(0, 0.99))
@settings(max_examples=300, deadline=None)
def test_lines_and_remaining_sum_to_1(rows: list[tuple[float, int]], left: float) -> None:
    total = fsum(weight for weight, _ in rows)
    scaled = [(weight / total * (1 - left), ["A"] * records) for weight, records in rows]
    made = answer(scaled)
    lines = lines_of("g", made)
    assert abs(fsum([*(line["influence"] for line in lines), made.remaining]) - 1) < 1e-9
    shares = Shares(["creator"], 0)
    shares.add(*tables(made))
    found = by_value(shares)
    assert abs(fsum(line["share"] for line in found.values()) - 1) < 1e-9
    assert found["remaining", ""]["share"] == pytest.approx(made.remaining, abs=1e-12)


def test_sums_by_hand_with_unknown_and_remaining() -> None:
    shares = Shares(["creator", "licence"], 0)
    shares.add(
        *tables(
            answer([(0.5, ["A"]), (0.25, ["a", ""])]),
            answer([(0.75, ["A", "B"])]),
            answer([]),
        )
    )
    table = shares.table()
    assert table.schema == creators_schema()
    lines = [
        (
            *(line["field"], line["kind"], line["value"], round(line["share"] * 24, 9)),
            *(line["images"], line["top_of"], line["training_images"]),
        )
        for line in table.to_pylist()
    ]
    assert lines == [
        ("creator", "remaining", "", 12, 3, 0, 0),
        ("creator", "known", "A", 7, 2, 2, 1),  # id-0 in both images
        ("creator", "known", "B", 3, 1, 1, 1),
        ("creator", "known", "a", 1, 1, 0, 1),
        ("creator", "unknown", "", 1, 1, 0, 1),
        ("licence", "remaining", "", 12, 3, 0, 0),
        ("licence", "unknown", "", 12, 2, 2, 3),
    ]


def test_names_are_never_merged() -> None:
    shares = Shares(["creator"], 0)
    names = ["Ann", "ann", "Ann ", "An\u0301n", "\u00c1nn"]
    shares.add(*tables(answer([(0.2, [name]) for name in names])))
    assert {value for kind, value in by_value(shares) if kind == "known"} == set(names)


def test_a_gallery_of_one_image_has_no_interval() -> None:
    shares = Shares(["creator"], 0)
    shares.add(*tables(answer([(0.5, ["A"])])))
    line = by_value(shares)["known", "A"]
    assert (line["share"], line["share_low"], line["share_high"]) == (0.5, None, None)


def test_no_images_no_lines() -> None:
    shares = Shares(["creator"], 0)
    shares.add(*tables())
    assert shares.table().num_rows == 0
    assert shares.table().schema == creators_schema()


def test_images_all_alike_have_intervals_without_width() -> None:
    shares = Shares(["creator"], 3)
    shares.add(*tables(*[answer([(0.3, ["A"]), (0.1, ["B"])])] * 50))
    for line in by_value(shares).values():
        assert line["share_high"] - line["share_low"] < 1e-10
        assert line["share_low"] <= line["share"] <= line["share_high"]


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_all_or_nothing_agrees_with_the_normal_formula(p: float) -> None:
    images = 500
    shares = Shares(["creator"], 0)
    wins = round(p * images)
    shares.add(*tables(*[answer([(1.0, ["A" if n < wins else "B"])]) for n in range(images)]))
    line = by_value(shares)["known", "A"]
    half = 1.96 * sqrt(p * (1 - p) / images)
    assert line["share"] == p
    assert line["share_low"] == pytest.approx(p - half, abs=0.1 * half)
    assert line["share_high"] == pytest.approx(p + half, abs=0.1 * half)


def random_answers(count: int, seed: int) -> list[Attribution]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows = int(rng.integers(0, 6))
        weights = rng.random(rows) / (rows + 1)
        names = rng.choice(["A", "B", "C", "D", ""], (rows, 2))
        made.append(
            answer(
                [(float(w), [str(n) for n in pair]) for w, pair in zip(weights, names, strict=True)]
            )
        )
    return made


def cut(answers: list[Attribution], *ends: int) -> Shares:
    lines, images = tables(*answers)
    shares = Shares(["creator", "dataset"], 7)
    start = 0
    for end in [*ends, len(answers)]:
        keys = [str(number) for number in range(start, end)]
        inside = pa.compute.is_in(lines.column("image"), pa.array(keys, pa.string()))
        shares.add(lines.filter(inside), images.slice(start, end - start))
        start = end
    return shares


def test_any_cut_into_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = random_answers(600, 1)
    whole = cut(answers).table()
    assert cut(answers, 1, 2, 300, 301, 599).table().equals(whole)
    # Values that are in many images become sums on the way; that, too, changes nothing.
    monkeypatch.setattr(resampling, "_PAIRS", 50)
    monkeypatch.setattr(resampling, "_RARE", 20)
    assert cut(answers, *range(10, 600, 10)).table().equals(whole)


def test_intervals_against_a_slow_reference() -> None:
    images, seed = 300, 5
    rng = np.random.default_rng(0)
    shares = rng.random(images)
    resampled = Resampled(seed)
    resampled.add(np.zeros(images, np.int64), np.arange(images), shares, images)
    weights = np.concatenate([block for _, block in resampled._weights(0, images)])
    means = sorted(
        sum(w * s for w, s in zip(weights[:, r].tolist(), shares, strict=True))
        / weights[:, r].sum()
        for r in range(RESAMPLES)
    )
    low, high = resampled.intervals(1)[0]
    # The percentiles are moved outwards by less than 2 resamples at so many images.
    assert means[22] <= low <= means[26]
    assert means[-27] <= high <= means[-23]


def test_weights_are_those_of_a_poisson_bootstrap() -> None:
    resampled = Resampled(0)
    empty = np.zeros(0, np.int64)
    resampled.add(empty, empty, np.zeros(0), 700)
    weights = np.concatenate([block for _, block in resampled._weights(0, 700)])
    assert weights.shape == (700, RESAMPLES)
    assert weights.mean() == pytest.approx(1, abs=5e-3)
    assert weights.var() == pytest.approx(1, abs=1e-2)
    assert (weights == 0).mean() == pytest.approx(exp(-1), abs=3e-3)
    assert abs(np.corrcoef(weights[0], weights[1])[0, 1]) < 0.15


def test_another_seed_gives_other_intervals_of_the_same_shares() -> None:
    answers = random_answers(40, 2)
    found = []
    for seed in (0, 1):
        shares = Shares(["creator"], seed)
        shares.add(*tables(*answers))
        found.append(by_value(shares)["known", "A"])
    assert found[0]["share"] == found[1]["share"]
    assert found[0]["share_low"] != found[1]["share_low"]


def test_what_cannot_be_summed_by() -> None:
    with pytest.raises(UsageError, match="the same field twice: creator, creator"):
        Shares(["creator", "creator"], 0)
    lines, images = tables(answer([(0.5, ["A"])]))
    with pytest.raises(RunError, match="attributions of an image that is not listed: 0"):
        Shares(["creator"], 0).add(lines, images.slice(0, 0))
    with pytest.raises(RunError) as caught:
        Shares(["creator", "creators"], 0).add(lines, images)
    assert str(caught.value) == "the attributions do not tell the 'creators' of training images"


def test_texts_may_be_dictionaries_and_dictionaries_hold_more() -> None:
    """As a part gives them, and as what is left of one once images are filtered out."""
    answers = [answer([(0.5, ["A", ""]), (0.25, ["B"])]), answer([(0.4, ["C"])]), answer([])]
    plain = Shares(("creator", "training_id"), 0)
    plain.add(*tables(answers[0], answers[2]))  # named 0 and 1, which no share tells
    coded = Shares(("creator", "training_id"), 0)
    lines, images = tables(answers[0], answers[1], answers[2])
    keep = pa.array([name != "1" for name in lines.column("image").to_pylist()])
    left = pa.array([True, False, True])
    coded.add(lines.cast(lines_schema()).filter(keep), images.filter(left))
    assert "C" not in coded.table().column("value").to_pylist()
    assert coded.table().equals(plain.table())
