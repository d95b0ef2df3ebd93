from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ingest.errors import RunError, UsageError
from search.answer import Attribution, Method, Owner, Row
from search.picture import MAX_TILES, MIN_SIDE, Tile, draw_picture, layout, save_picture

RED, GREEN, BLUE = (220, 30, 30), (30, 160, 60), (30, 60, 200)

shares = st.lists(st.floats(0, 1), min_size=0, max_size=60).map(
    lambda raw: [share / max(sum(raw), 1.0) for share in sorted(raw, reverse=True)]
)
widths = st.integers(400, 3000)


def answer(
    influences: Sequence[float],
    *,
    remaining: float | None = None,
    creators: Sequence[str] = (),
    method: Method = "complete",
    query: str = "generated.png",
) -> Attribution:
    rows = tuple(
        Row(
            rank=number,
            similarity=0.5,
            influence=share,
            interval=(share, share),
            owners=(
                Owner(
                    id=str(number),
                    key=f"images/{number}.jpg",
                    creator=creators[number - 1] if creators else f"Creator {number}",
                ),
            ),
        )
        for number, share in enumerate(influences, start=1)
    )
    rest = 1 - sum(influences) if remaining is None else remaining
    return Attribution(
        query=query,
        rows=rows,
        remaining=rest,
        remaining_interval=(rest, rest),
        method=method,
        support=len(rows),
        population=600,
        k=len(rows),
        model="fake",
        fingerprint="0" * 12,
        calibrator={},
        index={},
    )


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def training(tiles: Sequence[Tile]) -> list[Tile]:
    return [tile for tile in tiles if tile.kind == "training"]


def test_side_is_proportional_to_the_square_root_of_influence() -> None:
    tiles = layout([0.36, 0.16, 0.04], 0.44)
    first, second, third = (tile.side for tile in training(tiles))
    assert (first, second, third) == (320, 213, 107)  # 320 * (1, 2/3, 1/3)
    assert tiles[-1].kind == "remaining"
    assert tiles[-1].side == round(320 / 0.6 * math.sqrt(0.44))


@given(shares, st.floats(0, 1), widths)
def test_all_tiles_but_the_enlarged_are_on_one_scale(
    influences: list[float], remaining: float, width: int
) -> None:
    tiles = layout(influences, remaining, width=width)[1:]
    weight = [*influences, remaining]
    true = [(tile, share) for tile, share in zip(tiles, weight, strict=True) if not tile.enlarged]
    for (one, a), (other, b) in itertools.pairwise(true):
        # half a pixel of rounding on both sides
        assert (
            abs(one.side * math.sqrt(b) - other.side * math.sqrt(a))
            <= 0.5 * (math.sqrt(a) + math.sqrt(b)) + 1e-6
        )
    least = round(MIN_SIDE * width / 1600)
    assert all(tile.side == least for tile in tiles if tile.enlarged)
    assert all(tile.side >= least for tile in tiles)


@given(shares, st.floats(0, 1), widths, st.integers(1, 4))
def test_no_two_cells_overlap_and_none_leaves_the_sheet(
    influences: list[float], remaining: float, width: int, lines: int
) -> None:
    tiles = layout(influences, remaining, width=width, label_lines=lines)
    for tile in tiles:
        assert tile.x >= 0
        assert tile.x + tile.side <= tile.right <= width
        assert tile.y >= 0
        assert tile.y + tile.side < tile.bottom
    for a, b in itertools.combinations(tiles, 2):
        apart = a.right <= b.x or b.right <= a.x or a.bottom <= b.y or b.bottom <= a.y
        assert apart, (a, b)


@given(shares, st.floats(0, 1))
def test_every_row_has_its_tile_in_reading_order_and_the_rest_is_last(
    influences: list[float], remaining: float
) -> None:
    tiles = layout(influences, remaining)
    assert [tile.kind for tile in tiles] == [
        "generated",
        *["training"] * len(influences),
        "remaining",
    ]
    assert [tile.row for tile in training(tiles)] == list(range(len(influences)))
    places = [(tile.bottom, tile.x) for tile in tiles[1:]]
    assert places == sorted(places)


def test_the_smallest_share_is_enlarged_and_says_so() -> None:
    tiles = layout([0.9, 0.0001, 0.0], 0.0999)
    assert [tile.enlarged for tile in tiles] == [False, False, True, True, False]
    assert tiles[2].side == tiles[3].side == MIN_SIDE


def test_a_large_remaining_influence_does_not_outgrow_the_sheet() -> None:
    tiles = layout([0.002] * 50, 0.9)
    assert tiles[-1].side == 480


