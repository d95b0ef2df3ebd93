"""Small things that an audit rests on: remembered payloads, thumbnails found again, names."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
from ingested import draw, images

from ingest.source import open_sources
from search.audit.gallery import Gallery
from search.audit.parts import FINGERPRINT, LINES, PartsFolder, PartWriter
from search.audit.pictures import GeneratedPictures
from search.audit.remembered import remembered
from search.audit.tables import attributions_schema, images_schema
from search.index import Payload


class Asked:
    """Of an index, what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.dim = 3

    def fetch(
        self, ids: Sequence[UUID], *, fields: Sequence[str] | None = None
    ) -> list[Payload | None]:
        assert fields is None
        self.asked += [found.int for found in ids]
        return [{"key": found.int} if found.int < 100 else None for found in ids]


def test_payloads_are_asked_for_once_while_they_are_kept() -> None:
    index = Asked()
    kept = remembered(index, most=3)  # type: ignore[arg-type]
    assert kept.dim == 3
    one, two, three, four, none = (UUID(int=number) for number in (1, 2, 3, 4, 100))
    assert kept.fetch([two, one, none]) == [{"key": 2}, {"key": 1}, None]
    assert index.asked == [2, 1, 100]
    assert kept.fetch([one, three, two], fields=["key"]) == [{"key": 1}, {"key": 3}, {"key": 2}]
    assert index.asked == [2, 1, 100, 3]
    kept.fetch([none, four])  # what is not there is asked for again; 2 was the first to come
    assert index.asked == [2, 1, 100, 3, 100, 4]
    kept.fetch([one, two])
    assert index.asked == [2, 1, 100, 3, 100, 4, 2]


def test_thumbnails_are_found_in_any_order(tmp_path: Path) -> None:
    parts = PartsFolder(tmp_path / "parts")
    keys = [f"image {i}" for i in range(23)]
    for number, start in enumerate(range(0, 23, 10)):
        writer = PartWriter(parts, number)
        for first in range(start, min(start + 10, 23), 4):
            some = keys[first : min(first + 4, start + 10, 23)]
            rows = [dict.fromkeys(images_schema().names) for _ in some]
            for row, key in zip(rows, some, strict=True):
                row.update({"image": key, FINGERPRINT: b"", LINES: 0})
            no_lines: dict[str, list[object]] = {name: [] for name in attributions_schema().names}
            writer.add(rows, no_lines, [key.encode() for key in some])
        writer.finish()
    assert parts.finished() == {0, 1, 2}
    pictures = GeneratedPictures(parts)
    for key in [*keys, *reversed(keys), keys[11], keys[2]]:
        assert pictures.of(key) == key.encode()
    assert pictures.of("another") is None
    assert [piece.images.num_rows for piece in parts.pieces()] == [4, 4, 2, 4, 4, 2, 3]
    assert all(piece.attributions.num_rows == 0 for piece in parts.pieces())


def test_no_parts_have_no_thumbnails(tmp_path: Path) -> None:
    assert GeneratedPictures(PartsFolder(tmp_path / "none")).of("a") is None


def test_what_is_left_of_a_part_does_not_count(tmp_path: Path) -> None:
    parts = PartsFolder(tmp_path / "parts")
    PartWriter(parts, 3)
    assert list((tmp_path / "parts").iterdir())
    assert parts.finished() == set()
    assert not list((tmp_path / "parts").iterdir())


def test_parts_follow_from_the_gallery_alone(tmp_path: Path) -> None:
    folder = images(tmp_path / "made", 7)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(draw(tmp_path / "x.png", 1), "x.png")
    gallery = Gallery(open_sources([str(folder), str(tmp_path / "a.tar")]), 3)
    assert gallery.name == "made, a"
    sizes = [None if part.work.items is None else len(part.work.items) for part in gallery.parts()]
    assert sizes == [3, 3, 1, None]
    survey = gallery.survey()
    assert survey.images is None
    assert survey.sizes == (3, 3, 1, 0)
    assert survey == gallery.survey()
    assert Gallery(gallery.opened[:1], 3).survey().images == 7
    (folder / "image 0003.json").write_text('{"caption": "another prompt"}')
    assert gallery.survey().digest != survey.digest


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["made"], ["0.png"]),
        (["made", "other"], ["made/0.png", "other/0.png"]),
        (["a/made", "b/made"], ["made/0.png", "made~2/0.png"]),
    ],
)
def test_keys_are_as_short_as_the_gallery_allows(
    names: list[str], keys: list[str], tmp_path: Path
) -> None:
    for name in names:
        draw(tmp_path / name / "0.png", 1)
    gallery = Gallery(open_sources([str(tmp_path / name) for name in names]))
    found = [part.source.key(i.key) for part in gallery.parts() for i in part.work.items or ()]
    assert found == keys
