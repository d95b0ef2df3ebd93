"""What the routes share."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from search.service.addresses import Addresses
from search.service.admission import Admission
from search.service.answers import KeptAnswer
from search.service.engine import Engine
from search.service.files import File
from search.service.kept import Kept
from search.service.metrics import Metrics
from search.service.near_equal import Print
from search.service.settings import ServiceSettings

__all__ = ["State", "cached"]

_PRINT_BYTES = 16 * 1024 * 1024


class State:
    """One service.

    Attributes:
        addresses: set while the service runs.
        kept: answers by id.
        prints: of thumbnails that were compared.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings,
        metrics: Metrics,
        page: Mapping[str, File],
        examples: Mapping[str, File],
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics
        self.page = page
        self.examples = examples
        self.addresses: Addresses
        self.admission = Admission(settings.max_in_flight, settings.max_bytes_in_flight)
        self.kept: Kept[KeptAnswer] = Kept(settings.kept_bytes)
        self.prints: Kept[Print] = Kept(_PRINT_BYTES)
        metrics.gauge(
            "attrib_requests_in_flight",
            "Requests for answers that are being worked on.",
            lambda: self.admission.in_flight,
        )
        metrics.gauge(
            "attrib_request_bytes_in_flight",
            "Bytes that the bodies of these requests may have.",
            lambda: self.admission.bytes,
        )

    def forget(self) -> None:
        """Forget what may show a training image that was taken down."""
        self.kept.clear()
        self.prints.clear()


def cached(request: Request, file: File, caching: str) -> Response:
    """A file with caching headers; 304 where the asker has it already."""
    headers = {"ETag": file.etag, "Cache-Control": caching}
    known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers=headers, media_type=file.media_type)