def test_the_picture_shows_the_images_where_the_layout_says() -> None:
    colours = {1: RED, 2: GREEN}
    picture = draw_picture(answer([0.5, 0.2]), plain(BLUE), lambda row: plain(colours[row.rank]))
    tiles = layout([0.5, 0.2], 0.3)
    for tile, colour in zip(tiles[:3], [BLUE, RED, GREEN], strict=True):
        for at in (2, tile.side // 2, tile.side - 3):
            assert picture.getpixel((tile.x + at, tile.y + at)) == colour
    assert picture.width == 1600
    assert picture.height > max(tile.bottom for tile in tiles)


def test_an_image_is_not_stretched_and_stands_on_white() -> None:
    picture = draw_picture(answer([0.5]), plain(BLUE), lambda row: plain(RED, (200, 50)))
    tile = layout([0.5], 0.5)[1]
    middle = tile.x + tile.side // 2
    assert picture.getpixel((middle, tile.y + 4)) == (255, 255, 255)
    assert picture.getpixel((middle, tile.y + tile.side // 2)) == RED


def test_a_transparent_image_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    picture = draw_picture(answer([1.0]), clear, lambda row: clear)
    for tile in layout([1.0], 0.0)[:2]:
        assert picture.getpixel((tile.x + 5, tile.y + 5)) == (255, 255, 255)


def test_a_missing_or_broken_image_has_a_blank_tile(tmp_path: Path) -> None:
    plain(RED, (300, 300)).save(tmp_path / "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with Image.open(cut) as broken:
        pictures = {1: None, 2: broken}
        picture = draw_picture(answer([0.5, 0.4]), plain(BLUE), lambda row: pictures[row.rank])
    for tile in training(layout([0.5, 0.4], 0.1)):
        assert picture.getpixel((tile.x + 3, tile.y + 3)) == (229, 226, 218)


HOSTILE = [
    "x" * 10_000,
    "line\nbreak\ttab\x00null\x1b[31mred",
    "\u202eright to left override \u2066 isolate",
    "שלום עולם مرحبا",
    "👩‍👩‍👧‍👦🏴‍☠️ emoji",
    "Z" + "\u0301\u0489" * 500 + "algo",
    "\ud800 lone surrogate",
    "   \u2003\u00a0 ",
    "𒐫" * 300,
    "ﷺ﷽" * 50,
]


def test_hostile_names_change_nothing_outside_their_own_label() -> None:
    influences = [0.09] * len(HOSTILE)
    calm, wild = (
        draw_picture(answer(influences, creators=names), plain(BLUE), lambda row: plain(RED))
        for names in (["A"] * len(HOSTILE), HOSTILE)
    )
    assert calm.size == wild.size
    for tile in training(layout(influences, 1 - sum(influences))):
        label = (tile.x, tile.y + tile.side, tile.right, tile.bottom)
        for picture in (calm, wild):
            picture.paste((0, 0, 0), label)
    assert calm.tobytes() == wild.tobytes()


@pytest.mark.parametrize("text", [*HOSTILE, ""])
def test_hostile_query_names_and_keys_are_drawn(text: str) -> None:
    picture = draw_picture(answer([1.0], query=text), plain(BLUE), lambda row: None)
    assert picture.width == 1600


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=500))
def test_any_text_is_drawn(text: str) -> None:
    draw_picture(answer([1.0], creators=[text], query=text), plain(BLUE), lambda row: plain(RED))


def test_an_unknown_creator_is_named_as_unknown() -> None:
    same = [
        draw_picture(answer([1.0], creators=[name]), plain(BLUE), lambda row: plain(RED)).tobytes()
        for name in ("", " \u200b\n", "unknown creator")
    ]
    assert same[0] == same[1] == same[2]


def test_rows_past_the_limit_are_counted_into_the_last_square() -> None:
    many = [1 / 1000] * (MAX_TILES + 50)
    asked: list[int] = []

    def image_of(row: Row) -> Image.Image:
        asked.append(row.rank)
        return plain(RED)

    draw_picture(answer(many), plain(BLUE), image_of)
    assert asked == list(range(1, MAX_TILES + 1))


@pytest.mark.parametrize("method", ["exact", "complete", "estimated"])
def test_each_method_and_an_answer_without_rows_is_drawn(method: Method) -> None:
    draw_picture(answer([], method=method), plain(BLUE), lambda row: None)


def test_the_same_answer_gives_the_same_picture() -> None:
    one, other = (
        draw_picture(answer([0.7, 0.2]), plain(BLUE), lambda row: plain(RED)) for _ in range(2)
    )
    assert one.tobytes() == other.tobytes()


def test_a_width_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        draw_picture(answer([1.0]), plain(BLUE), lambda row: None, width=100)
    assert str(caught.value) == "a picture is 400 to 8000 pixels wide, not 100"


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_suffix_decides_the_format(tmp_path: Path, name: str, kind: str) -> None:
    save_picture(plain(RED), tmp_path / "new" / name)
    with Image.open(tmp_path / "new" / name) as written:
        assert written.format == kind
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_another_suffix_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        save_picture(plain(RED), tmp_path / "a.tiff")
    assert str(caught.value) == (
        "a picture cannot be written as 'a.tiff': end the name in .png, .jpg, .jpeg, .webp"
    )


def test_a_place_that_cannot_be_written_is_a_failed_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "a.png"
    with pytest.raises(RunError) as caught:
        save_picture(plain(RED), target)
    folder = str(tmp_path / "file")
    assert str(caught.value) == f"cannot write the picture {str(target)!r}: {folder!r} is a file"


def test_a_folder_in_the_way_is_a_failed_call_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(RunError) as caught:
        save_picture(plain(RED), tmp_path / "a.png")
    assert (
        str(caught.value) == f"cannot write the picture {str(tmp_path / 'a.png')!r}: Is a directory"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
