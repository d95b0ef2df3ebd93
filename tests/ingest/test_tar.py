"""Tars in the WebDataset layout, whole and damaged."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import RejectReason, SourceError
from ingest.formats import IMAGE_SUFFIXES
from ingest.record import ImageRecord, Reject
from ingest.source import TarSource, open_sources


def tar_of(members: Iterable[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def written(folder: Path, members: Iterable[tuple[str, bytes]], name: str = "00000.tar") -> Path:
    path = folder / name
    path.write_bytes(tar_of(members))
    return path


def until_error(source: TarSource) -> tuple[list[ImageRecord | Reject], str]:
    records: list[ImageRecord | Reject] = []
    with pytest.raises(SourceError) as caught:
        records.extend(source.records())  # keeps those before the error
    return records, str(caught.value)


def img2dataset(count: int) -> list[tuple[str, bytes]]:
    members = []
    for number in range(count):
        described = {"caption": f"caption {number}", "url": f"http://x.org/{number}", "width": 9}
        members += [
            (f"{number:09}.jpg", f"image {number}".encode() * 100),
            (f"{number:09}.json", json.dumps(described).encode()),
            (f"{number:09}.txt", f"caption {number}".encode()),
        ]
    return members


def test_img2dataset_layout(tmp_path: Path) -> None:
    path = written(tmp_path, img2dataset(3))
    [source] = open_sources([str(path)])
    assert isinstance(source, TarSource)
    assert source.kind == "tar"
    assert list(source.records()) == [
        ImageRecord(
            key=f"00000/{number:09}",
            data=f"image {number}".encode() * 100,
            path=f"{path}#{number:09}.jpg",
            url=f"http://x.org/{number}",
            caption=f"caption {number}",
            extra={"width": 9},
        )
        for number in range(3)
    ]


def test_order_within_a_sample_does_not_matter(tmp_path: Path) -> None:
    members = [("a.txt", b"of a"), ("a.jpg", b"A"), ("b.JPG", b"B"), ("b.txt", b"of b")]
    records = list(TarSource(written(tmp_path, members)).records())
    assert [(r.key, r.caption) for r in records if isinstance(r, ImageRecord)] == [
        ("00000/a", "of a"),
        ("00000/b", "of b"),
    ]


def test_samples_with_several_images_and_their_own_captions(tmp_path: Path) -> None:
    members = [
        ("s.left.png", b"L"), ("s.right.png", b"R"), ("s.right.txt", b"right"), ("s.txt", b"both"),
    ]  # fmt: skip
    records = list(TarSource(written(tmp_path, members)).records())
    assert [(r.key, r.caption) for r in records if isinstance(r, ImageRecord)] == [
        ("00000/s.left.png", "both"),
        ("00000/s.right.png", "right"),
    ]


def test_many_images_with_one_beginning_are_not_gathered_in_memory(tmp_path: Path) -> None:
    members = [(f"2021.{number:04}.jpg", b"x") for number in range(1000)]
    source = TarSource(written(tmp_path, members))
    assert next(source.records()).key == "00000/2021.0000.jpg"
    assert [r.key for r in source.records()] == [f"00000/2021.{n:04}.jpg" for n in range(1000)]


def test_names_are_harmless_and_other_members_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in [
            "../../a.jpg",
            "/etc/b.jpg",
            "./c/d e.jpg",
            "README",
            "._a.jpg",
            "n.md",
            "é.png",
        ]:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        for kind, name in [(tarfile.SYMTYPE, "link.jpg"), (tarfile.DIRTYPE, "dir.jpg")]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    before = sorted(tmp_path.rglob("*"))
    found = [record.key for record in TarSource(path).records()]
    assert found == ["x/a", "x/etc/b", "x/c/d e", "x/é"]
    assert sorted(tmp_path.rglob("*")) == before


def test_large_and_empty_members_are_rejects(tmp_path: Path) -> None:
    path = written(tmp_path, [("a.jpg", b"123456"), ("b.jpg", b""), ("c.jpg", b"12345")])
    large, empty, good = TarSource(path, max_bytes=5).records()
    assert large == Reject(
        "00000/a", f"{path}#a.jpg", RejectReason.TOO_MANY_BYTES, "6 bytes, the limit is 5"
    )
    assert empty == Reject("00000/b", f"{path}#b.jpg", RejectReason.EMPTY)
    assert isinstance(good, ImageRecord)


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "s.tar"])
def test_gzipped_tars_whatever_their_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(tar_of(img2dataset(3))))
    assert [record.key for record in TarSource(path).records()] == [
        "s/000000000",
        "s/000000001",
        "s/000000002",
    ]


def test_every_cut_gives_what_is_whole_and_then_says_so(tmp_path: Path) -> None:
    whole = tar_of((f"{number}.jpg", bytes([65 + number]) * 700) for number in range(4))
    path = tmp_path / "t.tar"
    # Each image takes a header and two blocks, 1536 bytes.
    for kept in [*range(512, 4 * 1536 + 1, 37), *range(1536, 4 * 1536 + 1, 512)]:
        path.write_bytes(whole[:kept])
        records, error = until_error(TarSource(path))
        # An image whose padding is cut may or may not count.
        fewest, most = kept // 1536, (kept + 1536 - 512 - 700) // 1536
        assert fewest <= len(records) <= most
        assert error == f"{path} is cut off after {len(records)} images"
        assert [r.data for r in records if isinstance(r, ImageRecord)] == [
            bytes([65 + number]) * 700 for number in range(len(records))
        ]


def test_a_cut_gzip(tmp_path: Path) -> None:
    members = [(f"{number}.jpg", os.urandom(5000)) for number in range(20)]
    data = gzip.compress(tar_of(members))
    path = tmp_path / "t.tar.gz"
    path.write_bytes(data[: len(data) // 2])
    records, error = until_error(TarSource(path))
    assert 8 <= len(records) <= 10
    assert error == f"{path} is cut off after {len(records)} images"


def test_a_damaged_header_in_the_middle(tmp_path: Path) -> None:
    data = bytearray(tar_of((f"{number}.jpg", b"x" * 512) for number in range(4)))
    data[2 * 1024 : 2 * 1024 + 100] = b"?" * 100
    path = tmp_path / "t.tar"
    path.write_bytes(data)
    records, error = until_error(TarSource(path))
    assert (len(records), error) == (2, f"{path} is damaged after 2 images")


@pytest.mark.parametrize("data", [b"", b"not a tar at all" * 100])
def test_not_a_tar(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(data)
    assert until_error(TarSource(path)) == ([], f"{path} is not a tar file")


def test_a_tar_without_images(tmp_path: Path) -> None:
    path = written(tmp_path, [("a.txt", b"x")])
    looked_for = ", ".join(sorted(IMAGE_SUFFIXES))
    assert until_error(TarSource(path)) == ([], f"no images in {path} (looked for {looked_for})")


def test_a_tar_that_went_away(tmp_path: Path) -> None:
    source = TarSource(tmp_path / "t.tar")
    message = f"cannot read {tmp_path}/t.tar: No such file or directory"
    assert until_error(source) == ([], message)
    with pytest.raises(SourceError) as caught:
        _ = source.signature
    assert str(caught.value) == message


def test_signature_changes_with_size_and_time(tmp_path: Path) -> None:
    path = written(tmp_path, img2dataset(1))
    source = TarSource(path)
    seen = {source.signature, source.signature}
    os.utime(path, ns=(1, 1))
    seen.add(source.signature)
    written(tmp_path, img2dataset(9))
    os.utime(path, ns=(1, 1))
    seen.add(source.signature)
    assert len(seen) == 3


STEMS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="./\\"),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.dictionaries(
        STEMS,
        st.tuples(st.binary(min_size=1, max_size=1500), st.none() | st.sampled_from(["a", "b c"])),
        min_size=1,
        max_size=6,
    ),
    kind=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    samples: dict[str, tuple[bytes, str | None]],
    kind: int,
) -> None:
    members: list[tuple[str, bytes]] = []
    for stem, (data, caption) in samples.items():
        members.append((f"{stem}.png", data))
        if caption is not None:
            members.append((f"{stem}.txt", caption.encode()))
    path = tmp_path_factory.mktemp("tar") / "t.tar"
    path.write_bytes(tar_of(members, kind))
    read = [
        (r.key, r.data, r.caption) for r in TarSource(path).records() if isinstance(r, ImageRecord)
    ]
    assert read == [(f"t/{stem}", data, text or "") for stem, (data, text) in samples.items()]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 6000), st.binary(min_size=1, max_size=30))
def test_mutated_tars_end_in_records_or_one_source_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, patch: bytes
) -> None:
    data = bytearray(tar_of(img2dataset(2)))
    data[at : at + len(patch)] = patch
    path = tmp_path_factory.mktemp("tar") / "t.tar"
    path.write_bytes(data)
    try:
        records = list(TarSource(path).records())
    except SourceError:
        return
    assert records
