"""Audits of whole galleries of generated images, for the command line, scripts and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from PIL import Image

from attrib.client import Connected, connect
from embed.registry import find_model
from ingest.download_settings import DownloadSettings
from ingest.errors import ImageError, ModelMismatchError, NothingLeftError, RunError, UsageError
from ingest.source import open_sources
from search.audit.answers import LocalAnswers
from search.audit.embedded import EmbeddedElsewhere
from search.audit.folder import AuditFolder
from search.audit.gallery import Gallery
from search.audit.payload_fields import Known
from search.audit.run import AuditReport, run_audit
from search.audit.service import ServiceAnswers
from search.audit.settings import AuditSettings
from search.collection import Collection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attrib.through_workers import ThroughWorkers
    from embed.embedder import Precision
    from ingest.source import Source
    from search.answer import Attribution
    from search.ingestion import IngestSettings, Progress

__all__ = ["ServiceAnswerer", "audit_gallery"]

_AT_ONCE = 8  # that a service is asked for at a time: most of it is waiting
_KEPT = 20_000  # payloads; of about 2 KB each


def audit_gallery(
    gallery: Sequence[str],
    out: str | Path,
    *,
    data: str | Path = "attrib-data",
    server: str | None = None,
    model: str | None = None,
    settings: AuditSettings | None = None,
    device: str | None = None,
    download: DownloadSettings | None = None,
    through: ThroughWorkers | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> AuditReport:
    """Attribute a whole gallery of generated images; see ``attrib audit``.

    Args:
        gallery: folders, tars, lists of paths or URLs, as `ingest.source.open_sources` takes them.
        out: folder of the audit: new, empty, or of an audit of the same that was broken off.
        data: the data folder; not used with `server`.
        server: address of a service to ask instead.
        model: refuse to answer with another model than this.
        settings: what is asked.
        download: how the images of lists of URLs are fetched.
        through: workers that embed the gallery, in place of this process.
        restart: begin anew, whatever audit is in `out`.

    Raises:
        UsageError: settings that cannot be meant, an `out` with an audit of something else, or
            images that are to be kept in it.
        RunError: as `search.audit.run.run_audit`.
    """
    settings = settings or AuditSettings()
    settings.check()
    kept = download.keep_images if download is not None else None
    if kept is not None and Path(out).resolve() in (kept.resolve(), *kept.resolve().parents):
        raise UsageError(
            f"{kept} is in the audit's folder {out}: choose another folder with --keep-images"
        )
    sources = open_sources(list(gallery), settings.limits.max_bytes, download)
    cut = Gallery(sources, settings.part_size)
    wanted = find_model(model) if model is not None else None
    if server is not None:
        with closing(connect(server)) as service:
            answerer = ServiceAnswerer(service)
            if wanted is not None and (served := answerer.facts()["model"]) != wanted.name:
                raise ModelMismatchError(f"{server} answers with {served}, not with {model}")
            return run_audit(
                cut,
                ServiceAnswers(answerer),
                Path(out),
                settings,
                restart=restart,
                progress=progress,
            )
    with Collection.open(Path(data), model=wanted) as collection:
        if through is not None:
            place = AuditFolder(Path(out)).gallery
            elsewhere = EmbeddedElsewhere(collection, cut, place, _ByWorkers(through, place))
            return run_audit(
                cut, elsewhere, Path(out), settings, restart=restart, progress=progress
            )
        precision = cast("Precision", settings.precision)
        answers = LocalAnswers(
            collection, lambda: collection.embedder(device=device, precision=precision)
        )
        return run_audit(cut, answers, Path(out), settings, restart=restart, progress=progress)


def _probe() -> Image.Image:
    """An image to ask with where the answer's rows are of no interest."""
    return Image.new("RGB", (64, 64), (128, 128, 128))


class _ByWorkers:
    """A `search.audit.embedded.EmbedsGallery`."""

    def __init__(self, through: ThroughWorkers, place: Path) -> None:
        self._through = through
        self._place = place

    def __call__(
        self,
        collection: Collection,
        source: Source,
        dataset: str,
        settings: IngestSettings,
        advance: Callable[[int], None],
    ) -> None:
        self._through(
            collection,
            collection.embedder,
            [source],
            dataset,
            settings=settings,
            progress=_Advance(advance),
        )
        self._through.check(self._place)


class _Advance:
    """The progress of one source within that of the gallery."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def start(self, pending: int | None) -> None:
        """The gallery's has begun."""

    def building(self) -> None:
        """There is no index."""


class ServiceAnswerer:
    """A running service as `search.audit.service.Answerer`."""

    def __init__(self, service: Connected) -> None:
        self._service = service
        self._payloads: dict[str, dict[str, Any] | None] = {}

    def facts(self) -> Mapping[str, Any]:
        """As `Answerer.facts`.

        Raises:
            RunError: that is no attrib service, or it cannot be reached.
        """
        facts = self._service.info()
        missing = {"model", "fingerprint", "collection", "images", "shards", "tombstones"} - {
            *facts
        }
        if missing:
            raise RunError(
                f"{self._service.url} does not tell its {', '.join(sorted(missing))}: no attrib "
                "service, or an older one"
            )
        return facts

    def matching(self, where: Mapping[str, Sequence[str]]) -> int:
        """As `Answerer.matching`: by an answer without them, since reading does not tell more."""
        images = int(self.facts()["images"])
        try:
            (answer,) = self._service.query_many([_probe()], k=1, without=where)
        except NothingLeftError:
            return images
        return max(images - answer.population, 0)

    def known_fields(self, names: Sequence[str]) -> Known:
        """As `Answerer.known_fields`: by an answer's groups, over all its training images."""
        missing, looked_at = [], 0
        for name in names:
            (answer,) = self._service.query_many([_probe()], k=1, group_by=name)
            looked_at = sum(group.images for group in answer.groups)
            if not any(group.value for group in answer.groups):
                missing.append(name)
        return Known(tuple(missing), looked_at=looked_at)

    def payloads(self, training_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """As `Answerer.payloads`. Those asked for last are remembered."""
        known = self._payloads
        missing = [id for id in training_ids if id not in known]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="payloads") as pool:
            known.update(zip(missing, pool.map(self._service.payload, missing), strict=True))
        found = [known[id] for id in training_ids]
        while len(known) > _KEPT:
            del known[next(iter(known))]
        return found

    def ask(
        self, images: Sequence[bytes], settings: AuditSettings
    ) -> list[Attribution | ImageError]:
        """As `Answerer.ask`. A request that is refused for one of its images is halved."""
        try:
            return list(
                self._service.query_many(
                    images,
                    k=settings.k,
                    mass=settings.mass,
                    without=dict(settings.without),
                    exact=settings.exact,
                )
            )
        except ImageError as exc:
            if len(images) == 1:
                return [exc]
        half = len(images) // 2
        return [*self.ask(images[:half], settings), *self.ask(images[half:], settings)]

    def thumbnails(self, training_ids: Sequence[str]) -> list[bytes | None]:
        """As `Answerer.thumbnails`."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="thumbnails") as pool:
            return list(pool.map(self._service.thumbnail, training_ids))
