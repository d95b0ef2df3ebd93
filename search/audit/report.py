"""`report.html`: a finished audit as one page that opens from disk and asks nothing of a network.

First comes what is seen at once (the page, the summary, the shares), then the index of all images,
then blocks that the page unpacks when they are needed. The same audit and pictures give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ingest.errors import RunError
from search.audit.flags import FLAGS
from search.audit.report_blocks import PictureSpool, Spool, json_script
from search.audit.report_creators import Influencers, main_sources
from search.audit.report_data import AnswerWriter, clip, rounded
from search.audit.report_html import page
from search.audit.report_numbers import counted_numbers, counted_shares
from search.audit.report_pictures import Pictures, PicturesOf, Shown
from search.audit.report_settings import ReportSettings
from search.audit.report_tables import (
    answers,
    floats,
    image_columns,
    read_rejects,
    read_shares,
    read_summary,
    wanted_training,
)

__all__ = ["REPORT", "ReportSettings", "Spools", "report_content", "write_report"]

S = TypeVar("S", bound=Spool)

REPORT = "report.html"


def write_report(
    out: Path,
    generated: Callable[[str], bytes | None],
    training: PicturesOf,
    settings: ReportSettings | None = None,
) -> Path:
    """Write the report of the finished audit in ``out``, and return its path.

    Args:
        generated: an image file of a generated image, by its key; None where there is none.
        training: the same of training images, by their ids. Both are called in this thread, at
            most once an image: generated images in order of the gallery (flagged ones first),
            training images in order of importance, some hundred at a time.
        settings: limits of what is shown; the usual ones where none are given.

    Raises:
        UsageError: settings that cannot be meant.
        RunError: the audit is not finished, its tables do not belong together, or the report
            cannot be written.
    """
    settings = settings or ReportSettings()
    settings.check()
    summary = read_summary(out)
    part = out / f".{REPORT}.part"
    try:
        with ExitStack() as stack:
            spools = Spools(
                partial(_opened, stack, Spool, out), partial(_opened, stack, PictureSpool, out)
            )
            content = _fill(spools, out, summary, generated, training, settings)
            frame = page()
            with part.open("wb") as file:
                file.write(frame.before.encode())
                file.write(json_script("report", content).encode())
                file.write(frame.between.encode())
                for spool in spools.all:
                    spool.write_to(file)
                file.write(frame.after.encode())
        part.replace(out / REPORT)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise RunError(f"cannot write the report {str(out / REPORT)!r}: {reason}") from exc
    finally:
        with suppress(OSError):
            part.unlink()
    return out / REPORT


class Spools:
    """The blocks, in the order in which they stand in the file: what is needed first is first.

    Args:
        spool: makes one, by its name and how many items a block of it has.
        pictures: makes that of the pictures.
    """

    def __init__(
        self, spool: Callable[[str, int], Spool], pictures: Callable[[str, int], PictureSpool]
    ) -> None:
        self.names = spool("names", 5000)
        self.index = spool("index", 2500)
        self.training = spool("training", 250)
        self.details = spool("details", 200)
        self.pictures = pictures("pictures", 100)
        self.all = (self.names, self.index, self.training, self.details, self.pictures)


def _opened(
    stack: ExitStack, kind: Callable[[Path, str, int], S], folder: Path, name: str, size: int
) -> S:
    spool = kind(folder, name, size)
    stack.enter_context(spool)
    return spool


def _fill(
    spools: Spools,
    out: Path,
    summary: dict[str, Any],
    generated: Callable[[str], bytes | None],
    training: PicturesOf,
    settings: ReportSettings,
) -> dict[str, Any]:
    """Draw the pictures, and fill the spools; the answer is that of `report_content`."""
    mains = main_sources(out)
    pictures = Pictures(spools.pictures, settings.side, settings.flagged_side, settings.quality)
    of_generated = pictures.add(
        _some_large(_wanted_generated(out), settings.flagged_pictures),
        lambda keys: [generated(key) for key in keys],
        most=settings.generated_pictures,
        most_bytes=settings.generated_bytes,
    )
    of_training = pictures.add(
        _some_large(wanted_training(out, settings.sources, mains), settings.flagged_pictures),
        training,
        most=settings.training_pictures,
        most_bytes=settings.training_bytes,
    )
    return report_content(spools, out, summary, of_generated, of_training, settings, mains)


def report_content(
    spools: Spools,
    out: Path,
    summary: dict[str, Any],
    of_generated: Shown,
    of_training: Shown,
    settings: ReportSettings,
    mains: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Fill all spools but that of the pictures, which are drawn; the answer is what the page shows
    first, as JSON values. `mains`: `main_sources`, where they are known already.

    Raises:
        RunError: the tables do not belong together.
    """
    flags = _flag_names(summary)
    writer = AnswerWriter(
        spools.index,
        spools.details,
        spools.training,
        spools.names,
        generated=of_generated.numbers,
        of_training=of_training.numbers,
        flags=flags,
        settings=settings,
    )
    influencers = Influencers(out)
    mains = main_sources(out) if mains is None else mains
    for answer in answers(out, settings.sources, mains):
        writer.add(answer, influencers.of(answer.image))
    rejects, rejected = read_rejects(out, settings.rejects)
    return {
        "summary": summary,
        "flags": flags,
        "shares": _clipped(read_shares(out, settings.shares), settings.text),
        "plots": _plots(out),
        "rejects": _clipped(rejects, settings.text),
        "rejected": rejected,
        "limits": {
            "sources": settings.sources,
            "shares": settings.shares,
            "text": settings.text,
            "side": settings.side,
            "generated": _told(of_generated),
            "training": _told(of_training),
        },
        "blocks": {spool.name: spool.facts() for spool in spools.all},
    }


def _wanted_generated(out: Path) -> Iterator[tuple[str, bool]]:
    for flagged in (True, False):
        for image in image_columns(out, ["image", "flags"]):
            if bool(image["flags"]) == flagged:
                yield image["image"], flagged


def _some_large(wanted: Iterable[tuple[str, bool]], most: int) -> Iterator[tuple[str, bool]]:
    for place, (name, large) in enumerate(wanted):
        yield name, large and place < most


def _flag_names(summary: dict[str, Any]) -> list[str]:
    """All flags of the audit, the gravest first."""
    named = summary.get("flags") or {}
    known = [name for name in FLAGS if name in named]
    return known + sorted(set(named) - set(known))


def _plots(out: Path) -> dict[str, Any]:
    columns = floats(out, ["effective_sources", "remaining", "top_influence"])
    return {
        "effective": counted_numbers(columns["effective_sources"]),
        "remaining": counted_shares(columns["remaining"]),
        "top": counted_shares(columns["top_influence"]),
    }


def _told(shown: Shown) -> dict[str, int]:
    return {
        "shown": len(shown.numbers),
        "missing": shown.missing,
        "left_out": shown.left_out,
    }


def _clipped(value: object, most: int) -> object:
    """The same JSON values with texts no longer than ``most``, and numbers rounded."""
    if isinstance(value, dict):
        return {name: _clipped(each, most) for name, each in value.items()}
    if isinstance(value, list):
        return [_clipped(each, most) for each in value]
    if isinstance(value, float):
        return rounded(value)
    return clip(value, most) if isinstance(value, str) else value
