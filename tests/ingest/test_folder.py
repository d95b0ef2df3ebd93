"""Folders of images with their sidecars and tables."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.errors import RejectReason, SourceError
from ingest.formats import IMAGE_SUFFIXES
from ingest.item import Item, ItemSource
from ingest.record import ImageRecord, Reject
from ingest.source import FilesSource, FolderSource, open_sources

LOOKED_FOR = ", ".join(sorted(IMAGE_SUFFIXES))


def put(path: Path, data: bytes | str = b"image") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def keys(source: ItemSource) -> list[str]:
    return [item.key for item in source.items()]


def item_of(source: ItemSource, key: str) -> Item:
    return next(item for item in source.items() if item.key == key)


def record(source: ItemSource, key: str) -> ImageRecord:
    read = source.read(item_of(source, key))
    assert isinstance(read, ImageRecord)
    return read


def table(path: Path, columns: dict[str, Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


# Which files -----------------------------------------------------------------------------------


def test_order_suffixes_and_hidden_files(tmp_path: Path) -> None:
    for name in [
        "b.jpg", "a.PNG", "notes.md", "noending", ".hidden.jpg", "sub/é ü.webp", "sub/a b.JPEG",
        ".git/x.jpg", "sub/deep/z.tiff", "another/c.gif",
    ]:  # fmt: skip
        put(tmp_path / name)
    assert keys(FolderSource(tmp_path)) == [
        "a.PNG",
        "b.jpg",
        "another/c.gif",
        "sub/a b.JPEG",
        "sub/é ü.webp",
        "sub/deep/z.tiff",
    ]


def test_linked_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(root / "z" / "1.jpg")
    put(outside / "2.jpg")
    (root / "a-link-to-z").symlink_to(root / "z")
    (root / "z" / "loop").symlink_to(root)
    (root / "more").symlink_to(outside)
    (root / "more-again").symlink_to(outside)
    (root / "itself").symlink_to(root / "itself")
    (root / "linked.jpg").symlink_to(outside / "2.jpg")
    assert keys(FolderSource(root)) == ["linked.jpg", "z/1.jpg", "more/2.jpg"]


def test_keys_of_names_that_are_not_utf_8(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"image")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    [item] = FolderSource(tmp_path).items()
    assert item.key == r"caf\xe9.jpg"
    read = FolderSource(tmp_path).read(item)
    assert isinstance(read, ImageRecord)
    assert read.path.encode().endswith(rb"caf\xe9.jpg")


def test_no_images(tmp_path: Path) -> None:
    put(tmp_path / "readme.md")
    with pytest.raises(SourceError) as caught:
        list(FolderSource(tmp_path).items())
    assert str(caught.value) == f"no images in {tmp_path} (looked for {LOOKED_FOR})"


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError) as caught:
        list(FolderSource(tmp_path).items())
    assert str(caught.value) == f"cannot read folder {tmp_path}: Permission denied"


def test_images_are_streamed(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.jpg")
    put(tmp_path / "b" / "2.jpg")
    items = FolderSource(tmp_path).items()
    assert next(items).key == "a/1.jpg"
    put(tmp_path / "b" / "3.jpg")  # not looked at yet
    assert [item.key for item in items] == ["b/2.jpg", "b/3.jpg"]


# Reading ---------------------------------------------------------------------------------------


def test_read_gives_bytes_key_and_path(tmp_path: Path) -> None:
    put(tmp_path / "sub" / "a.jpg", b"bytes")
    source = FolderSource(tmp_path)
    assert record(source, "sub/a.jpg") == ImageRecord(
        key="sub/a.jpg", data=b"bytes", path=f"{tmp_path}/sub/a.jpg"
    )


def test_files_that_cannot_be_used_are_rejects(tmp_path: Path) -> None:
    put(tmp_path / "big.jpg", b"123456")
    put(tmp_path / "empty.jpg", b"")
    put(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    source = FolderSource(tmp_path, max_bytes=5)
    items = list(source.items())
    (tmp_path / "gone.jpg").unlink()
    rejects = {item.key: source.read(item) for item in items}
    at = str(tmp_path)
    unreadable = RejectReason.UNREADABLE
    assert rejects == {
        "big.jpg": Reject(
            "big.jpg", f"{at}/big.jpg", RejectReason.TOO_MANY_BYTES, "6 bytes, the limit is 5"
        ),
        "empty.jpg": Reject("empty.jpg", f"{at}/empty.jpg", RejectReason.EMPTY),
        "gone.jpg": Reject("gone.jpg", f"{at}/gone.jpg", unreadable, "No such file or directory"),
        "pipe.jpg": Reject("pipe.jpg", f"{at}/pipe.jpg", unreadable, "not a regular file"),
        "dangling.jpg": Reject(
            "dangling.jpg", f"{at}/dangling.jpg", unreadable, "No such file or directory"
        ),
    }


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.jpg", b"123456")
    source = FolderSource(tmp_path, max_bytes=5)
    [item] = source.items()
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("was read"))
    assert isinstance(source.read(item), Reject)


def test_many_threads_and_processes_can_read(tmp_path: Path) -> None:
    for number in range(50):
        put(tmp_path / f"{number:02}.jpg", f"{number}")
        put(tmp_path / f"{number:02}.txt", f"caption {number}")
    items = pickle.loads(pickle.dumps(list(FolderSource(tmp_path).items())))
    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(FolderSource(tmp_path).read, items))
    assert [(r.data, r.caption) for r in records if isinstance(r, ImageRecord)] == [
        (f"{number}".encode(), f"caption {number}") for number in range(50)
    ]


# Sidecars --------------------------------------------------------------------------------------


def test_sidecars_of_img2dataset(tmp_path: Path) -> None:
    put(tmp_path / "00000" / "000000012.jpg")
    put(tmp_path / "00000" / "000000012.txt", "a red\n boat ")
    described = {
        "caption": "from the JSON",
        "url": "http://example.org/boat.jpg",
        "key": "000000012",
        "status": "success",
        "error_message": None,
        "width": 640,
        "height": 480,
        "exif": "{}",
        "sha256": "00ff",
        "artist": "A. Painter",
        "license": "CC0",
        "tags": ["a", "b"],
        "similarity": 0.25,
    }
    put(tmp_path / "00000" / "000000012.json", json.dumps(described))
    read = record(FolderSource(tmp_path), "00000/000000012.jpg")
    assert (read.caption, read.url) == ("a red boat", "http://example.org/boat.jpg")
    assert (read.creator, read.licence) == ("A. Painter", "CC0")
    assert read.extra == {
        "key": "000000012",
        "width": 640,
        "height": 480,
        "sha256": "00ff",
        "similarity": 0.25,
    }


def test_the_caption_of_the_json_counts_where_there_is_no_text(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    put(tmp_path / "a.json", '{"caption": "from the JSON"}')
    assert record(FolderSource(tmp_path), "a.jpg").caption == "from the JSON"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        (" " * (1024 * 1024 + 1), "larger than 1048576 bytes"),
    ],
    ids=["broken", "list", "deep", "large"],
)
def test_a_bad_sidecar_does_not_cost_the_image(tmp_path: Path, text: str, why: str) -> None:
    put(tmp_path / "a.jpg")
    put(tmp_path / "a.json", text)
    read = record(FolderSource(tmp_path), "a.jpg")
    assert read.extra == {"metadata_error": f".json beside the image is {why}"}


def test_signature_changes_with_the_image_its_sidecars_and_its_row(tmp_path: Path) -> None:
    source = FolderSource(tmp_path)
    put(tmp_path / "a.jpg", b"one")
    put(tmp_path / "other.jpg", b"one")
    seen = [item_of(source, "a.jpg").signature]
    assert item_of(source, "a.jpg").signature == seen[0]
    put(tmp_path / "a.jpg", b"other bytes")
    seen.append(item_of(source, "a.jpg").signature)
    put(tmp_path / "a.txt", "caption")
    seen.append(item_of(source, "a.jpg").signature)
    put(tmp_path / "a.txt", "another caption")
    seen.append(item_of(source, "a.jpg").signature)
    other = item_of(source, "other.jpg").signature
    table(tmp_path / "metadata.parquet", {"file": ["a.jpg"], "caption": ["x"]})
    seen.append(item_of(source, "a.jpg").signature)
    table(tmp_path / "metadata.parquet", {"file": ["a.jpg"], "caption": ["y"]})
    seen.append(item_of(source, "a.jpg").signature)
    assert len(set(seen)) == len(seen) == 6
    assert item_of(source, "other.jpg").signature == other


# Tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_as", ["set", "set/images"])
def test_table_beside_or_above_the_images(tmp_path: Path, given_as: str) -> None:
    for name in ("a.jpg", "b.jpg"):
        put(tmp_path / "set" / "images" / name)
    table(
        tmp_path / "set" / "metadata.parquet",
        {
            "file": ["images/b.jpg", "images/a.jpg"],
            "title": ["Title B", "Title A"],
            "caption": ["caption b", "caption a"],
            "creator": ["B", "A"],
            "licence": ["public domain", "CC0"],
            "source": ["a book", "https://example.org/a"],
            "keywords": [["k"], ["l"]],
            "year": [1900, 1901],
        },
    )
    source = FolderSource(tmp_path / given_as)
    key = "images/a.jpg" if given_as == "set" else "a.jpg"
    read = record(source, key)
    assert (read.caption, read.creator, read.licence) == ("caption a", "A", "CC0")
    assert read.url == "https://example.org/a"
    assert read.extra == {"title": "Title A", "year": 1901}
    other = record(source, key.replace("a.jpg", "b.jpg"))
    assert other.url == ""
    assert other.extra == {"title": "Title B", "source": "a book", "year": 1900}


def test_csv_keeps_captions_of_digits_as_they_are(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    put(tmp_path / "metadata.csv", 'file_name,TEXT,Author\na.jpg,"007,\nnew line",Ann\n')
    read = record(FolderSource(tmp_path), "a.jpg")
    assert (read.caption, read.creator) == ("007,\nnew line", "Ann")
    put(tmp_path / "metadata.csv", "file_name,TEXT\na.jpg,007\n")
    assert record(FolderSource(tmp_path), "a.jpg").caption == "007"


@pytest.mark.parametrize(
    "named", ["b/1.jpg", "./b/1.jpg", "b\\1.jpg", "1.jpg", "/data/set/b/1.jpg", "b/1", "1"]
)
def test_rows_name_images_by_path_or_name(tmp_path: Path, named: str) -> None:
    put(tmp_path / "b" / "1.jpg")
    table(tmp_path / "metadata.parquet", {"path": [named], "text": ["found"]})
    assert record(FolderSource(tmp_path), "b/1.jpg").caption == "found"


def test_rows_of_other_folders_are_not_taken(tmp_path: Path) -> None:
    for folder in "abc":
        put(tmp_path / folder / "1.jpg")
    rows = {"file": ["a/1.jpg", "b/1.jpg"], "caption": ["of a", "of b"]}
    table(tmp_path / "metadata.parquet", rows)
    source = FolderSource(tmp_path)
    found = [record(source, f"{folder}/1.jpg").caption for folder in "abc"]
    assert found == ["of a", "of b", ""]


def test_two_rows_that_match_equally_say_nothing(tmp_path: Path) -> None:
    put(tmp_path / "1.jpg")
    table(tmp_path / "metadata.parquet", {"file": ["x/1.jpg", "y/1.jpg"], "caption": ["x", "y"]})
    assert record(FolderSource(tmp_path), "1.jpg").caption == ""


def test_the_nearest_table_counts_and_sidecars_win_over_it(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    put(tmp_path / "in" / "b.jpg")
    put(tmp_path / "in" / "b.txt", "from the sidecar")
    table(tmp_path / "metadata.parquet", {"file": ["in/a.jpg"], "caption": ["far"]})
    rows = {"key": ["a", "b"], "caption": ["near", "table"], "artist": ["A", "B"]}
    table(tmp_path / "in" / "metadata.parquet", rows)
    source = FolderSource(tmp_path)
    assert record(source, "in/a.jpg").caption == "near"
    assert record(source, "in/b.jpg").caption == "from the sidecar"
    assert record(source, "in/b.jpg").creator == "B"


def test_a_table_without_file_names(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    table(tmp_path / "metadata.parquet", {"id": [1], "caption": ["x"]})
    with pytest.raises(SourceError) as caught:
        list(FolderSource(tmp_path).items())
    assert str(caught.value) == (
        f"{tmp_path}/metadata.parquet has no column that names the image files:"
        " it has id, caption and needs one of file, file_name, path, image_path, key, image"
    )


def test_a_table_of_another_kind_above_the_folder_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.jpg")
    table(tmp_path / "metadata.parquet", {"experiment": [1]})
    assert keys(FolderSource(tmp_path / "images")) == ["a.jpg"]


@pytest.mark.parametrize("name", ["metadata.parquet", "metadata.csv"])
def test_a_damaged_table(tmp_path: Path, name: str) -> None:
    put(tmp_path / "a.jpg")
    put(tmp_path / name, b"")
    with pytest.raises(SourceError, match=f"^cannot read {tmp_path}/{name} as a table: ") as caught:
        list(FolderSource(tmp_path).items())
    assert "\n" not in str(caught.value)


def test_single_images_share_one_source(tmp_path: Path) -> None:
    paths = [put(tmp_path / name) for name in ("b.jpg", "a.jpg")]
    table(tmp_path / "metadata.parquet", {"file": ["a.jpg"], "caption": ["of a"]})
    [source] = open_sources([str(path) for path in [*paths, paths[0]]])
    assert isinstance(source, FilesSource)
    assert keys(source) == ["a.jpg", "b.jpg"]
    assert record(source, "a.jpg").caption == "of a"
    [alone] = open_sources([str(paths[0])])
    assert alone.name == str(paths[0])
