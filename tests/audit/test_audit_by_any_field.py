"""Shares by any field that the training images' payloads have, a sidecar's `agency` among them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from fake_audit import audit, contents
from ingested import draw
from programs import wait_until
from typer.testing import CliRunner
from verified import alter, states, words

from attrib.commands.payout import payout
from ingest.errors import UsageError
from search.audit.diff import diff
from search.audit.finished import image_batches, line_fields
from search.audit.folder import AuditFolder
from search.audit.payload_fields import check_known, column_of, further_columns, known_fields
from search.audit.tables import ATTRIBUTIONS, CREATORS, attributions_schema
from search.audit.verify import verify
from search.collection import Collection

BY = ("creator", "agency", "rank", "year", "Rights holder")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training images; a field of theirs has the name of a column, another one a blank in it."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(60):
        told: dict[str, Any] = {"creator": f"creator {i % 7}", "year": 1990 + i % 3}
        told |= {"rank": f"rank {i % 2}", "Rights holder": f"holder {i % 4}"}
        told |= {"agency": f"agency {i % 5}"} if i % 5 else {}
        draw(folder / "pictures" / f"{i:02d}.png", i)
        (folder / "pictures" / f"{i:02d}.json").write_text(json.dumps(told))
    fake.run(folder / "data", [str(folder / "pictures")])
    return folder / "data"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "gallery"
    for i in range(40):
        draw(folder / f"{i:03d}.png", 500 + i)
    return folder


@pytest.fixture(scope="module")
def report(data: Path, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audits") / "report"
    audit(data, [gallery], out, by=BY)
    return out


class Stopping(fake.FakeEmbedder):
    """Stopped in the middle, once a part is there."""

    def __init__(self, part: Path) -> None:
        super().__init__()
        self._part = part

    def embed(self, pixels: Any) -> Any:
        if self.images >= 20:
            wait_until(self._part.exists)
            raise KeyboardInterrupt
        return super().embed(pixels)


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(out / name).to_pylist()
    return found


def test_lines_and_shares_are_those_of_the_payloads(report: Path) -> None:
    lines = rows(report, ATTRIBUTIONS)
    schema = attributions_schema(("agency", "rank", "year", "Rights holder"))
    assert pq.read_schema(report / ATTRIBUTIONS).equals(schema)
    for line in lines:
        i = int(Path(line["training_key"]).stem)
        assert line["payload.agency"] == (f"agency {i % 5}" if i % 5 else "")
        assert line["payload.year"] == str(1990 + i % 3)
        assert line["payload.rank"] == f"rank {i % 2}"
        assert line["payload.Rights holder"] == f"holder {i % 4}"
    shares = [line for line in rows(report, CREATORS) if line["field"] == "agency"]
    assert math.isclose(math.fsum(line["share"] for line in shares), 1)
    assert {line["value"] for line in shares} == {"", *(f"agency {i}" for i in range(1, 5))}
    for share in shares:
        if share["kind"] != "remaining":
            own = [line for line in lines if line["payload.agency"] == share["value"]]
            total = math.fsum(line["influence"] for line in own)
            assert math.isclose(share["share"], total / 40)
            assert share["training_images"] == len({line["training_id"] for line in own})


def test_killed_and_gone_on_with_it_has_the_same_bytes(
    report: Path, data: Path, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    part = AuditFolder(out).parts.at(0)
    with pytest.raises(KeyboardInterrupt):
        audit(data, [gallery], out, by=BY, embedder=Stopping(part))
    embedder = fake.FakeEmbedder()
    audit(data, [gallery], out, by=BY, embedder=embedder)
    assert 0 < embedder.images < 40
    assert contents(out) == contents(report)


def test_the_size_of_parts_and_of_the_collection_changes_no_table(
    report: Path, data: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a collection that is too large to be kept: rows are read for each answer.
    monkeypatch.setattr("search.records.Records.__init__.__defaults__", (0,))
    audit(data, [gallery], tmp_path / "out", by=BY, part_size=7)
    for name in (ATTRIBUTIONS, CREATORS):
        assert pq.read_table(tmp_path / "out" / name).equals(pq.read_table(report / name))


def test_other_audits_are_as_they_were(data: Path, gallery: Path, tmp_path: Path) -> None:
    audit(data, [gallery], tmp_path / "out")
    assert pq.read_schema(tmp_path / "out" / ATTRIBUTIONS).equals(attributions_schema())
    assert line_fields(tmp_path / "out")[-1] == "training_id"


def test_keys_go_by_both_of_their_names(data: Path, gallery: Path, tmp_path: Path) -> None:
    for name in ("key", "training_key"):
        audit(data, [gallery], tmp_path / name, by=("creator", name, "training_key"))
    assert contents(tmp_path / "key") == contents(tmp_path / "training_key")
    assert {line["field"] for line in rows(tmp_path / "key", CREATORS)} == {
        *("creator", "training_key")
    }


def test_a_field_that_no_image_has_is_refused_before_the_work(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    embedder = fake.FakeEmbedder()
    with pytest.raises(UsageError) as refused:
        audit(data, [gallery], tmp_path / "out", by=("agncy", "agency", "x"), embedder=embedder)
    assert str(refused.value) == (
        "cannot sum by 'agncy' or 'x': no training image has such a field: there are Rights "
        "holder, agency, creator, dataset, height, key, path, rank, sha256, shard, width, year"
    )
    assert embedder.images == 0
    assert not (tmp_path / "out").exists()


def test_fields_are_looked_for_until_they_are_found() -> None:
    batches = iter([[{"a": 1, "b": ""}, None], [{"b": None}], [{"b": 0, "c": 1}], [{"d": 1}]])
    found = known_fields(["a", "b"], batches)
    assert (found.missing, found.others) == ((), ("a",))  # 0 is a value
    assert next(batches) == [{"d": 1}]
    assert known_fields(["e", "b"], [[{"b": ""}]]).missing == ("e", "b")

    def never(names: object) -> Any:
        raise AssertionError(names)

    check_known(["creator", "training_key"], never)


def test_the_names_of_columns() -> None:
    assert [column_of(name) for name in ("creator", "rank")] == ["creator", "payload.rank"]
    names = attributions_schema(("rank", "payload.x")).names
    assert further_columns(names) == ("rank", "payload.x")


# -- what rests on it ----------------------------------------------------------------------------


def test_verification_sums_again_from_the_tables(report: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for path in report.iterdir():
        if path.is_file():
            (out / path.name).write_bytes(path.read_bytes())
    assert states(verify(out, None, sample=4))["shares"] == "holds"

    def other(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["payload.agency"] == "agency 1":
                line["payload.agency"] = "agency 2"

    alter(out, ATTRIBUTIONS, other)
    found = verify(out, None, sample=4)
    assert states(found)["shares"] == "fails"
    assert "creators.parquet does not follow from attributions.parquet" in words(found, "shares")
    table = pq.read_table(out / ATTRIBUTIONS).drop_columns(["payload.agency"])
    pq.write_table(table, out / ATTRIBUTIONS)
    assert "it has shares by 'agency', which nothing can be summed by" in words(
        verify(out, None, sample=0), "shares"
    )


def test_who_is_paid_by_it_is_compared_with_the_collection(
    data: Path, report: Path, tmp_path: Path
) -> None:
    """An audit that is sound in itself, and names other agencies than the collection does."""
    out = tmp_path / "out"
    out.mkdir()
    for path in report.iterdir():
        if path.is_file():
            (out / path.name).write_bytes(path.read_bytes())

    def renamed(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            for column in ("payload.agency", "value"):
                if line.get(column) == "agency 1":
                    line[column] = "agency 9"

    with Collection.open(data, wait_s=10) as collection:
        found = verify(out, collection, sample=0)
        assert states(found)["records"] == "holds"
        alter(out, ATTRIBUTIONS, renamed)
        alter(out, CREATORS, renamed)
        found = verify(out, collection, sample=0)
    assert states(found)["shares"] == "holds"
    assert states(found)["records"] == "fails"
    check = next(check for check in found.checks if check.name == "records")
    assert (
        "the collection names 'agency 1' as agency of 01.png, the audit 'agency 9'" in check.lines
    )


def test_a_column_of_another_type_is_none(report: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for path in report.iterdir():
        if path.is_file():
            (out / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(out / ATTRIBUTIONS)
    place = table.column_names.index("payload.agency")
    numbers = pa.array(range(table.num_rows))
    pq.write_table(table.set_column(place, "payload.agency", numbers), out / ATTRIBUTIONS)
    assert "agency" not in line_fields(out)
    assert states(verify(out, None, sample=0))["shares"] == "fails"


def test_all_lines_are_read_with_their_fields(report: Path) -> None:
    (batch, *_) = image_batches(report)
    assert "payload.agency" in batch.lines.column_names


def test_payouts_and_comparisons_go_by_it(
    report: Path, data: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(payout)
    options = ["--amount", "100", "--currency", "EUR", "--by", "agency", "--json"]
    done = CliRunner().invoke(app, [str(report), *options])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert {payee["name"] for payee in record["payees"]} == {
        "",
        *(f"agency {i}" for i in range(1, 5)),
    }
    audit(data, [gallery], tmp_path / "after", by=BY, without={"agency": ["agency 1"]})
    found = diff(report, tmp_path / "after", by="agency")
    gone = next(one for one in found.moved if one.value == "agency 1")
    assert gone.before > 0
    assert gone.after == 0
    # `rank` is a column of the table, and a field of the training images.
    values = {one.value for one in diff(report, tmp_path / "after", by="rank").moved}
    assert values == {"", "rank 0", "rank 1"}
    audit(data, [gallery], tmp_path / "plain")
    with pytest.raises(UsageError) as refused:
        diff(report, tmp_path / "plain", by="agency")
    assert str(refused.value) == (
        f"shares of {tmp_path / 'plain'} cannot be summed by 'agency', those of both only by "
        "creator, licence, dataset, url, path, caption, sha256, training_key, training_id: "
        "`attrib audit --by FIELD` keeps another one"
    )
