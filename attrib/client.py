"""A running service in place of a data folder: `connect` gives the methods of `attrib.open`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from attrib.asking import checked_names
from attrib.exchange import (
    AskAgainError,
    Exchange,
    NoSuchImageError,
    again_and_again,
    error_of,
)
from ingest.decode import decode
from ingest.errors import (
    ImageError,
    RunError,
    SourceError,
    UsageError,
)
from ingest.thumbnail import open_thumbnail
from search.answer import Attribution, Row

if TYPE_CHECKING:
    from attrib.opened import Queryable

__all__ = ["Connected", "connect"]

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_MAX_BATCH = 64
_MAX_BATCH_BYTES = 64 * 1024 * 1024


class Connected:
    """A service that is asked over HTTP. Close it, or use it as a context manager.

    A service that is busy, loading or just being started again is asked again, until about half
    a minute has passed; a question changes nothing, and so does a takedown done twice.
    """

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 60.0) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if httpx.URL(url).host in _THIS_MACHINE:
            headers["Accept-Encoding"] = "identity"  # compressing takes longer than sending
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5.0)
        )

    def query(
        self,
        image: Queryable,
        *,
        k: int = 50,
        mass: float | None = None,
        where: Mapping[str, Sequence[str] | str] | None = None,
        without: Mapping[str, Sequence[str] | str] | None = None,
        group_by: str | None = None,
        exact: bool = False,
    ) -> Attribution:
        """Attribute one generated image; see `attrib.opened.Opened.query`.

        Raises:
            ImageError: it is no image that can be used.
            UsageError: k < 1, a mass that is no share, or a filter on a field that has no index.
            RunError: the service cannot be reached, refuses, or failed.
        """
        name = str(image) if isinstance(image, str | Path) else "image"
        return self.query_many(
            [image],
            names=[name],
            k=k,
            mass=mass,
            where=where,
            without=without,
            group_by=group_by,
            exact=exact,
        )[0]

    def query_many(
        self,
        images: Sequence[Queryable],
        *,
        names: Sequence[str] | None = None,
        k: int = 50,
        mass: float | None = None,
        where: Mapping[str, Sequence[str] | str] | None = None,
        without: Mapping[str, Sequence[str] | str] | None = None,
        group_by: str | None = None,
        exact: bool = False,
    ) -> list[Attribution]:
        """Attribute many generated images, sent together and answered in a stream; see `query`."""
        names = checked_names(images, names, k, mass)
        settings = {
            "k": str(k),
            "where": _conditions(where),
            "without": _conditions(without),
            "group_by": group_by or "",
            "exact": "true" if exact else "false",
            **({} if mass is None else {"mass": repr(mass)}),
        }
        answers: list[Attribution] = []
        for part in _parts([self.load(image) for image in images]):
            of_part = names[len(answers) : len(answers) + len(part)]
            answers += again_and_again(partial(self._ask, part, of_part, settings))
        return [replace(answer, query=name) for answer, name in zip(answers, names, strict=True)]

    @staticmethod
    def load(image: Queryable) -> bytes:
        """The bytes of an image file, looked at here so that a bad one is not sent at all.

        Raises:
            SourceError: no such file.
            ImageError: not an image that can be used.
        """
        if isinstance(image, Image.Image):
            file = BytesIO()
            image.save(file, "PNG")
            return file.getvalue()
        if isinstance(image, bytes):
            decode(image)
            return image
        path = Path(image)
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc
        try:
            decode(data)
        except ImageError as exc:
            detail = f"{path}: {exc.detail}" if exc.detail else str(path)
            raise ImageError(exc.reason, detail) from exc
        return data

    def picture(self, answer: Attribution, image: Queryable, path: str | Path) -> None:
        """Draw an answer to `image` into a file (.png, .jpg or .webp by its name)."""
        from search.picture import draw_picture, save_picture

        query = decode(self.load(image)).image
        save_picture(draw_picture(answer, query, self.image_of), path)

    def image_of(self, row: Row) -> Image.Image | None:
        """The training image's thumbnail, None where there is none."""
        for owner in row.owners:
            data = self.thumbnail(owner.id)
            if data is not None:
                picture = open_thumbnail(data)
                if picture is not None:
                    return picture
        return None

    def thumbnail(self, training_id: str) -> bytes | None:
        """The image file of a training image's thumbnail, None where there is none."""
        with suppress(RunError):
            return again_and_again(partial(self._read, f"/v1/images/{training_id}/thumbnail"))
        return None

    def payload(self, training_id: str) -> dict[str, Any] | None:
        """All that the service knows of a training image, None where there is none."""
        try:
            return self._json("GET", f"/v1/images/{training_id}")
        except NoSuchImageError:
            return None

    def info(self) -> dict[str, Any]:
        """What the service holds."""
        return self._json("GET", "/v1/info")

    def matching(
        self, *, keys: Sequence[str] = (), where: Mapping[str, Sequence[str]] | None = None
    ) -> int:
        """How many training images have one of the keys or fit the filter. Needs the write key."""
        return int(self._take_down(keys, where, dry_run=True)["matching"])

    def delete(
        self, *, keys: Sequence[str] = (), where: Mapping[str, Sequence[str]] | None = None
    ) -> int:
        """Take training images down for good; returns how many. Needs the write key."""
        return int(self._take_down(keys, where, dry_run=False)["deleted"])

    def close(self) -> None:
        """Close the connections. Calling it again does nothing."""
        self._client.close()

    def __enter__(self) -> Connected:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<attrib service {self.url!r}>"

    def _ask(
        self, images: Sequence[bytes], names: Sequence[str], settings: Mapping[str, Any]
    ) -> list[Attribution]:
        answers: list[Attribution] = []
        try:
            self._add(answers, images, settings)
        except ImageError as exc:
            detail = ": ".join(filter(None, (names[len(answers)], exc.detail)))
            raise ImageError(exc.reason, detail) from exc
        return answers

    def _add(
        self, answers: list[Attribution], images: Sequence[bytes], settings: Mapping[str, Any]
    ) -> None:
        """Add the answers to images, one by one as they come."""
        files = [("image", (f"image {i}", data)) for i, data in enumerate(images)]
        if len(files) == 1:
            with self._sent("POST", "/v1/attributions", data=settings, files=files) as response:
                answers.append(Attribution.from_dict(json.loads(response.read())))
            return
        with self._sent("POST", "/v1/attributions:batch", data=settings, files=files) as response:
            for line in response.iter_lines():
                body = json.loads(line)
                if "error" in body:
                    raise error_of(body["error"], "")
                answers.append(Attribution.from_dict(body))
        if len(answers) != len(files):
            raise AskAgainError(f"{self.url} broke off its answer")

    def _take_down(
        self, keys: Sequence[str], where: Mapping[str, Sequence[str]] | None, *, dry_run: bool
    ) -> dict[str, Any]:
        if not keys and not where:
            raise UsageError("say what to delete: keys or where")
        listed = {field: list(values) for field, values in (where or {}).items()}
        body = {"keys": list(keys), "where": listed, "dry_run": dry_run}
        return self._json("DELETE", "/v1/images", json=body)

    def _json(self, method: str, path: str, **content: object) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            with self._sent(method, path, **content) as response:
                body: dict[str, Any] = json.loads(response.read())
                return body

        return again_and_again(ask)

    def _read(self, path: str) -> bytes:
        with self._sent("GET", path) as response:
            return response.read()

    def _sent(self, method: str, path: str, **content: object) -> Exchange:
        return Exchange(self._client, method, path, content)


def connect(url: str, *, key: str | None = None) -> Connected:
    """Use a running service (`attrib serve`). `key`: ATTRIB_API_KEY unless given.

    Nothing is asked yet. Queries send the images' bytes to the service.

    Raises:
        UsageError: no address of a service, or a key that no header can carry.
    """
    import httpx

    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise UsageError(f"{url!r} is no address of a service: {exc}") from exc
    if address.scheme not in ("http", "https") or not address.host:
        raise UsageError(f"{url!r} is no address of a service: write http://host:port")
    key = os.environ.get("ATTRIB_API_KEY", "") if key is None else key
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the key goes into an HTTP header: it must be plain ASCII")
    return Connected(url, key)


def _conditions(where: Mapping[str, Sequence[str] | str] | None) -> list[str]:
    return [
        f"{field}={value}"
        for field, values in (where or {}).items()
        for value in ([values] if isinstance(values, str) else values)
    ]


def _parts(images: Sequence[bytes]) -> Iterator[list[bytes]]:
    """As many images at a time as go into one request."""
    part: list[bytes] = []
    size = 0
    for image in images:
        if part and (len(part) == _MAX_BATCH or size + len(image) > _MAX_BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(image)
        size += len(image)
    yield part
