"""The report and the summary of audits that were run: what they say of their model and settings."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pyarrow.parquet as pq
import pytest
from fake_audit import audit
from ingested import draw, images
from made_audit import make_audit
from report_reader import Report

from embed.calibrator import Calibrator
from search.audit.flags import Thresholds
from search.audit.summary import limits_in_words
from search.audit.tables import CREATORS, SUMMARY
from search.collection import Collection


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training images of 7 creators; the model is neither tuned nor its calibrator fitted."""
    folder = tmp_path_factory.mktemp("data")
    fake.run(folder / "data", [str(images(folder / "pictures", 60))])
    return folder / "data"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for i in range(12):
        draw(folder / f"{i:03d}.png", 500 + i)
    return folder


def test_made_up_audit_tells_what_a_real_one_tells(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    """The tests of the page rest on made-up audits: a key that only those have proves nothing."""
    real = audit(data, [gallery], tmp_path / "real").summary
    made = json.loads((make_audit(tmp_path / "made", 3) / SUMMARY).read_text())
    with Collection.open(data, wait_s=10) as collection:
        facts = collection.facts()
    assert set(made["calibrator"]) == set(facts["calibrator"]) == set(real["calibrator"])
    assert set(made["model"]) == set(real["model"])
    assert set(made["settings"]) == set(real["settings"])
    assert set(made["settings"]["thresholds"]) == set(real["settings"]["thresholds"])
    assert set(made["flags"]) == set(real["flags"])
    for name, flag in real["flags"].items():
        assert set(made["flags"][name]) <= set(flag)


FITTED = "calibrated on examples"
UNFITTED = "rests on default settings that were not fitted on examples"
UNTUNED = "This model was not tuned for attribution."


def test_audit_of_a_model_that_is_neither_tuned_nor_fitted_says_so(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    summary = audit(data, [gallery], tmp_path / "out").summary
    assert summary["calibrator"]["fitted_on"] == summary["model"]["tuned_on"] == ""
    assert UNFITTED in summary["limits"]
    assert UNTUNED in summary["limits"]
    assert FITTED not in summary["limits"]
    fitted = Path(shutil.copytree(data, tmp_path / "fitted"))
    with Collection.open(fitted, wait_s=10) as collection:
        collection.recalibrate(Calibrator(0.05, -0.02, "pairs"))
    after = audit(fitted, [gallery], tmp_path / "after").summary
    assert after["calibrator"]["fitted_on"] == "pairs"
    assert FITTED in after["limits"]
    assert UNFITTED not in after["limits"]


@pytest.mark.parametrize(
    ("tuned_on", "told"), [("pairs", False), ("", True), (None, False)], ids=["tuned", "not", "?"]
)
def test_limits_name_what_the_model_was_not(tuned_on: str | None, told: bool) -> None:
    facts: dict[str, Any] = {"calibrator": {"fitted_on": "pairs"}}
    if tuned_on is not None:  # a service of before does not tell
        facts["tuned_on"] = tuned_on
    assert (UNTUNED in limits_in_words(facts)) is told
    assert "not a causal proof" in limits_in_words(facts)


def test_summary_and_report_describe_the_flags_with_the_thresholds_used(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    used = Thresholds(near_copy=0.99, one_source=0.8, one_creator=0.1)
    summary = audit(data, [gallery], tmp_path / "out", thresholds=used).summary
    told = summary["flags"]
    assert told["near-copy"]["threshold"].startswith("score 0.99; ")
    assert told["near-copy"]["error"] == "not measured at this threshold"
    assert told["one-source"]["definition"].startswith("One training image carries 80 % ")
    assert "together carry 10 % " in told["one-creator"]["definition"]
    assert Report(tmp_path / "out" / "report.html").first["summary"]["flags"] == told


def test_images_of_a_creator_are_as_many_as_its_share_counts(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    audit(data, [gallery], out, mass=1.0)
    report = Report(out / "report.html")
    names = report.items("names")
    numbers = (number for item in report.items("index") for number in accumulate(item[12]))
    assert Counter(names[number] for number in numbers) == {
        line["value"]: line["images"]
        for line in pq.read_table(out / CREATORS).to_pylist()
        if line["field"] == "creator" and line["kind"] == "known"
    }
