"""Comparing two reports: pairs are found whatever their order, and unlike reports are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import published as reference
import pyarrow.parquet as pq
import pytest

from evaluation.bootstrap import paired_difference
from evaluation.compare import compare
from evaluation.protocol import Ranks
from evaluation.report import write_report
from evaluation.results import CaseResult, ModelResults, of_ranks
from ingest.errors import SourceError, UsageError


def scored(
    name: str,
    seed: int,
    *,
    better: int = 0,
    models: int = 8,
    gallery: str = "g",
    distractors: int = 90,
) -> CaseResult:
    """Random ranks of 2 exemplars each for 3 queries a model; `better`: ranks nearer the top."""
    random = np.random.default_rng(seed)
    case = reference.random_case(random, [2] * models, 3 * models, 4, name=name)
    case = replace(case, synth_model=np.repeat(np.arange(models), 3))
    flat = np.sort(random.integers(1, 60, (3 * models, 2)), axis=1) + np.arange(2)
    flat = np.maximum(flat - better, [1, 2]).ravel()
    return of_ranks(
        case, Ranks(flat, np.arange(0, len(flat) + 1, 2), distractors), gallery_id=gallery
    )


def report(folder: Path, *models: ModelResults) -> Path:
    write_report(folder, models)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("reports")
    a = report(folder / "a", ModelResults("plain", (scored("one", 1), scored("two", 2))))
    tuned = (scored("two", 2), scored("one", 1, better=4))
    return a, report(folder / "b", ModelResults("tuned", tuned, tuned=True))


def test_differences_are_paired_by_case_model_and_image(pair: tuple[Path, Path]) -> None:
    found = compare(*pair)
    assert (found.a, found.b) == ("plain", "tuned")
    assert [one.case for one in found.cases] == ["one", "two", "all"]
    first, second, together = found.cases
    a, b = scored("one", 1), scored("one", 1, better=4)
    expected = paired_difference(a.metrics, b.metrics, a.model)
    assert [difference for _, _, difference in first.metrics.values()] == expected
    mean_a, mean_b, difference = first.metrics["average_precision"]
    assert mean_a == pytest.approx(a.overall.metrics["average_precision"].mean)
    assert mean_b - mean_a == pytest.approx(difference.mean)
    assert difference.excludes_zero
    # The other case is the same in both, though it stands elsewhere in the file.
    assert all((d.mean, d.low, d.high) == (0.0, 0.0, 0.0) for _, _, d in second.metrics.values())
    # Models of one name in two cases are two.
    assert together.metrics["average_precision"][2].models == 16
    assert together.metrics["average_precision"][2].mean == pytest.approx(difference.mean / 2)


def test_the_other_way_round_is_the_negative(pair: tuple[Path, Path]) -> None:
    forth, back = compare(*pair), compare(*reversed(pair))
    one = {case.case: case for case in forth.cases}
    for case in back.cases:
        for name, (_, _, difference) in case.metrics.items():
            assert difference.mean == pytest.approx(-one[case.case].metrics[name][2].mean)


def test_table_and_json(pair: tuple[Path, Path]) -> None:
    found = compare(*pair)
    lines = found.markdown().splitlines()
    assert lines[0].startswith("b = tuned against a = plain; differences with 95 % intervals")
    same = scored("two", 2).overall.metrics["recall_at_5"].mean
    assert f"| two | Recall@5 | {same:.3f} | {same:.3f} | +0.000 | [+0.000, +0.000] | 8 |" in lines
    assert sum("**" in line for line in lines if line.startswith("| two")) == 0
    assert any(line.startswith("| one | mAP") and "**+" in line for line in lines)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["cases"][1]["average_precision"]["difference"]["mean"] == 0.0


def test_two_models_of_one_report(tmp_path: Path) -> None:
    models = [ModelResults(name, (scored("one", 1, better=n),)) for n, name in enumerate("xyz")]
    folder = report(tmp_path / "r", *models)
    found = compare(folder, folder, model_a="x", model_b="z")
    assert len(found.cases) == 1
    assert found.cases[0].metrics["average_precision"][2].mean > 0
    with pytest.raises(
        UsageError, match=r"r has several attribution models \(x, y, z\); say which$"
    ):
        compare(folder, folder, model_a="x")
    with pytest.raises(UsageError, match=r"r has no attribution model w; it has x, y, z$"):
        compare(folder, folder, model_a="x", model_b="w")


def test_other_queries_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = report(tmp_path / "c", ModelResults("m", (scored("one", 1, models=6),)))
    with pytest.raises(
        UsageError,
        match=r"a and .*c are about different generated images: 48 and 18, of which 18 are common; "
        r"evaluate both on the same test cases$",
    ):
        compare(pair[0], other)


@pytest.mark.parametrize(
    ("gallery", "distractors", "told"),
    [
        ("g", 91, r"^one was scored among 90 distractors in .*x and 91 in .*y; "),
        ("h", 90, r"^one was scored among 90 distractors in .*x and 90 others in .*y; "),
    ],
)
def test_other_distractors_are_refused(
    tmp_path: Path, gallery: str, distractors: int, told: str
) -> None:
    x = report(tmp_path / "x", ModelResults("m", (scored("one", 1),)))
    unlike = scored("one", 1, gallery=gallery, distractors=distractors)
    y = report(tmp_path / "y", ModelResults("m", (unlike,)))
    with pytest.raises(UsageError, match=told + "evaluate both with the same$"):
        compare(x, y)


def test_folders_that_are_no_sound_report_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r" has no results.parquet; it is not a report of an evaluation$"
    ):
        compare(tmp_path, tmp_path)
    folder = report(tmp_path / "r", ModelResults("m", (scored("one", 1),)))
    summary = folder / "results.json"
    text = summary.read_text()
    for broken in (text[:50], "[]", '{"schema": "attrib.evaluation/1"}'):
        summary.write_text(broken)
        with pytest.raises(SourceError, match=r"^the report in .*r is damaged; evaluate again$"):
            compare(folder, folder)
    summary.write_text(text.replace("attrib.evaluation/1", "attrib.evaluation/9"))
    with pytest.raises(
        SourceError,
        match=r" is of schema attrib.evaluation/9, this attrib reads attrib.evaluation/1$",
    ):
        compare(folder, folder)
    summary.write_text(text)
    rows = folder / "results.parquet"
    table = pq.read_table(rows)
    pq.write_table(table.slice(0, 0), rows)
    with pytest.raises(SourceError, match=r" has no generated image of m$"):
        compare(folder, folder)
    rows.write_bytes(b"PAR1 nothing")
    with pytest.raises(SourceError, match=r"^the report in .*r is damaged; evaluate again$"):
        compare(folder, folder)
