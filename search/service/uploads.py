"""What a request asks: read under limits, before anything is decoded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from ingest.printable import printable
from search.service.asked import Filter, Wanted
from search.service.given_features import features_of
from search.service.json_text import parsed
from search.service.problems import Problem
from search.service.request_bodies import MAX_TEXT, SETTINGS
from search.service.settings import ServiceSettings

__all__ = [
    "Body",
    "Upload",
    "bytes_of_batch",
    "bytes_of_query",
    "read_batch",
    "read_json",
    "read_query",
]

_MAX_FIELDS = 64
# As JSON writes one, and no longer than it needs to be: "nan", "1_0" and " 1" are none.
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_MAX_JSON_BYTES = 1024 * 1024
_FORM_OVERHEAD = 64 * 1024
_PARSED = 8
"""Bytes in memory of a byte of JSON: of numbers with few digits, say."""


@dataclass(frozen=True)
class Upload:
    """One uploaded image: its name, for people, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Body:
    """A query: one of an upload, an address and features. features: float32 (dim,)."""

    wanted: Wanted
    upload: Upload | None = None
    url: str = ""
    features: NDArray[np.float32] | None = None


def bytes_of_query(request: Request, settings: ServiceSettings) -> int:
    """Bytes that the body of ``POST /v1/attributions`` may take in memory, by its head."""
    if _content_type(request) == "application/json":
        return _PARSED * _declared(request, _MAX_JSON_BYTES)
    return _declared(request, settings.limits.max_bytes + _FORM_OVERHEAD)


def bytes_of_batch(request: Request, settings: ServiceSettings) -> int:
    """The same of ``POST /v1/attributions:batch``."""
    return _declared(request, settings.max_batch_bytes)


def _declared(request: Request, most: int) -> int:
    """What a body says of its length; where it says none, or more than is read, what is read."""
    length = _length(request)
    return most if length is None else min(length, most)


def _length(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length[:18]) if length.isascii() and length.isdecimal() else None


async def read_query(request: Request, settings: ServiceSettings, dim: int) -> Body:
    """The body of ``POST /v1/attributions``; `dim`: how many features the model has.

    Raises:
        Problem: it asks nothing, too much, or in another form.
    """
    kind = _content_type(request)
    if kind == "application/json":
        given = await read_json(request)
        if "features" not in given:
            raise _wrong("give features: a list of numbers, or base64 of them")
        _only(given, "features", *SETTINGS)
        wanted = _wanted(request, _as_form(given), settings)
        return Body(wanted, features=features_of(given["features"], dim))
    if kind != "multipart/form-data":
        raise Problem(
            415,
            "unsupported-media-type",
            "send multipart/form-data with an image or url, or application/json with features",
        )
    limit = settings.limits.max_bytes
    async with _Form(request, max_files=1, max_bytes=limit, overhead=_FORM_OVERHEAD) as form:
        wanted = _wanted(request, _fields(form, "image", "url"), settings)
        images, urls = _images(form), form.getlist("url")
        if len(images) + len(urls) != 1 or any(isinstance(url, UploadFile) for url in urls):
            raise _wrong("give either one image (a file) or one url (a text)")
        if urls:
            return Body(wanted, url=str(urls[0]))
        return Body(wanted, upload=await _upload(images[0], limit))


async def read_batch(
    request: Request, settings: ServiceSettings
) -> tuple[Wanted, list[Upload | Problem]]:
    """The body of ``POST /v1/attributions:batch``; an image too large is a problem of its own.

    Raises:
        Problem: no image, too many, or another form.
    """
    if _content_type(request) != "multipart/form-data":
        detail = "send multipart/form-data with one part named image for each image"
        raise Problem(415, "unsupported-media-type", detail)
    form = _Form(request, max_files=settings.max_images, max_bytes=settings.max_batch_bytes)
    async with form as fields:
        wanted = _wanted(request, _fields(fields, "image"), settings)
        uploads: list[Upload | Problem] = []
        for image in _images(fields):
            try:
                uploads.append(await _upload(image, settings.limits.max_bytes))
            except Problem as exc:
                uploads.append(exc)
    if not uploads:
        raise _wrong("give at least one image")
    return wanted, uploads


