"""The folder of an audit: what may be in it, what was begun there, and how it becomes whole.

.work/plan.json    what the audit under way is of
.work/parts/       what is done of it
.work/whole/       the finished files, on their way into their places
.plan.json         what the finished audit is of; there once all else is in its place

Payouts may lie there, too. They are no part of the audit, and it never touches them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ingest.errors import DataFolderBusyError, DataFolderError, SourceError, UsageError
from ingest.source import Source, TarSource
from ingest.storage import is_remote
from search.audit.check import listed
from search.audit.manifest import damage
from search.audit.parts import PartsFolder
from search.audit.payout_found import payout_file_names
from search.audit.sign import SIGNATURE, SIGNATURE_PARTIAL
from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, REJECTS, SUMMARY
from search.folder import writing

__all__ = ["AuditFolder", "AuditPlan"]

_FILES = (ATTRIBUTIONS, IMAGES, CREATORS, REJECTS, SUMMARY, "report.html", "manifest.json")
_OWN = frozenset([*_FILES, "report-data", SIGNATURE, SIGNATURE_PARTIAL, ".plan.json", ".work"])

AuditPlan = Mapping[str, Any]
"""What an audit is of, by what it is that a person would recognise: gallery, model, ..."""


class AuditFolder:
    """An audit's folder.

    Attributes:
        out: the folder.
        parts: of the audit under way.
        whole: where its finished files are made.
        gallery: where its images' features are, if they are made elsewhere.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._work = out / ".work"
        self.parts = PartsFolder(self._work / "parts")
        self.whole = self._work / "whole"
        self.gallery = self._work / "gallery"

    def check(self, sources: Sequence[Source]) -> None:
        """Refuse a place that an audit must not be written to.

        Raises:
            UsageError: the folder is in the gallery.
            DataFolderError: it is a file, or holds other things than an audit and its payouts.
        """
        out = self.out.resolve()
        for source in sources:
            if is_remote(source.path) or isinstance(source, TarSource):
                continue
            folder = source.path.resolve()
            if folder.is_dir() and folder in (out, *out.parents):
                raise UsageError(
                    f"{self.out} is in the gallery {source.name}: choose another folder with --out"
                )
        if self.out.exists() and not self.out.is_dir():
            raise DataFolderError(f"{self.out} is a file: choose another folder with --out")
        with writing(self.out):
            names = {path.name for path in self.out.iterdir()} if self.out.is_dir() else set()
            if names - _OWN:
                names -= payout_file_names(self.out)
        if names and (names - _OWN or not names & {".plan.json", ".work"}):
            raise DataFolderError(
                f"{self.out} holds other things than an audit; choose an empty or new folder with "
                "--out"
            )

    @contextmanager
    def taken(self) -> Iterator[None]:
        """While this process works on it.

        Raises:
            DataFolderBusyError: another process does.
        """
        with writing(self.out):
            self._work.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._work / "lock", timeout=0)
            try:
                lock.acquire()
            except Timeout as exc:
                raise DataFolderBusyError(
                    f"{self.out} is being written by another audit: wait until it ends, or stop it"
                ) from exc
        try:
            yield
        finally:
            lock.release()

    def begin(self, plan: AuditPlan, *, restart: bool) -> bool:
        """Take up where an audit of the same stopped, or begin; whether it was finished before.

        Raises:
            UsageError: what was begun or finished here is of something else.
            DataFolderError: the disk refuses; what was begun cannot be read; files of what was
                finished are gone.
        """
        with writing(self.out):
            if restart:
                self.clear()
            elif (finished := self._plan(self.out / ".plan.json")) is not None:
                self._require_same(finished, plan, "holds a finished audit")
                self._require_whole()
                return True
            elif (begun := self._plan(self._work / "plan.json")) is not None:
                self._require_same(begun, plan, "holds an audit that was begun")
            self._work.mkdir(parents=True, exist_ok=True)
            self._write(self._work / "plan.json", plan)
        return False

    def finish(self, plan: AuditPlan) -> None:
        """Put what was made in `whole` into its place.

        Raises:
            DataFolderError: the disk refuses.
        """
        with writing(self.out):
            for path in sorted(self.whole.iterdir()):
                place = self.out / path.name
                if place.is_dir():
                    shutil.rmtree(place)
                path.replace(place)
            self._write(self.out / ".plan.json", plan)
            self.clean()

    def clean(self) -> None:
        """Take away what an audit needs on its way only."""
        shutil.rmtree(self._work, ignore_errors=True)

    def clear(self) -> None:
        """Take away an audit, finished or not; what holds the lock stays."""
        # First of all the mark: what is left of a finished audit is none.
        for name in (".plan.json", *sorted(_OWN - {".plan.json", ".work"})):
            path = self.out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path in self._work.iterdir() if self._work.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def give_up(self) -> None:
        """Take away what was begun, and the folder where nothing else is in it."""
        self.clean()
        if self.out.is_dir() and not any(self.out.iterdir()):
            self.out.rmdir()

    def _write(self, path: Path, plan: AuditPlan) -> None:
        # Half-written in `.work`: at any other place a kill would leave a file that is not known.
        partial = self._work / "plan.json.part"
        with partial.open("w", encoding="utf-8") as out:
            out.write(json.dumps(plan, indent=2, sort_keys=True) + "\n")
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)

    def _plan(self, path: Path) -> AuditPlan | None:
        if not path.is_file():
            return None
        try:
            plan = json.loads(path.read_text("utf-8"))
        except ValueError as exc:
            raise DataFolderError(
                f"{path} is damaged ({exc}); --restart begins the audit anew"
            ) from exc
        return plan if isinstance(plan, dict) else {}

    def _require_same(self, kept: AuditPlan, plan: AuditPlan, what: str) -> None:
        changed = [name for name in plan if kept.get(name) != json.loads(json.dumps(plan[name]))]
        if changed or kept.keys() != plan.keys():
            raise UsageError(
                f"{self.out} {what}, and since then there is another "
                f"{' and another '.join(changed) or 'version of attrib'}; --restart begins anew, "
                "--out takes another folder"
            )

    def _require_whole(self) -> None:
        # What is missing could be made from the gallery alone, which is the whole work again; and
        # what was changed is somebody's doing, which is not to be undone without a word.
        if found := damage(self.out):
            raise DataFolderError(
                f"{self.out} holds this audit, finished, but {listed(found)}: --restart makes it "
                "anew, --out takes another folder"
            )


def nothing_usable(gallery: str, reasons: Mapping[str, int]) -> SourceError:
    """The error of a gallery without one image that can be used."""
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
    return SourceError(f"none of the images of {gallery} can be used: {told or 'there are none'}")
