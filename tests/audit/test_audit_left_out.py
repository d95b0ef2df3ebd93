"""What `--without` leaves out: counted, told, and refused where it is nothing or everything."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import fake_backbone as fake
import numpy as np
import pyarrow.parquet as pq
import pytest
from brute_index import BruteIndex, unit
from fake_audit import audit, contents
from ingested import draw
from playwright.sync_api import sync_playwright

from ingest.errors import NothingLeftError, UsageError
from search.audit.filters import Filters
from search.audit.left_out import count_left_out
from search.audit.verify import verify
from search.collection import Collection
from search.index import Payload

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = ["--no-sandbox", "--headless=new", "--disable-gpu", "--disable-dev-shm-usage"]
NAMES = "names are taken as they stand in the collection"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 training images: creators 0, 1 and 2; agencies of two in three; years as numbers."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(30):
        told = {"creator": f"creator {i % 3}", "licence": f"licence {i % 2}", "year": 1990 + i % 5}
        agency = {"agency": f"agency {i % 3}"} if i % 3 else {}
        draw(folder / "pictures" / f"{i:02d}.png", i)
        (folder / "pictures" / f"{i:02d}.json").write_text(json.dumps({**told, **agency}))
    fake.run(folder / "data", [str(folder / "pictures")])
    return folder / "data"


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    for i in range(12):
        draw(tmp_path / "gallery" / f"{i:02d}.png", 500 + i)
    return tmp_path / "gallery"


def test_what_is_left_out_is_counted(data: Path, gallery: Path, tmp_path: Path) -> None:
    without = {"creator": ["creator 2", "creator 1"], "licence": ["licence 0"]}
    report = audit(data, [gallery], tmp_path / "out", without=without)
    assert report.summary["left_out"] == {
        "images": 10,
        "remaining": 20,
        "conditions": [
            {"field": "creator", "value": "creator 1", "images": 10},
            {"field": "creator", "value": "creator 2", "images": 10},
            {"field": "licence", "value": "licence 0", "images": 15},
        ],
    }
    assert _as_if(tmp_path / "out") == (
        "As if training images were not there. All numbers are computed as if the training images "
        "with creator = creator 1 or creator 2, licence = licence 0 were not in the collection (10 "
        "left out, 20 remain)."
    )
    assert audit(data, [gallery], tmp_path / "out", without=without).was_finished
    assert "left_out" not in audit(data, [gallery], tmp_path / "all").summary


@pytest.mark.parametrize(
    ("without", "told"),
    [
        (
            {"creator": ["Nobody Such"]},
            f"no training image has creator=Nobody Such: nothing would be left out; {NAMES}",
        ),
        (
            {"creator": ["creator 1", "Creator 1"], "licence": ["no"]},
            "no training image has creator=Creator 1 or licence=no: nothing would be left out; "
            + NAMES,
        ),
        (
            {"creator": ["creator 1"], "agency": ["agency 2"]},
            "no training image has creator=creator 1, and agency=agency 2 at once: nothing would "
            "be left out",
        ),
        ({"agency": ["agency 3"]}, "no training image has agency=agency 3: nothing would be left"),
        ({"agncy": ["agency 1"]}, "no training image has agncy=agency 1: nothing would be left"),
        ({" ": ["agency 1"]}, "a field without a name: there is nothing to sum or leave out by"),
    ],
)
def test_a_slip_is_refused_before_the_work(
    without: dict[str, list[str]], told: str, data: Path, gallery: Path, tmp_path: Path
) -> None:
    embedder = fake.FakeEmbedder()
    with pytest.raises(UsageError) as refused:
        audit(data, [gallery], tmp_path / "out", embedder=embedder, without=without)
    assert str(refused.value).startswith(told)
    assert embedder.images == 0
    assert not (tmp_path / "out").exists()


def test_everything_left_out_is_refused_before_the_work(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    with pytest.raises(NothingLeftError, match=r"^all 30 training images match dataset=set: "):
        audit(data, [gallery], tmp_path / "out", without={"dataset": ["set"]})
    assert not (tmp_path / "out").exists()


def test_any_field_leaves_out_what_an_indexed_one_does(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    """Creator 1 and agency 1 are of the same training images."""
    audit(data, [gallery], tmp_path / "creator", without={"creator": ["creator 1"]})
    report = audit(data, [gallery], tmp_path / "agency", without={"agency": ["agency 1"]})
    assert report.summary["left_out"]["images"] == 10
    assert report.summary["settings"]["without"] == {"agency": ["agency 1"]}
    here, there = contents(tmp_path / "creator"), contents(tmp_path / "agency")
    for name in ("attributions.parquet", "images.parquet", "creators.parquet"):
        assert here[name] == there[name]
    with Collection.open(data, wait_s=10) as collection:
        collection.adopt(fake.FakeEmbedder())  # type: ignore[arg-type]
        found = verify(tmp_path / "agency", collection, gallery=[str(gallery)])
    told = {check.name: check.state for check in found.checks}
    assert told["summary"] == told["sample"] == "holds"
    assert found.holds


def test_a_number_is_left_out_by_its_text(data: Path, gallery: Path, tmp_path: Path) -> None:
    report = audit(data, [gallery], tmp_path / "out", without={"year": ["1990"]}, by=("year",))
    assert report.summary["left_out"]["images"] == 6
    lines = {line["value"] for line in _creators(tmp_path / "out")}
    assert lines == {"", "1991", "1992", "1993", "1994"}


def test_keys_go_by_both_of_their_names(data: Path, gallery: Path, tmp_path: Path) -> None:
    reports = [
        audit(data, [gallery], tmp_path / name, without={name: ["03.png"]})
        for name in ("key", "training_key")
    ]
    assert [list(report.summary["settings"]["without"]) for report in reports] == [["key"]] * 2
    assert contents(tmp_path / "key") == contents(tmp_path / "training_key")


def _as_if(out: Path) -> str:
    """What the report says of it."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = chromium.new_page()
        page.goto((out / "report.html").as_uri())
        page.wait_for_selector("#as-if:not([hidden])")
        text = page.locator("#as-if").inner_text()
        chromium.close()
    return " ".join(text.split())