async def read_json(request: Request) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Problem: another type, too long, or not JSON.
    """
    if _content_type(request) != "application/json":
        raise Problem(415, "unsupported-media-type", "send application/json")
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > _MAX_JSON_BYTES:
                raise _too_large(_MAX_JSON_BYTES)
    except ClientDisconnect as exc:
        raise _gone() from exc
    try:
        value = parsed(data)
    except (ValueError, RecursionError) as exc:
        raise Problem(400, "not-json", "the body is not JSON") from exc
    if not isinstance(value, dict):
        raise _wrong("the body must be a JSON object")
    return value


class _Form:
    """The parts of a multipart body, let go of at the end; read up to a number of bytes.

    `overhead`: bytes beside those of the files.
    """

    def __init__(
        self, request: Request, *, max_files: int, max_bytes: int, overhead: int = 0
    ) -> None:
        self._max_files = max_files
        self._told = max_bytes
        self._max_bytes = max_bytes + overhead
        self._read = 0
        self._receive = request.receive
        self._request = Request(request.scope, self._counted)
        length = _length(request)
        if length is not None and length > self._max_bytes:
            raise _too_large(self._told)

    async def __aenter__(self) -> FormData:
        try:
            form = await self._request.form(max_files=self._max_files, max_fields=_MAX_FIELDS)
        except ClientDisconnect as exc:
            raise _gone() from exc
        except (FormParserError, ValueError, KeyError, LookupError) as exc:
            raise Problem(400, "broken-form", "the multipart body is broken") from exc
        return form

    async def __aexit__(self, *error: object) -> None:
        await self._request.close()

    async def _counted(self) -> Any:  # noqa: ANN401 (an ASGI message)
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._max_bytes:
            raise _too_large(self._told)
        return message


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _images(form: FormData) -> list[UploadFile]:
    images = form.getlist("image")
    if not all(isinstance(image, UploadFile) for image in images):
        raise _wrong("image must be a file, with a file name")
    return [image for image in images if isinstance(image, UploadFile)]


async def _upload(image: UploadFile, limit: int) -> Upload:
    if image.size is not None and image.size > limit:
        raise _too_large(limit)
    return Upload(printable(image.filename or "image")[:300], await image.read())


def _fields(form: FormData, *own: str) -> dict[str, list[str]]:
    """The settings in a form that may have fields of its own, too."""
    _only(form, *own, *SETTINGS)
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if name in SETTINGS:
            if not isinstance(value, str):
                raise _wrong(f"{name} must be a text, without a file name")
            fields.setdefault(name, []).append(value)
    return fields


def _only(given: Iterable[str], *known: str) -> None:
    """A misspelt setting must not be taken for one that was not given."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        named = printable(", ".join(unknown))[:200]
        raise _wrong(f"{named}: only {', '.join(known)} are known here")


def _as_form(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The settings of a JSON object, numbers and booleans as a form would carry them.

    A text where the OpenAPI document has a number or a boolean stays in its quotes, and so is none.
    """
    fields: dict[str, list[Any]] = {}
    for name, value in given.items():
        if name in ("where", "without"):
            if not isinstance(value, list):
                raise _wrong(f"{name} must be a list of texts, such as creator=someone")
            fields[name] = value
        elif name in ("k", "mass", "exact"):
            whole = isinstance(value, float) and value.is_integer()  # 50.0 is an integer of JSON's
            fields[name] = [json.dumps(int(value) if whole else value)]
        else:
            fields[name] = [value]
    return fields


def _wanted(
    request: Request, given: Mapping[str, Sequence[Any]], settings: ServiceSettings
) -> Wanted:
    """The settings in the query of the URL, over which those in the body go; all must be right."""
    _only(request.query_params, *SETTINGS)
    asked: dict[str, Sequence[Any]] = {}
    for name in request.query_params:
        asked[name] = request.query_params.getlist(name)
    _settings(asked, settings)
    return _settings({**asked, **given}, settings)


def _settings(given: Mapping[str, Sequence[Any]], settings: ServiceSettings) -> Wanted:
    masses = [_share(value, "mass") for value in given.get("mass", ())]
    ks = [_whole(value, "k", settings.max_k) for value in given.get("k", ())]
    fields = [_field_name(value) for value in given.get("group_by", ())]
    flags = [_flag(value, "exact") for value in given.get("exact", ())]
    return Wanted(
        k=ks[-1] if ks else Wanted.k,
        mass=masses[-1] if masses else None,
        where=_where(given.get("where", ()), "where"),
        without=_where(given.get("without", ()), "without"),
        group_by=fields[-1] if fields else "",
        exact=flags[-1] if flags else False,
    )


def _whole(text: str, name: str, largest: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= largest):
        raise _wrong(f"{name} must be a whole number from 1 to {largest}")
    return int(text)


def _share(text: str, name: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else 0.0
    if not 0 < number <= 1:
        raise _wrong(f"{name} must be a number above 0 and at most 1")
    return number


def _flag(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise _wrong(f"{name} must be true or false")
    return text == "true"


def _field_name(value: object) -> str:
    if not isinstance(value, str) or not _is_text(value) or value.startswith(("[", "{")):
        raise _wrong("group_by must be the name of a field")
    return value


def _where(conditions: Sequence[Any], name: str) -> Filter:
    where: dict[str, list[str]] = {}
    for condition in conditions:
        text = condition if isinstance(condition, str) else ""
        field, equals, value = text.partition("=")
        if not equals or not field or not _is_text(text):
            raise _wrong(f"{name} must be field=value, such as creator=someone")
        where.setdefault(field, []).append(value)
    return tuple((field, tuple(values)) for field, values in where.items())


def _is_text(value: str) -> bool:
    """Whether an index could hold it: neither endless nor with half a surrogate pair."""
    return len(value) <= MAX_TEXT and value.encode("utf-8", "replace") == value.encode(
        "utf-8", "surrogatepass"
    )


def _wrong(detail: str) -> Problem:
    return Problem(422, "wrong-call", detail)


def _too_large(limit: int) -> Problem:
    return Problem(413, "more-bytes-than-the-limit", f"more bytes than the limit: {limit:,}")


def _gone() -> Problem:
    return Problem(400, "broken-off", "the upload was broken off")
