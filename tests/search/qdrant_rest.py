"""The REST interface of the Qdrant stand-in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from qdrant_client import models
from qdrant_engine import Engine, Fault


class RestHandler(BaseHTTPRequestHandler):
    engine: Engine
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        status, headers = 200, {}
        try:
            name, handle = _route(self.engine, self.command, path, body)
            with self.engine.lock:
                self.engine.enter(name, self.headers.get("api-key"))
                answer = {"result": handle(), "status": "ok", "time": 0.0}
            if name == "version":
                answer = answer["result"]
        except Fault as fault:
            if not fault.status:
                self.close_connection = True
                return
            status, headers = fault.status, fault.headers
            answer = {"status": {"error": fault.said}, "time": 0.0}
        content = json.dumps(_plain(answer)).encode()
        with suppress(BrokenPipeError, ConnectionResetError):  # nobody waits for it any more
            self._send(status, headers, content)

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _route(engine: Engine, method: str, path: str, body: bytes) -> tuple[str, Callable[[], Any]]:
    """Name of the call, and what carries it out."""
    client = engine.client
    data = json.loads(body) if body else {}
    if path == "/":
        return "version", lambda: {"title": "qdrant", "version": engine.version}
    if path == "/aliases":
        return "aliases", client.get_aliases
    if path == "/collections/aliases":
        operations = models.ChangeAliasesOperation(**data).actions
        return "alias", lambda: client.update_collection_aliases(operations)
    found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
    if not found:
        raise Fault(404, "no such path")
    name, rest = found[1], found[2] or ""

    def scroll() -> Any:
        records, following = engine.scroll(name, models.ScrollRequest(**data))
        return {"points": records, "next_page_offset": following}

    def upsert() -> Any:
        points = models.Batch(**data["batch"]) if "batch" in data else [
            models.PointStruct(**point) for point in data["points"]
        ]  # fmt: skip
        engine.upsert(name, points)
        return {"operation_id": 0, "status": "completed"}

    def delete() -> Any:
        client.delete(name, points_selector=models.PointIdsList(**data))
        return {"operation_id": 0, "status": "completed"}

    def index() -> Any:
        engine.index(name, data["field_name"], data["field_schema"])
        return {"operation_id": 0, "status": "completed"}

    calls: dict[tuple[str, str], tuple[str, Callable[[], Any]]] = {
        ("GET", "/exists"): ("exists", lambda: {"exists": client.collection_exists(name)}),
        ("PUT", ""): ("create", lambda: engine.create(name, models.CreateCollection(**data))),
        ("PATCH", ""): ("update", lambda: engine.update(name, models.UpdateCollection(**data))),
        ("GET", ""): ("describe", lambda: engine.describe(name)),
        ("DELETE", ""): ("drop", lambda: engine.drop(name)),
        ("PUT", "/index"): ("index", index),
        ("PUT", "/points"): ("upsert", upsert),
        ("POST", "/points/delete"): ("delete", delete),
        ("POST", "/points/scroll"): ("scroll", scroll),
        ("POST", "/points"): (
            "retrieve",
            lambda: client.retrieve(
                name, data["ids"], data["with_payload"], data.get("with_vector") or False
            ),
        ),
        ("POST", "/points/count"): (
            "count",
            lambda: client.count(name, models.CountRequest(**data).filter, exact=True),
        ),
        ("POST", "/facet"): (
            "facet",
            lambda: client.facet(name, key=data["key"], limit=data["limit"]),
        ),
        ("POST", "/points/query/batch"): (
            "query",
            lambda: engine.query(name, models.QueryRequestBatch(**data).searches),
        ),
    }
    if (method, rest) not in calls:
        raise Fault(404, f"no such call: {method} {path}")
    return calls[method, rest]
