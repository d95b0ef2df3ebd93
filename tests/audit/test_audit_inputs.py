"""Verification of the gallery: what is gone, changed or new since the audit, to the last image."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_audit import audit
from folders import copy_folder
from ingested import draw
from verified import alter, audited, states, words

from ingest.download_settings import DownloadSettings
from ingest.errors import RunError
from ingest.source import open_sources
from search.audit.answers import LocalAnswers
from search.audit.check import Check
from search.audit.gallery import Gallery
from search.audit.run import run_audit
from search.audit.settings import AuditSettings
from search.audit.verify import verify
from search.audit.verify_gallery import gallery_told
from search.collection import Collection

HOLDS = (
    "the gallery's {}, and {} rejected, are as they were: files, prompts, metadata and order give "
    "inputs_sha256"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of 60 training images, a gallery with prompts, and its audit."""
    folder = audited(tmp_path_factory.mktemp("place"))
    shutil.rmtree(folder / "report")
    for i in range(4):
        told = {"prompt": f"prompt {i}", "seed": i, "creator": "A. Nonymous"}
        (folder / "gallery" / f"{i:03d}.json").write_text(json.dumps(told))
    audit(folder / "data", [folder / "gallery"], folder / "report", k=20)
    return folder


@pytest.fixture
def gallery(place: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    shutil.copytree(place / "gallery", tmp_path / "gallery")
    return tmp_path / "gallery"


def inputs(report: Path, *gallery: Path, **more: Any) -> Check:
    found = verify(report, None, gallery=[str(path) for path in gallery], **more)
    return next(check for check in found.checks if check.name == "inputs")


def data_of(place: Path, to: Path) -> Path:
    return copy_folder(place / "data", to / "data")


# -- a folder ----------------------------------------------------------------------------------


def test_a_gallery_that_is_what_it_was(place: Path, gallery: Path) -> None:
    expected = Check("inputs", "holds", HOLDS.format("40 images", "1"))
    assert inputs(place / "report", place / "gallery") == expected
    assert inputs(place / "report", gallery) == expected  # wherever it lies, whatever its times


def test_what_is_gone_changed_or_new(place: Path, gallery: Path) -> None:
    (gallery / "003.png").unlink()
    draw(gallery / "004.png", 7)
    (gallery / "005.png").write_bytes(b"")
    (gallery / "002.json").write_text('{"prompt": "another", "seed": 2}')
    draw(gallery / "new.png", 8)
    draw(gallery / "bad.png", 9)
    assert inputs(place / "report", gallery) == Check(
        "inputs",
        "not checked",
        "the gallery is not what it was: 3 changed, 2 gone, 1 new",
        (
            "changed: 002.png (another prompt or other metadata)",
            "changed: 004.png (another file)",
            "gone: 005.png (empty file)",
            "changed: bad.png (rejected then: not an image; usable now)",
            "new: new.png",
            "gone: 003.png",
        ),
    )


def test_another_reason_to_reject_and_a_reject_that_is_gone(place: Path, gallery: Path) -> None:
    (gallery / "bad.png").write_bytes(b"")
    found = inputs(place / "report", gallery)
    assert found.lines == ("changed: bad.png (rejected then: not an image; empty file)",)
    (gallery / "bad.png").unlink()
    found = inputs(place / "report", gallery)
    assert found.lines == ("gone: bad.png (rejected then: not an image)",)


def test_of_many_the_first_are_named(place: Path, gallery: Path) -> None:
    for i in range(30):
        draw(gallery / f"{i:03d}.png", 9_000 + i)
    found = inputs(place / "report", gallery)
    assert found.words == "the gallery is not what it was: 30 changed"
    assert found.lines[:1] == ("changed: 000.png (another file)",)
    assert found.lines[20:] == ("and 10 more",)


# -- a list, a tar, several folders --------------------------------------------------------------


@pytest.fixture
def listed(gallery: Path) -> Path:
    """A list with one image twice, and one that is missing."""
    path = gallery / "list.csv"
    rows = ["file,prompt", "002.png,two", "001.png,one", "002.png,again", "none.png,x", "000.png,"]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_list_whose_images_come_twice_in_any_batches(
    place: Path, listed: Path, tmp_path: Path
) -> None:
    data = data_of(place, tmp_path)
    told = set()
    for size, parts in ((1, 16), (2, 16), (5, 1)):
        out = tmp_path / f"out-{size}-{parts}"
        audit(data, [listed], out, batch_size=size, part_size=parts)
        told.add(json.loads((out / "summary.json").read_text())["gallery"]["inputs_sha256"])
        found = inputs(out, listed)
        assert found == Check("inputs", "holds", HOLDS.format("3 images", "2"))
    assert len(told) == 1


def test_a_list_in_another_order(place: Path, listed: Path, tmp_path: Path) -> None:
    audit(data_of(place, tmp_path), [listed], tmp_path / "out")
    head, two, one, again, none, zero = listed.read_text().splitlines()
    listed.write_text("\n".join([head, one, two, again, none, zero]))
    assert inputs(tmp_path / "out", listed).words == (
        "the gallery is not what it was: in another order"
    )
    listed.write_text("\n".join([head, two, one, again, none, zero, "000.png,once more", "x.png,"]))
    found = inputs(tmp_path / "out", listed)
    assert found.lines == ("new: 000.png (once more)", "new: x.png")
    listed.write_text("\n".join([head, two, one, none, zero]))
    found = inputs(tmp_path / "out", listed)
    assert found.lines == ("gone: 002.png (rejected then: key used twice in one dataset)",)


def test_tars_and_one_that_is_cut_off(place: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("000.png", "000.json", "001.png", "bad.png"):
            tar.add(place / "gallery" / name, name)
    whole = (tmp_path / "a.tar").read_bytes()
    at = whole.index(b"bad.png")  # its header comes 512 bytes before its 3 bytes
    (tmp_path / "b.tar").write_bytes(whole[:at] + whole[at : at + 100])
    tars = [tmp_path / "a.tar", tmp_path / "b.tar"]
    audit(data_of(place, tmp_path), tars, tmp_path / "out")
    assert inputs(tmp_path / "out", *tars) == Check(
        "inputs", "holds", HOLDS.format("4 images", "2")
    )
    (tmp_path / "b.tar").write_bytes(whole)
    assert inputs(tmp_path / "out", *tars).lines == (
        "new: b/bad",
        "gone: b (rejected then: source cut off)",
    )
    (tmp_path / "a.tar").write_bytes(whole[: at + 100])
    assert inputs(tmp_path / "out", *tars).lines[0].startswith(f"changed: {tmp_path / 'a.tar'} ")


def test_several_folders_are_told_apart(place: Path, gallery: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(gallery, other)
    audit(data_of(place, tmp_path), [gallery, other], tmp_path / "out")
    assert inputs(tmp_path / "out", gallery, other).state == "holds"
    assert "80 images, and 2 rejected" in inputs(tmp_path / "out", gallery, other).words
    (other / "001.png").unlink()
    assert inputs(tmp_path / "out", gallery, other).lines == ("gone: other/001.png",)


# -- lists of URLs -----------------------------------------------------------------------------


def test_images_of_urls_are_not_downloaded_again(place: Path, tmp_path: Path, web: Any) -> None:

    urls = [web.url(f"/image/{i}", "127.0.0.1") for i in range(3)]
    path = tmp_path / "made.txt"
    path.write_text("\n".join([*urls, web.url("/gone", "127.0.0.1")]) + "\n")
    download = DownloadSettings(allow_private=True)
    with Collection.open(data_of(place, tmp_path), wait_s=10) as collection:
        answers = LocalAnswers(collection, fake.FakeEmbedder)
        cut = Gallery(open_sources([str(path)], download=download))
        run_audit(cut, answers, tmp_path / "out", AuditSettings())
    web.requests.clear()
    found = inputs(tmp_path / "out", path, download=download)
    assert (found.state, found.words, found.lines) == (
        "not checked",
        "3 images of lists of URLs not downloaded again",
        (),
    )
    path.write_text("\n".join([*urls[:2], "https://images.example/x.png"]) + "\n")
    found = inputs(tmp_path / "out", path, download=download)
    assert found.words == (
        "the gallery is not what it was: 2 gone, 1 new; 2 images of lists of URLs not downloaded "
        "again"
    )
    assert web.requests == []


# -- what the audit itself says of them ----------------------------------------------------------


def test_an_audit_that_was_altered_fails(place: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    shutil.copytree(place / "report", report)

    def another_prompt(rows: list[dict[str, Any]]) -> None:
        rows[0]["prompt"] = "in the style of A. Nonymous"

    alter(report, "images.parquet", another_prompt)
    found = verify(report, None, gallery=[str(place / "gallery")])
    assert states(found)["inputs"] == "fails"
    assert words(found, "inputs") == (
        "inputs_sha256 of summary.json does not follow from images.parquet and rejects.parquet"
    )


def test_not_asked_for(place: Path) -> None:
    assert inputs(place / "report", place / "gallery", inputs=False).words == (
        "inputs_sha256 follows from the tables, but the gallery was not read: that was not asked "
        "for"
    )


def test_a_gallery_that_is_not_there(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file or folder"):
        inputs(place / "report", tmp_path / "none")


# -- where the audit says ----------------------------------------------------------------------


def test_the_gallery_is_read_where_the_audit_says(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert gallery_told(place / "report") == ("gallery",)
    assert inputs(place / "report").words == HOLDS.format("40 images", "1") + (
        " (--gallery was not given: gallery here, as the audit calls it)"
    )
    monkeypatch.chdir(tmp_path)
    assert gallery_told(place / "report") == ()
    Path("gallery").mkdir()
    found = inputs(place / "report")
    assert found.state == "not checked"
    assert found.words.startswith("no images in gallery (looked for ")
    assert found.words.endswith("; --gallery names another gallery")


@pytest.mark.parametrize("name", ["..", ".", "/", "a/b", "", "x#y"])
def test_no_place_outside_of_the_working_directory_is_read(
    place: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    report = tmp_path / "report"
    shutil.copytree(place / "report", report)
    for table in ("images.parquet", "rejects.parquet"):
        rows = pq.read_table(report / table)
        paths = pa.array([f"{name}/{key}" for key in rows.column("image").to_pylist()])
        at = rows.schema.get_field_index("path")
        pq.write_table(rows.set_column(at, "path", paths), report / table)
    assert gallery_told(report) == ()
