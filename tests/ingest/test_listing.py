"""Lists of images: text, parquet and CSV."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import RejectReason, SourceError
from ingest.record import ImageRecord, Reject
from ingest.source import ListingSource, open_sources


def keys(path: Path) -> list[str]:
    return [item.key for item in ListingSource(path).items()]


def test_text_lists(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "c.jpg"
    listing = tmp_path / "set" / "list.txt"
    listing.parent.mkdir()
    listing.write_text(
        f"\ufeff# my images\n\na.jpg\r\n  sub/../b b.jpg  \n{elsewhere}\n../d.jpg\n", "utf-8"
    )
    assert keys(listing) == ["a.jpg", "b b.jpg", str(elsewhere), str(tmp_path / "d.jpg")]


def test_listed_files_are_read_with_their_sidecars(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    (tmp_path / "a.txt").write_text("caption")
    (tmp_path / "list.txt").write_text("a.jpg\nmissing.jpg\n")
    [source] = open_sources([str(tmp_path / "list.txt")])
    assert isinstance(source, ListingSource)
    present, missing = source.items()
    assert source.read(present) == ImageRecord(
        "a.jpg", b"bytes", f"{tmp_path}/a.jpg", caption="caption"
    )
    assert source.read(missing) == Reject(
        "missing.jpg",
        f"{tmp_path}/missing.jpg",
        RejectReason.UNREADABLE,
        "No such file or directory",
    )
    (tmp_path / "missing.jpg").write_bytes(b"now it is there")
    assert list(source.items())[1].signature != missing.signature


def test_text_lists_of_files_and_urls(tmp_path: Path) -> None:
    listing = tmp_path / "mixed.txt"
    listing.write_text("a.jpg\nHTTPS://example.org/a.jpg\n")
    with pytest.raises(SourceError) as caught:
        keys(listing)
    assert str(caught.value) == (
        f"{listing} lists files and URLs: put the URLs into a list of their own"
    )


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_empty_lists(tmp_path: Path, text: str) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(text)
    with pytest.raises(SourceError) as caught:
        keys(listing)
    assert str(caught.value) == f"no images in {listing} (it lists no files)"


@pytest.mark.parametrize("column", ["file", "path", "file_name", "image_path", "FILE"])
def test_parquet_lists(tmp_path: Path, column: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_bytes(b"bytes")
    listing = tmp_path / "list.parquet"
    rows = {
        "TEXT": ["caption", "no"],
        column: ["sub/a.jpg", None],
        "URL": ["http://x.org/a", "no"],
        "nsfw": [0.5, float("nan")],
    }
    pq.write_table(pa.table(rows), listing)
    source = ListingSource(listing)
    first, second = source.items()
    assert source.read(first) == ImageRecord(
        "sub/a.jpg",
        b"bytes",
        f"{tmp_path}/sub/a.jpg",
        url="http://x.org/a",
        caption="caption",
        extra={"nsfw": 0.5},
    )
    # A row without a path is counted, not dropped.
    assert second.key == "list.parquet#row2"
    rejected = source.read(second)
    assert isinstance(rejected, Reject)
    assert rejected.reason is RejectReason.UNREADABLE


def test_csv_lists(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,license\n1.jpg,CC0\n2.jpg,CC-BY\n")
    items = list(ListingSource(tmp_path / "list.csv").items())
    assert [(item.key, item.metadata.licence) for item in items] == [
        ("1.jpg", "CC0"),
        ("2.jpg", "CC-BY"),
    ]


def test_parquet_is_streamed_by_row_groups(tmp_path: Path) -> None:
    listing = tmp_path / "list.parquet"
    names = [f"{number}.jpg" for number in range(4000)]
    captions = [f"{number:01000}" for number in range(4000)]  # 4 MB
    pq.write_table(pa.table({"file": names, "caption": captions}), listing, row_group_size=500)
    before = pa.total_allocated_bytes()
    items = ListingSource(listing).items()
    assert next(items).key == "0.jpg"
    assert pa.total_allocated_bytes() - before < 3_000_000
    assert sum(1 for _ in items) == 3999


def test_parquet_without_paths(tmp_path: Path) -> None:
    listing = tmp_path / "list.parquet"
    pq.write_table(pa.table({"id": [1], "caption": ["x"]}), listing)
    with pytest.raises(SourceError) as caught:
        keys(listing)
    assert str(caught.value) == (
        f"{listing} has no column that names the image files:"
        " it has id, caption and needs one of file, file_name, path, image_path, key, image"
    )


def test_parquet_whose_path_column_holds_something_else(tmp_path: Path) -> None:
    listing = tmp_path / "list.parquet"
    pq.write_table(pa.table({"image": [{"bytes": b"x"}]}), listing)
    with pytest.raises(SourceError) as caught:
        keys(listing)
    assert str(caught.value) == f"{listing}: column image holds no file names but other data"


PARTS = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"], exclude_characters="/#"
    ),
    min_size=1,
    max_size=8,
).filter(lambda part: part not in (".", "..") and part == part.strip() and ":" not in part)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), min_size=1, max_size=5))
def test_every_line_becomes_one_item_under_its_own_path(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str]
) -> None:
    listing = tmp_path_factory.mktemp("list") / "list.txt"
    listing.write_text("\n".join(paths), "utf-8")
    assert keys(listing) == paths
