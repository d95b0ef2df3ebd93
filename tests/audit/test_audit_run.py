"""The run of an audit: its tables, going on where it stopped, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pyarrow.parquet as pq
import pytest
from fake_audit import audit, contents
from ingested import draw, images
from programs import wait_until

from ingest.decode import decode
from ingest.errors import DataFolderBusyError, DataFolderError, SourceError, UsageError
from search.audit.folder import AuditFolder
from search.audit.tables import ATTRIBUTIONS, IMAGES, REJECTS
from search.collection import Collection


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training images of 7 creators."""
    folder = tmp_path_factory.mktemp("data")
    fake.run(folder / "data", [str(images(folder / "pictures", 60))])
    return folder / "data"


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    for i in range(40):
        draw(folder / f"{i:03d}.png", 500 + i)
    (folder / "prompts.json").write_text(
        json.dumps({f"{i:03d}.png": {"prompt": f"prompt {i}", "seed": i} for i in range(40)})
    )
    return folder


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(out / name).to_pylist()
    return found


class Stopping(fake.FakeEmbedder):
    """Stopped after some batches, once the folder of a part is there."""

    def __init__(self, batches: int, part: Path) -> None:
        super().__init__()
        self._left = batches
        self._part = part

    def embed(self, pixels: Any) -> Any:
        if self._left == 0:
            wait_until(self._part.exists)
            raise KeyboardInterrupt
        self._left -= 1
        return super().embed(pixels)


# -- what comes out ----------------------------------------------------------------------------