def _creators(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(out / "creators.parquet").to_pylist()
    return found


# -- filters that the index does not have --------------------------------------------------------


def filled(payloads: list[Payload]) -> BruteIndex:
    index = BruteIndex()
    vectors = unit(np.random.default_rng(1).normal(size=(len(payloads), index.dim)))
    ids = [uuid.uuid5(uuid.NAMESPACE_URL, str(place)) for place in range(len(payloads))]
    index.upsert(ids, vectors, payloads)
    return index


def record(dataset: str, key: str, sha256: str, agency: object = None) -> Payload:
    return {"dataset": dataset, "key": key, "sha256": sha256, "agency": agency}


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], {"key": ["1", "2"]}),
        ([record("b", "1", "z")], {"dataset": ["a"], "key": ["1", "2"]}),
    ],
)
def test_matching_images_are_named_by_as_little_as_it_takes(
    others: list[Payload], expected: dict[str, list[str]]
) -> None:
    own = [record("a", "1", "x", "A"), record("a", "2", "y", "A"), record("a", "3", "x", "B")]
    filters = Filters(filled([*own, *others]))
    assert filters.count({"agency": ["A"]}) == 2
    assert filters.indexed({"agency": ["A"]}) == expected


def test_matching_images_of_several_datasets() -> None:
    # `a/2` and `b/1` do not match, and share their keys and datasets with those that do.
    own = [record("a", "1", "x", "A"), record("b", "2", "y", "A")]
    mixed = [*own, record("a", "2", "z"), record("b", "1", "z")]
    assert Filters(filled(mixed)).indexed({"agency": ["A"]}) == {"sha256": ["x", "y"]}
    mixed = [*own, record("a", "2", "w"), record("c", "1", "x")]
    assert Filters(filled(mixed)).indexed({"agency": ["A"]}) == {
        "dataset": ["a", "b"],
        "key": ["1", "2"],
        "sha256": ["x", "y"],
    }
    same = [*own, record("a", "2", "y"), record("b", "1", "x")]
    with pytest.raises(UsageError) as refused:
        Filters(filled(same)).indexed({"agency": ["A"]})
    assert str(refused.value) == (
        "the training images of agency=A cannot be told from others of the same keys: leave out by "
        "creator, licence, dataset, sha256, key"
    )


def test_fields_with_and_without_an_index_are_met_together() -> None:
    filters = Filters(filled([record("a", "1", "x", 5), record("b", "2", "y", 5)]))
    assert filters.count({"agency": ["5"]}) == 2
    assert filters.count({"agency": ["5"], "dataset": ["a"]}) == 1
    assert filters.indexed({"agency": ["5"], "dataset": ["a"]}) == {"key": ["1"]}
    given = {"dataset": ["a"]}
    assert filters.indexed(given) is given
    (first, _) = filled([record("a", "1", "x"), record("a", "2", "y")]).points
    index = filled([record("a", "1", "x"), record("a", "2", "y")])
    assert Filters(index).count({"training_id": [str(first)]}) == 1


def test_no_filter_is_nothing_left_out() -> None:
    def never(where: object) -> int:
        raise AssertionError(where)

    assert count_left_out({}, never, 5) is None
