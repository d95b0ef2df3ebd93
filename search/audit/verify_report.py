"""Whether report.html shows what the tables say.

The same tables give the same data, but for the numbers of pictures. So the data are made again,
and compared with those that the report carries; and so is its page, which could show anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ingest.errors import RunError
from search.audit.check import Check
from search.audit.report import REPORT, ReportSettings, Spools, report_content
from search.audit.report_blocks import PictureSpool, Spool
from search.audit.report_html import page
from search.audit.report_pictures import Shown
from search.audit.report_tables import read_summary
from search.audit.verify_page import ReportFile, opened_report
from search.audit.verify_summary import made_by_another
from search.audit.verify_values import ANY_COUNT, first_difference

__all__ = ["check_report"]

_ROUNDING = 2e-6  # a report's numbers have six decimals
_MISSING: Any = object()


def check_report(out: Path, summary: Mapping[str, Any]) -> Check:
    """Compare a report with the tables beside it, to the last image, in bounded memory."""
    if not (out / REPORT).is_file():
        return Check("report", "not checked", f"there is no {REPORT}")
    if why := made_by_another(summary):
        return Check("report", "not checked", f"{REPORT} was not compared with the tables: {why}")
    try:
        with opened_report(out / REPORT) as report:
            if report.frame != tuple(each.encode() for each in _frame()):
                version = summary["versions"]["attrib"]
                words = (
                    f"the page of {REPORT} is not the one that attrib {version} writes (altered, "
                    "or made by an unreleased state of it): it may show anything"
                )
                return Check("report", "fails", words)
            fault = _compared(out, report)
    except RunError as exc:
        return Check("report", "fails", str(exc))
    if fault:
        return Check("report", "fails", f"{REPORT} does not show what the tables say: {fault}")
    words = f"{REPORT} shows what the tables say; its pictures were not compared"
    return Check("report", "holds", words)


def _frame() -> tuple[str, str, str]:
    whole = page()
    return whole.before, whole.between, whole.after


def _compared(out: Path, report: ReportFile) -> str:
    """What the report shows otherwise; '' for nothing."""
    told: dict[str, _ComparedSpool] = {}

    def spool(name: str, size: int) -> Spool:
        told[name] = _ComparedSpool(name, size, report.items(name))
        return told[name]

    spools = Spools(spool, lambda name, size: _CountedPictures(name, size, report.pictures()))
    shown = Shown(cast("dict[str, int]", _AnyNumber()), ANY_COUNT, ANY_COUNT)
    content = report_content(spools, out, read_summary(out), shown, shown, ReportSettings())
    if found := first_difference(report.content, content, rounding=_ROUNDING):
        return found.words()
    for each in told.values():
        if fault := each.finished():
            return fault
    if other := sorted(set(report.blocks) - {*told, spools.pictures.name}):
        return f"it carries blocks of {other[0]}"
    return ""


class _AnyNumber(Mapping[str, int]):
    """Numbers of pictures: those of the report are taken as they are."""

    def __getitem__(self, name: str) -> int:
        return ANY_COUNT

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return ANY_COUNT


class _CountedPictures(PictureSpool):
    """Stands for the report's pictures."""

    def __init__(self, name: str, size: int, items: int) -> None:
        self.name, self.size, self.items = name, size, items


class _ComparedSpool(Spool):
    """Compares items with those of a report, in place of writing them."""

    def __init__(self, name: str, size: int, told: Iterator[Any]) -> None:
        self.name, self.size, self.items = name, size, 0
        self._told = told
        self._fault = ""

    def add(self, item: object) -> int:
        """As `Spool.add`."""
        if not self._fault:
            told = next(self._told, _MISSING)
            if told is _MISSING:
                self._fault = f"its {self.name} end after {self.items:,}"
            elif found := first_difference(told, item, f"{self.name}[{self.items}]", _ROUNDING):
                self._fault = found.words()
        self.items += 1
        return self.items - 1

    def finished(self) -> str:
        """What was found; '' for nothing."""
        if not self._fault and next(self._told, _MISSING) is not _MISSING:
            self._fault = f"its {self.name} go on after {self.items:,}"
        return self._fault
