"""The answer as a picture: a contact sheet where area is influence.

The generated image stands on the left at a size of its own. Beside it every training image is a
square whose AREA is proportional to its influence (side = scale * sqrt(influence)), most
influential first, and the remaining influence closes the sheet as a hatched square on the same
scale. A square that would be smaller than `MIN_SIDE` is drawn at that side with a hairline frame,
and the footer says so: it is the one place where area does not tell the influence.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from ingest.errors import RunError, UsageError
from search.answer import Attribution, Interval, Row

__all__ = ["MAX_TILES", "MIN_SIDE", "Tile", "draw_picture", "layout", "save_picture"]

WIDTH = 1600
"""Width that the measures below are for; at another width all of them are scaled."""
MIN_SIDE = 44
"""Smallest side that is drawn, in pixels at `WIDTH`."""
MAX_TILES = 400
"""Training images drawn; the influence of any further rows is counted into the last square."""

_MARGIN = 64
_HEADER = 190  # top of the first square
_RAIL = 288  # side of the generated image
_GAP, _SHELF_GAP = 28, 34
_MAX_TRAINING, _MAX_REMAINING = 320, 480  # largest sides
_LABEL_WIDTH = 132  # narrowest cell: room for a name under a small square
_LABEL_GAP, _LINE = 8, 23

_PAPER, _WHITE = (245, 243, 238), (255, 255, 255)
_INK, _MUTED = (28, 31, 35), (88, 93, 101)
_BLANK, _HATCH, _HAIRLINE = (229, 226, 218), (191, 185, 172), (138, 108, 54)

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class Tile:
    """A square of the sheet with the room for its label below; the two share the left edge.

    Attributes:
        row: index of the training image in the rows; -1 otherwise.
        x, y, side: the square, in pixels.
        right, bottom: ends (exclusive) of the cell that holds square and label.
        enlarged: drawn at the smallest side, because its influence asks for less.
    """

    kind: Literal["generated", "training", "remaining"]
    row: int
    x: int
    y: int
    side: int
    right: int
    bottom: int
    enlarged: bool = False


def layout(
    influences: Sequence[float], remaining: float, *, width: int = WIDTH, label_lines: int = 2
) -> list[Tile]:
    """Where everything goes: the generated image, a tile per influence, the remaining influence.

    All but the first are on one scale, the largest on which no training image is wider than 320
    pixels and the remaining influence no wider than 480 (at a width of 1600). Shelves are filled
    from left to right; the squares of a shelf stand on one line.
    """
    unit = width / WIDTH
    left = round((_MARGIN + _RAIL + 2 * _GAP) * unit)
    right = width - round(_MARGIN * unit)
    top = round(_HEADER * unit)
    label = round((_LABEL_GAP + _LINE * label_lines) * unit)
    rail, margin = round(_RAIL * unit), round(_MARGIN * unit)
    tiles = [Tile("generated", -1, margin, top, rail, margin + rail, top + rail + label)]

    scale = _scale(max(influences, default=0.0), remaining) * unit
    least = round(MIN_SIDE * unit)
    exact = [round(scale * math.sqrt(max(share, 0.0))) for share in (*influences, remaining)]
    sides = [max(side, least) for side in exact]

    shelf: list[tuple[int, int, int]] = []  # (index, x, end of the cell)
    x, last = left, len(influences)
    for index, side in enumerate(sides):
        narrowest = _LABEL_WIDTH if index < last else _LABEL_WIDTH * 1.4
        end = x + max(side, round(narrowest * unit))
        taller = bool(shelf) and index == last and side > max(sides[at] for at, *_ in shelf)
        if shelf and (end > right or taller):
            top = _close_shelf(tiles, shelf, sides, exact, top, label) + round(_SHELF_GAP * unit)
            shelf, end, x = [], left + end - x, left
        shelf.append((index, x, end))
        x = end + round(_GAP * unit)
    _close_shelf(tiles, shelf, sides, exact, top, label)
    return tiles


def _scale(largest: float, remaining: float) -> float:
    limits = [(_MAX_TRAINING, largest), (_MAX_REMAINING, remaining)]
    return min((side / math.sqrt(share) for side, share in limits if share > 0), default=0.0)


def _close_shelf(
    tiles: list[Tile],
    shelf: list[tuple[int, int, int]],
    sides: list[int],
    exact: list[int],
    top: int,
    label: int,
) -> int:
    """Append the tiles of a full shelf; the answer is its lower end."""
    base = top + max(sides[index] for index, *_ in shelf)
    last = len(sides) - 1
    for index, x, end in shelf:
        side = sides[index]
        enlarged = exact[index] < side
        kind: Literal["training", "remaining"] = "remaining" if index == last else "training"
        row = -1 if index == last else index
        tiles.append(Tile(kind, row, x, base - side, side, end, base + label, enlarged))
    return base + label


def draw_picture(
    attribution: Attribution,
    generated: Image.Image,
    image_of: Callable[[Row], Image.Image | None],
    *,
    width: int = WIDTH,
) -> Image.Image:
    """The contact sheet of an answer.

    Args:
        image_of: the picture of a training image, or None where there is none any more; the tile
            is then blank and names the key.
        width: pixels, 400 to 8000; the height follows.

    Raises:
        UsageError: a width outside of that range.
    """
    if not 400 <= width <= 8000:
        raise UsageError(f"a picture is 400 to 8000 pixels wide, not {width}")
    rows = attribution.rows[:MAX_TILES]
    folded = attribution.rows[MAX_TILES:]
    estimated = attribution.method == "estimated"
    remaining = attribution.remaining + sum(row.influence for row in folded)
    tiles = layout(
        [row.influence for row in rows], remaining, width=width, label_lines=3 if estimated else 2
    )
    unit = width / WIDTH
    height = max(tile.bottom for tile in tiles) + round(1.6 * _MARGIN * unit)
    sheet = _Sheet(Image.new("RGB", (width, height), _PAPER), unit)

    _draw_header(sheet, attribution)
    for tile in tiles:
        if tile.kind == "generated":
            sheet.image(tile, generated)
            sheet.label(tile, ["Generated image", _name(attribution.query)])
        elif tile.kind == "remaining":
            sheet.hatch(tile)
            note = f"remaining, with {len(folded)} more rows" if folded else "remaining influence"
            span = [] if folded else _span(attribution.remaining_interval, estimated)
            sheet.label(tile, [_percent(remaining), note, *span])
        else:
            row = rows[tile.row]
            picture = image_of(row)
            if picture is None or not sheet.image(tile, picture):
                sheet.blank(tile, row.key)
            label = [_percent(row.influence), _creators(row), *_span(row.interval, estimated)]
            sheet.label(tile, label)
        if tile.enlarged:
            sheet.frame(tile)
    _draw_footer(sheet, attribution, any(tile.enlarged for tile in tiles))
    return sheet.canvas


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Write it as PNG, JPEG or WebP by the suffix; folders on the way are made.

    Raises:
        UsageError: another suffix.
        RunError: the file cannot be written.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(_FORMATS)
        raise UsageError(f"a picture cannot be written as {path.name!r}: end the name in {known}")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.convert("RGB").save(part, kind, quality=92)
        part.replace(path)
    except FileExistsError as exc:
        folder = str(path.parent)
        raise RunError(f"cannot write the picture {str(path)!r}: {folder!r} is a file") from exc
    except (OSError, ValueError) as exc:
        with suppress(OSError):
            part.unlink()
        reason = getattr(exc, "strerror", None) or " ".join(str(exc).split())
        raise RunError(f"cannot write the picture {str(path)!r}: {reason}") from exc


def _draw_header(sheet: _Sheet, attribution: Attribution) -> None:
    how = {
        "exact": "every training image was compared",
        "complete": "every training image with influence above 0 was found",
        "estimated": "the nearest compared one by one, the rest estimated from a sample",
    }[attribution.method]
    facts = [f"{attribution.population:,} training images", f"model {attribution.model}", how]
    if attribution.where:
        named = (f"{field} = {' or '.join(kept)}" for field, kept in attribution.where.items())
        facts.append("shown only: " + ", ".join(named))
    sheet.line(_MARGIN, 50, f"What influenced {_name(attribution.query)}", 34, _INK, bold=True)
    sheet.line(_MARGIN, 102, "  ·  ".join(facts), 18, _MUTED)
    caveats = ["similarity-based estimate, not a causal proof"]
    if attribution.calibrator.get("fitted") is False:
        caveats.append("calibrator not fitted: shares rest on default settings")
    sheet.line(_MARGIN, 130, "  ·  ".join(caveats), 18, _MUTED)


def _draw_footer(sheet: _Sheet, attribution: Attribution, enlarged: bool) -> None:
    notes = ["The area of a square is proportional to its influence"]
    if enlarged:
        notes.append("framed squares are drawn larger than their share, to be seen")
    if attribution.method == "estimated":
        notes.append("ranges: 95 % confidence")
    below = sheet.canvas.height / sheet.unit - 60
    sheet.line(_MARGIN, below, "  ·  ".join(notes), 15, _MUTED)


@dataclass(frozen=True)
class _Sheet:
    """The canvas, and the few things that are drawn on it; lengths in `unit` pixels."""

    canvas: Image.Image
    unit: float

    def image(self, tile: Tile, picture: Image.Image) -> bool:
        """Fit it into the tile's square, on white; False where its data are broken."""
        try:
            flat = picture.convert("RGBA")
            flat.thumbnail((4 * tile.side, 4 * tile.side))
        except (OSError, ValueError, SyntaxError):
            return False
        ratio = tile.side / max(flat.size)
        size = (max(1, round(flat.width * ratio)), max(1, round(flat.height * ratio)))
        flat = flat.resize(size, Image.Resampling.LANCZOS)
        square = Image.new("RGB", (tile.side, tile.side), _WHITE)
        at = ((tile.side - size[0]) // 2, (tile.side - size[1]) // 2)
        square.paste(flat, at, flat)
        self.canvas.paste(square, (tile.x, tile.y))
        return True

    def blank(self, tile: Tile, key: str) -> None:
        """A neutral square with the key of the image that is missing."""
        self.canvas.paste(_BLANK, (tile.x, tile.y, tile.x + tile.side, tile.y + tile.side))
        inset = max(2, round(tile.side * 0.08))
        room = tile.side - 2 * inset
        top = tile.y + tile.side // 2 - round(9 * self.unit)
        self._text(tile.x + inset, top, room, key, 13, _MUTED)

    def hatch(self, tile: Tile) -> None:
        """The square of the remaining influence."""
        square = Image.new("RGB", (tile.side, tile.side), _BLANK)
        pen = ImageDraw.Draw(square)
        step = max(4, round(14 * self.unit))
        for offset in range(-tile.side, tile.side, step):
            pen.line((offset, tile.side, offset + tile.side, 0), _HATCH, max(1, round(self.unit)))
        self.canvas.paste(square, (tile.x, tile.y))

    def frame(self, tile: Tile) -> None:
        """The hairline around a square that is larger than its share."""
        ends = (tile.x, tile.y, tile.x + tile.side - 1, tile.y + tile.side - 1)
        ImageDraw.Draw(self.canvas).rectangle(ends, outline=_HAIRLINE)

    def label(self, tile: Tile, lines: Sequence[str]) -> None:
        """Lines of text below a square: the first one strong."""
        top = tile.y + tile.side + round(_LABEL_GAP * self.unit)
        for number, text in enumerate(lines):
            y = top + round(number * _LINE * self.unit)
            room, strong = tile.right - tile.x, number == 0
            size, ink = (17, _INK) if strong else (14, _MUTED)
            self._text(tile.x, y, room, text, size, ink, bold=strong)

    def line(
        self, x: float, y: float, text: str, size: int, ink: Colour, bold: bool = False
    ) -> None:
        """A line of text that may run to the right margin."""
        left = round(x * self.unit)
        room = self.canvas.width - left - round(_MARGIN * self.unit)
        self._text(left, round(y * self.unit), room, text, size, ink, bold=bold)

    def _text(
        self, x: int, y: int, room: int, text: str, size: int, ink: Colour, bold: bool = False
    ) -> None:
        """Text cut to `room` pixels; drawn through a mask, so that no glyph leaves its box."""
        font = _font(max(6, round(size * self.unit)), bold)
        mask = Image.new("L", (max(room, 1), round(size * 1.5 * self.unit) + 1))
        ImageDraw.Draw(mask).text((0, 0), _fitted(_clean(text), font, room), 255, font)
        self.canvas.paste(ink, (x, y), mask)


def _percent(share: float) -> str:
    share = min(max(share, 0.0), 1.0)
    if share == 0:
        return "0 %"
    if share < 0.0001:
        return "< 0.01 %"
    return f"{share:.2%}".replace("%", " %") if share < 0.01 else f"{share:.1%}".replace("%", " %")


def _span(interval: Interval, estimated: bool) -> list[str]:
    if not estimated:
        return []
    low, high = (_percent(end) for end in interval)
    return [low if low == high else f"{low.removesuffix(' %')} - {high}"]


def _name(query: str) -> str:
    """The end of a path: the file and its folder."""
    return "/".join(Path(query).parts[-2:])


def _creators(row: Row) -> str:
    return "; ".join(filter(None, map(_clean, row.creators))) or "unknown creator"


def _clean(text: str) -> str:
    """One printable line: no control, format or unassigned characters, few marks on a letter."""
    kept: list[str] = []
    marks = 0
    for character in unicodedata.normalize("NFC", text[:400]):
        kind = unicodedata.category(character)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if marks <= 2:
            kept.append(" " if kind[0] in "CZ" else character)
    return " ".join("".join(kept).split())


def _fitted(text: str, font: Font, room: int) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if font.getlength(text) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip() + "…") <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


@lru_cache(maxsize=32)
def _font(size: int, bold: bool) -> Font:
    """DejaVu Sans of the system or of matplotlib, else the font inside Pillow."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    places = [name]
    matplotlib = find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        places.append(str(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / name))
    for place in places:
        try:
            return ImageFont.truetype(place, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