def test_the_tables_say_what_a_query_of_each_image_says(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = audit(data, [gallery], out, mass=0.9, k=20)
    assert not report.was_finished
    found = rows(out, IMAGES)
    assert [row["image"] for row in found] == [f"{i:03d}.png" for i in range(40)]
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in rows(out, ATTRIBUTIONS):
        lines.setdefault(line["image"], []).append(line)
    with Collection.open(data, wait_s=10) as collection:
        embedder = fake.FakeEmbedder()
        for i, row in enumerate(found):
            pixels = fake.BACKBONE.preprocessing.apply(
                decode((gallery / row["image"]).read_bytes()).image
            )
            base = embedder.embed(pixels[None]).astype("float16").astype("float32")
            (answer,) = collection.attribute(
                collection.model.mappers.synth(base), ["one"], k=20, mass=0.9
            )
            mine = lines[row["image"]]
            assert [line["training_key"] for line in mine] == [r.key for r in answer.rows]
            assert [line["influence"] for line in mine] == [r.influence for r in answer.rows]
            assert row["remaining"] == answer.remaining
            assert math.isclose(
                math.fsum([row["remaining"], *(line["influence"] for line in mine)]), 1
            )
            assert row["method"] == answer.method
            assert row["support"] == answer.support
            assert row["sources"] == len(mine)
            assert row["top_key"] == mine[0]["training_key"]
            assert row["prompt"] == f"prompt {i}"
            assert json.loads(row["metadata"]) == {"seed": str(i)}
            assert row["path"] == f"gallery/{row['image']}"
            assert (row["width"], row["height"]) == (40, 30)
    totals = report.summary["totals"]
    assert totals["images"] == 40
    assert totals["rows"] == sum(map(len, lines.values()))
    assert totals["training_images"] == len(
        {line["training_id"] for mine in lines.values() for line in mine}
    )
    remaining = [row["remaining"] for row in found]
    assert math.isclose(totals["remaining_mean"], math.fsum(remaining) / 40)


def test_the_bytes_do_not_depend_on_threads_or_on_where_the_gallery_lies(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    audit(data, [gallery], tmp_path / "a")
    moved = tmp_path / "elsewhere" / "gallery"
    shutil.copytree(gallery, moved)
    for path in moved.iterdir():
        os.utime(path, (1, 1))
    audit(data, [moved], tmp_path / "b", decode_threads=4)
    here, there = contents(tmp_path / "a"), contents(tmp_path / "b")
    del here[".plan.json"], there[".plan.json"]  # that it is the same gallery is told by its times
    assert here == there
    assert str(tmp_path).encode() not in b"".join(here.values())


def test_the_size_of_parts_changes_no_table(data: Path, gallery: Path, tmp_path: Path) -> None:
    audit(data, [gallery], tmp_path / "a", part_size=7)
    audit(data, [gallery], tmp_path / "b", part_size=100)
    here, there = contents(tmp_path / "a"), contents(tmp_path / "b")
    for name in (ATTRIBUTIONS, IMAGES, "creators.parquet"):
        assert here[name] == there[name]


def test_without_answers_as_if_they_were_not_there(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    audit(data, [gallery], tmp_path / "all")
    audit(data, [gallery], tmp_path / "less", without={"creator": ["creator 1", "creator 2"]})
    before = {line["creator"] for line in rows(tmp_path / "all", ATTRIBUTIONS)}
    after = {line["creator"] for line in rows(tmp_path / "less", ATTRIBUTIONS)}
    assert before - after == {"creator 1", "creator 2"}
    summary = json.loads((tmp_path / "less" / "summary.json").read_text())
    assert summary["settings"]["without"] == {"creator": ["creator 1", "creator 2"]}
    with Collection.open(data, wait_s=10) as collection:
        assert collection.index.count() == 60


def test_a_gallery_of_a_thousand_rows_of_one_image_each_way_to_its_place(
    data: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row groups of the finished tables do not follow the batches."""
    monkeypatch.setattr("search.audit.assemble._GROUP_ROWS", 100)
    audit(data, [gallery], tmp_path / "out", mass=1)
    with pq.ParquetFile(tmp_path / "out" / ATTRIBUTIONS) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert set(groups[:-1]) == {100}
    assert 0 < groups[-1] <= 100


# -- going on ----------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(data: Path, gallery: Path, tmp_path: Path) -> None:
    audit(data, [gallery], tmp_path / "unbroken")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        # Parts of 16 images: batches of 5, 5, 5 and 1.
        audit(data, [gallery], out, embedder=Stopping(6, out / ".work" / "parts" / "00000"))
    assert not (out / "summary.json").exists()
    embedder = fake.FakeEmbedder()
    audit(data, [gallery], out, embedder=embedder)
    assert embedder.images == 24
    assert contents(out) == contents(tmp_path / "unbroken")


def test_a_finished_audit_is_left_as_it_is(data: Path, gallery: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    audit(data, [gallery], out)
    before = contents(out)
    embedder = fake.FakeEmbedder()
    report = audit(data, [gallery], out, embedder=embedder)
    assert report.was_finished
    assert report.summary["totals"]["images"] == 40
    assert embedder.images == 0
    assert contents(out) == before


def test_an_audit_of_something_else_is_refused_until_restart(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        audit(data, [gallery], out, embedder=Stopping(5, out / ".work"))
    with pytest.raises(UsageError) as refused:
        audit(data, [gallery], out, k=5)
    assert str(refused.value) == (
        f"{out} holds an audit that was begun, and since then there is another choice of "
        "settings; --restart begins anew, --out takes another folder"
    )
    draw(gallery / "000.png", 1)
    os.utime(gallery / "000.png", (5, 5))
    with pytest.raises(UsageError) as refused:
        audit(data, [gallery], out)
    assert "there is another gallery; --restart" in str(refused.value)
    audit(data, [gallery], out, restart=True, k=5)
    assert max(row["sources"] for row in rows(out, IMAGES)) <= 5
    with pytest.raises(UsageError, match="holds a finished audit, and since then there is another"):
        audit(data, [gallery], out)
    (out / "manifest.sig").write_text("of the old one")
    audit(data, [gallery], out, restart=True)
    assert not (out / "manifest.sig").exists()


def test_a_collection_that_grew_is_another_one(tmp_path: Path, gallery: Path) -> None:
    pictures = images(tmp_path / "pictures", 20)
    fake.run(tmp_path / "data", [str(pictures)])
    audit(tmp_path / "data", [gallery], tmp_path / "out")
    images(pictures, 1, start=20)
    fake.run(tmp_path / "data", [str(pictures)])
    with pytest.raises(UsageError, match="there is another state of the collection; --restart"):
        audit(tmp_path / "data", [gallery], tmp_path / "out")


def test_a_cut_off_end_is_made_up_for(data: Path, gallery: Path, tmp_path: Path) -> None:
    """All parts were done, and some files were in their places: the mark is what counts."""
    out = tmp_path / "out"
    audit(data, [gallery], out)
    whole = contents(out)
    audit(data, [gallery], tmp_path / "again")
    (out / ".work").mkdir()
    (out / ".plan.json").rename(out / ".work" / "plan.json")
    (out / IMAGES).write_bytes(b"half")
    audit(data, [gallery], out)
    assert contents(out) == whole


def test_two_at_once_are_one_too_many(data: Path, gallery: Path, tmp_path: Path) -> None:
    with (
        AuditFolder(tmp_path / "out").taken(),
        pytest.raises(DataFolderBusyError, match="is being written by another audit"),
    ):
        audit(data, [gallery], tmp_path / "out")


# -- bad input ---------------------------------------------------------------------------------


def test_images_that_cannot_be_used_are_rejects(data: Path, gallery: Path, tmp_path: Path) -> None:
    (gallery / "000.png").write_bytes(b"bad")
    (gallery / "001.png").write_bytes(b"")
    (gallery / "002.png").write_bytes((gallery / "003.png").read_bytes()[:60])
    report = audit(data, [gallery], tmp_path / "out")
    assert report.rejected == {"not an image": 1, "empty file": 1, "truncated image": 1}
    assert [row["image"] for row in rows(tmp_path / "out", REJECTS)] == [
        "000.png",
        "001.png",
        "002.png",
    ]
    assert len(rows(tmp_path / "out", IMAGES)) == 37
    assert report.summary["gallery"]["rejected"] == 3


def test_a_gallery_of_bad_images_is_an_error_that_leaves_nothing(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "a.png").write_bytes(b"bad")
    with pytest.raises(SourceError) as failed:
        audit(data, [tmp_path / "gallery"], tmp_path / "out")
    assert str(failed.value) == "none of the images of gallery can be used: 1 not an image"
    assert not (tmp_path / "out").exists()


def test_an_empty_gallery_is_an_error_that_leaves_nothing(data: Path, tmp_path: Path) -> None:
    (tmp_path / "gallery").mkdir()
    with pytest.raises(SourceError, match="no images in "):
        audit(data, [tmp_path / "gallery"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_of_one_name_in_two_folders_are_told_apart(data: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "made", tmp_path / "b" / "made", tmp_path / "other"]
    for seed, folder in enumerate(folders):
        draw(folder / "0.png", seed)
    audit(data, folders, tmp_path / "out")
    found = rows(tmp_path / "out", IMAGES)
    assert [row["image"] for row in found] == ["made/0.png", "made~2/0.png", "other/0.png"]
    assert [row["path"] for row in found] == ["made/0.png", "made~2/0.png", "other/0.png"]


def test_a_key_that_comes_twice_counts_once(data: Path, gallery: Path, tmp_path: Path) -> None:
    names = [f"gallery/{i:03d}.png" for i in range(20)]
    listing = tmp_path / "list.txt"
    listing.write_text("\n".join([*names, names[3], names[0]]))
    audit(data, [listing], tmp_path / "out", mass=1)
    found = rows(tmp_path / "out", IMAGES)
    assert [row["image"] for row in found] == names
    assert [(row["image"], row["reason"]) for row in rows(tmp_path / "out", REJECTS)] == [
        (names[3], "key used twice in one dataset"),
        (names[0], "key used twice in one dataset"),
    ]
    listing.write_text("\n".join(names))
    audit(data, [listing], tmp_path / "once", mass=1)
    assert contents(tmp_path / "once")[ATTRIBUTIONS] == contents(tmp_path / "out")[ATTRIBUTIONS]


def test_tars_are_parts_and_one_that_was_cut_off_is_told(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    for name, numbers in (("a.tar", range(20)), ("b.tar", range(20, 40))):
        with tarfile.open(tmp_path / name, "w") as tar:
            for i in numbers:
                tar.add(gallery / f"{i:03d}.png", f"{i:03d}.png")
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[: len(whole) // 2])
    report = audit(data, [tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "out")
    found = [row["image"] for row in rows(tmp_path / "out", IMAGES)]
    assert found[:20] == [f"a/{i:03d}" for i in range(20)]
    assert 20 < len(found) < 40
    assert rows(tmp_path / "out", IMAGES)[0]["path"] == "a.tar#000.png"
    assert report.rejected == {"source cut off": 1}
    assert str(tmp_path) not in str(rows(tmp_path / "out", REJECTS)[0]["path"])


def test_a_folder_of_other_things_is_refused(data: Path, gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DataFolderError, match="holds other things than an audit; choose an empty"):
        audit(data, [gallery], tmp_path / "out", restart=True)
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}
    with pytest.raises(DataFolderError, match="is a file"):
        audit(data, [gallery], tmp_path / "out" / "mine.txt")


def test_a_folder_in_the_gallery_is_refused(data: Path, gallery: Path) -> None:
    for out in (gallery / "out", gallery):
        with pytest.raises(UsageError, match=r"is in the gallery .*: choose another folder"):
            audit(data, [gallery], out)


def test_a_finished_audit_that_lost_files_is_not_called_finished(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    audit(data, [gallery], out)
    whole = contents(out)

    def told() -> str:
        before = contents(out)
        with pytest.raises(DataFolderError) as refused:
            audit(data, [gallery], out)
        after = contents(out)
        for found in (before, after):
            found.pop(".work/lock", None)
        assert after == before
        return str(refused.value)

    here, advice = f"{out} holds this audit, finished, but", "--restart makes it anew, --out takes"
    advice += " another folder"
    for name in ("report.html", "creators.parquet", "manifest.json"):
        (out / name).unlink()
        assert told() == f"{here} {name} is missing: {advice}"
        (out / name).write_bytes(whole[name])
    size = len(whole["summary.json"])
    (out / "summary.json").write_bytes(whole["summary.json"] + b"  ")
    (out / "rejects.parquet").unlink()
    changed = f"summary.json has {size + 2:,} bytes, not {size:,}"
    assert told() == f"{here} rejects.parquet is missing; {changed}: {advice}"
    (out / "manifest.json").write_bytes(b"{")
    assert told() == f"{here} manifest.json is damaged: {advice}"
    audit(data, [gallery], out, restart=True)
    assert contents(out) == whole
    assert audit(data, [gallery], out).was_finished


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"mass": 0.0}, "mass must be above 0 and at most 1, not 0"),
        ({"mass": float("nan")}, "mass must be above 0 and at most 1, not nan"),
        ({"by": ("colour",)}, "cannot sum by 'colour': no training image has such a field: there"),
        ({"by": ("",)}, "a field without a name: there is nothing to sum or leave out by"),
        ({"without": {"colour": ["red"]}}, "no training image has colour=red: nothing would be"),
    ],
)
def test_settings_that_cannot_be_meant(
    settings: dict[str, Any], told: str, data: Path, gallery: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        audit(data, [gallery], tmp_path / "out", **settings)
    assert str(refused.value).startswith(told)
