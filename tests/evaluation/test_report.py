"""Reports: the tables to the letter, the rows read back, pictures that are the same every time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import published as reference
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluation.bootstrap import Interval
from evaluation.features import CaseFeatures
from evaluation.protocol import ArrayBlocks, Ranks, ranks
from evaluation.reliability import Reliability, ReliabilityBin
from evaluation.report import markdown, write_report
from evaluation.results import CaseResult, ModelResults, of_ranks
from evaluation.through_index import ThroughIndex
from ingest.errors import RunError, UsageError


def hand(name: str, found: list[int], *, gallery: str = "g") -> CaseResult:
    """Two models of one exemplar and one query each, whose ranks are given."""
    case = CaseFeatures(
        name,
        ("dog", "cat"),
        np.eye(2, dtype=np.float32),
        np.array([0, 1, 2]),
        np.eye(2, dtype=np.float32),
        np.array([0, 1]),
        ("gpt", "media"),
    )
    return of_ranks(case, Ranks(np.array(found), np.array([0, 1, 2]), 500), gallery_id=gallery)


def made_up() -> list[ModelResults]:
    random = np.random.default_rng(0)
    case = reference.random_case(random, [1, 2, 4, 9], 40, 16, name="test object")
    distractors = ArrayBlocks(reference.features(random, 200, 16))
    exact = ranks(case, distractors)
    kinds = ["object", "object", "style", "style"]
    plain = of_ranks(case, exact, kind=kinds)
    better = of_ranks(case, replace(exact, flat=np.maximum(exact.flat // 2, 1)), kind=kinds)
    curve = Reliability(
        (
            ReliabilityBin(0.0, 0.0, 900.0, 0.0, Interval(0.1, 0.0, 0.2, 4, 40), 0.0, 0.004),
            ReliabilityBin(0.1, 0.5, 100.0, 1.0, Interval(0.9, 0.8, 1.0, 4, 40), 0.4, 0.36),
        ),
        0.1,
        40,
        4,
    )
    index = ThroughIndex(case.synth_model, exact, 300, np.ones(40), exact)
    return [
        ModelResults("tuned", (better,), base="b", tuned=True, calibration={"validation": curve}),
        ModelResults("plain", (plain,), base="b", through_index={"test object": index}),
    ]


def test_tables_to_the_letter() -> None:
    tuned = ModelResults("net|tuned", (hand("one", [1, 8]), hand("two", [4, 4])), "net", True)
    plain = ModelResults("net", (hand("one", [2, 20]), hand("two", [4, 4])), "net")
    other = ModelResults("other", (hand("one", [400, 1]),), "else")
    lines = markdown([tuned, other, plain]).splitlines()
    at = lines.index("## mAP")
    assert lines[at + 2 : at + 6] == [
        r"| test case | net (untuned) | net\|tuned (tuned) | other (untuned) |",
        "|---|--:|--:|--:|",
        "| one | 0.275 [0.050, 0.500] | **0.562** [0.125, 1.000] | 0.501 [0.003, 1.000] |",
        "| two | **0.250** [0.250, 0.250] | **0.250** [0.250, 0.250] |  |",
    ]
    at = lines.index("## Recall@10")
    assert lines[at + 4].startswith("| one | 0.500 [0.000, 1.000] | **1.000** [1.000, 1.000] |")
    assert "| one | 2 | 2 | 500 |" in lines
    # One model a prompt type: said once, and shown.
    assert "Where there are fewer than two models, there is no interval: n/a." in lines
    assert "| gpt | 0.500 [n/a] | **1.000** [n/a] | 0.003 [n/a] |" in lines


def test_the_folder_holds_rows_summaries_tables_and_pictures(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    files = write_report(out, made_up())
    names = [
        "calibration-tuned-validation",
        "map",
        "recall-test-object",
    ]
    expected = {f"{name}.{end}" for name in names for end in ("png", "svg")}
    expected |= {"results.parquet", "results.json", "results.md"}
    assert {file.name for file in files} == {file.name for file in out.iterdir()} == expected

    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert len(rows) == 80
    assert [row["attribution_model"] for row in rows[::40]] == ["plain", "tuned"]
    content = json.loads((out / "results.json").read_text())
    assert content["schema"] == "attrib.evaluation/1"
    plain, tuned = content["results"]
    assert (plain["attribution_model"], tuned["tuned"]) == ("plain", True)
    mean = sum(row["average_precision"] for row in rows[:40]) / 40
    assert plain["cases"][0]["overall"]["average_precision"]["mean"] == pytest.approx(mean)
    assert tuned["calibration"]["validation"]["error"] == 0.1
    text = (out / "results.md").read_text()
    assert "## Through an index" in text
    assert "| test object | plain | 300 | 1.000 [1.000, 1.000] | Recall@5 |" in text
    for name in names:
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 400
            # Something is drawn: more than a white page with a few greys.
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
        assert "<svg" in (out / f"{name}.svg").read_text()


def test_same_results_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, made_up())
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_a_report_again_replaces_the_one_before(tmp_path: Path) -> None:
    write_report(tmp_path, made_up())
    write_report(tmp_path, made_up()[:1])
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 40


def test_what_does_not_belong_in_one_table_is_refused() -> None:
    one = ModelResults("one", (hand("c", [1, 2]),))
    with pytest.raises(
        UsageError, match=r"^there is nothing to report: no attribution model was scored$"
    ):
        markdown([])
    with pytest.raises(
        UsageError, match=r"^two results of attribution model one; a report has one of each$"
    ):
        markdown([one, one])
    with pytest.raises(
        UsageError,
        match=r"^c: two and one were scored on different distractors; they do not belong in one "
        r"table$",
    ):
        markdown([one, ModelResults("two", (hand("c", [1, 2], gallery="other"),))])
    renamed = replace(hand("c", [1, 2]), image=("x", "y"))
    with pytest.raises(
        UsageError,
        match=r"^c: two and one were scored on different generated images; they do not belong in "
        r"one table$",
    ):
        markdown([one, ModelResults("two", (renamed,))])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^cannot write the report in .*file/out: Not a directory$"):
        write_report(tmp_path / "file" / "out", made_up())
