"""The run of an audit: what is not done of it yet is done, then the whole is put together.

Killed at any moment, the same call goes on, and the files come out the same, byte by byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest.source import UrlListSource
from search.audit.answers import Answers
from search.audit.assemble import assemble
from search.audit.finished import read_summary, read_table
from search.audit.folder import AuditFolder, AuditPlan, nothing_usable
from search.audit.gallery import Gallery, Part, Survey
from search.audit.left_out import count_left_out
from search.audit.manifest import write_manifest
from search.audit.near_copy import NearCopy
from search.audit.payload_fields import PayloadFields, check_known, further_fields
from search.audit.pictures import GeneratedPictures
from search.audit.report import write_report
from search.audit.settings import AuditSettings
from search.audit.sink import PartsSink
from search.audit.tables import REJECTS, SCHEMA
from search.folder import writing
from search.ingestion import Progress

__all__ = ["AuditReport", "run_audit"]


@dataclass(frozen=True)
class AuditReport:
    """What came of an audit.

    Attributes:
        out: the audit's folder.
        summary: what its summary.json says.
        rejected: images that could not be used, by reason.
        was_finished: it was there already, and nothing was done.
    """

    out: Path
    summary: Mapping[str, Any]
    rejected: Mapping[str, int]
    was_finished: bool


def run_audit(
    gallery: Gallery,
    answers: Answers,
    out: Path,
    settings: AuditSettings,
    *,
    restart: bool = False,
    progress: Progress | None = None,
) -> AuditReport:
    """Attribute every image of a gallery, and write the audit into a folder.

    Args:
        gallery: what is audited, cut into parts of `settings.part_size`.
        answers: who attributes.
        out: a new or empty folder, or that of an audit of the same, which is then gone on with.
        settings: what is asked.
        restart: begin anew, whatever audit is in the folder.
        progress: shown while it goes on.

    Raises:
        UsageError: settings that cannot be meant, training images to be left out that are not
            there, or a field that none has; `out` is in the gallery, or holds an audit of
            something else.
        DataFolderError: `out` holds other things or is in use; the disk refuses.
        SourceError: a source cannot be read, has no images, or none that can be used.
        RunError: the backbone, the index or the service fails.
    """
    settings.check()
    settings = settings.with_names_of_tables()
    folder = AuditFolder(out)
    folder.check(gallery.opened)
    facts = answers.facts()
    left_out = count_left_out(settings.without, answers.matching, facts["images"])
    if left_out is not None:
        facts = {**facts, "left_out": left_out.record()}
    check_known(settings.by, answers.known_fields)
    folder.parts.fields = PayloadFields(further_fields(settings.by), answers.payloads)
    survey = gallery.survey()
    settings = replace(settings, thresholds=answers.thresholds(settings))
    plan = _plan(survey, facts, settings)
    with ExitStack() as stack:
        for source in gallery.opened:
            if isinstance(source, UrlListSource):
                stack.callback(source.close)
        stack.enter_context(folder.taken())
        if folder.begin(plan, restart=restart):
            folder.clean()
            return _report(out, was_finished=True)
        _take(gallery, survey, answers, folder, settings, progress)
        if progress is not None:
            progress.building()
        _put_together(gallery, facts, answers, folder, settings)
        folder.finish(plan)
    return _report(out, was_finished=False)


def _plan(survey: Survey, facts: Mapping[str, Any], settings: AuditSettings) -> AuditPlan:
    """Everything that the outcome depends on."""
    return {
        "gallery": survey.digest,
        "model": facts["fingerprint"],
        "state of the collection": [
            facts[name] for name in ("collection", "images", "shards", "tombstones")
        ],
        "choice of settings": settings.record(),
        "version of attrib": SCHEMA,
    }


def _take(
    gallery: Gallery,
    survey: Survey,
    answers: Answers,
    folder: AuditFolder,
    settings: AuditSettings,
    progress: Progress | None,
) -> None:
    done = folder.parts.finished()
    left = [size for number, size in enumerate(survey.sizes) if number not in done]
    if progress is not None:
        progress.start(None if survey.images is None else sum(left))
    if not left:
        return
    with writing(folder.out):
        folder.parts.root.mkdir(parents=True, exist_ok=True)

    def parts() -> Iterator[Part]:
        return (part for part in gallery.parts() if part.number not in done)

    sink = PartsSink(folder.out, folder.parts, NearCopy(settings, answers.thumbnails))
    answers.take(parts(), sink, settings, progress.advance if progress else lambda images: None)


def _put_together(
    gallery: Gallery,
    facts: Mapping[str, Any],
    answers: Answers,
    folder: AuditFolder,
    settings: AuditSettings,
) -> None:
    with writing(folder.out):
        totals = assemble(folder.parts, folder.whole, gallery.name, facts, settings)
    if not totals.images:
        folder.give_up()
        raise nothing_usable(gallery.name, totals.rejected)
    write_report(folder.whole, GeneratedPictures(folder.parts).of, answers.thumbnails)
    write_manifest(folder.whole)


def _report(out: Path, *, was_finished: bool) -> AuditReport:
    reasons = read_table(out, REJECTS, ["reason"]).column("reason").to_pylist()
    return AuditReport(out, read_summary(out), dict(Counter(reasons)), was_finished)
