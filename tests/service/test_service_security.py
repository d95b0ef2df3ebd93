from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.errors import UsageError
from search.service.security import CONTENT_SECURITY_POLICY
from search.service.settings import Access, ServiceSettings, access_from

ACCESS = Access(
    read_keys=("reader", "other"), write_keys=("writer",), origins=("https://a.example",)
)

READ = (
    "/v1/info",
    "/v1/examples",
    "/metrics",
    "/v1/attributions/x",
    "/v1/images/00000000-0000-0000-0000-000000000000",
)
WRONG_TAKEDOWNS: list[dict[str, Any]] = [
    {},
    {"key": ["a"]},
    {"keys": "a"},
    {"keys": [1]},
    {"where": {"caption": ["a"]}},
    {"where": {"creator": []}},
    {"keys": ["a"], "dry_run": 1},
]


@pytest.fixture
def guarded(serve: Any, own: Path) -> Any:
    with (
        serve(own, access=ACCESS) as address,
        httpx.Client(base_url=address, timeout=60) as opened,
    ):
        yield opened


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def status(response: httpx.Response) -> tuple[int, str]:
    kind = response.json()["type"].rpartition(":")[2] if response.is_error else ""
    return response.status_code, kind


def test_keys_open_what_they_are_for_and_takedowns_are_for_good(
    guarded: httpx.Client, generated: Path, exemplar: str
) -> None:
    image = {"image": generated.read_bytes()}
    needed = guarded.post("/v1/attributions", files=image)
    assert status(needed) == (401, "key-needed")
    assert needed.headers["www-authenticate"] == "Bearer"
    for path in READ:
        assert guarded.get(path).status_code == 401, path
        assert guarded.get(path, headers=bearer("wrong")).status_code == 401, path
        assert guarded.get(path, headers=bearer("reader")).status_code in (200, 404), path
    for path in ("/healthz", "/readyz", "/v1/openapi.json"):
        assert guarded.get(path).status_code == 200
    for headers in (bearer("other"), {"X-API-Key": "reader"}, bearer("writer")):
        answer = guarded.post("/v1/attributions", files=image, headers=headers)
        assert status(answer) == (200, "")

    def delete(body: Any, key: str = "writer") -> httpx.Response:
        return guarded.request("DELETE", "/v1/images", json=body, headers=bearer(key))

    body = {"keys": [exemplar]}
    assert status(delete(body, "")) == (401, "key-needed")
    assert status(delete(body, "reader")) == (403, "read-only-key")
    for wrong in WRONG_TAKEDOWNS:
        assert status(delete(wrong)) == (422, "wrong-call"), wrong
    assert delete({**body, "dry_run": True}).json() == {"matching": 1, "deleted": 0}
    owner = answer.json()["rows"][0]["owners"]
    assert len(owner) == 2
    assert delete(body).json() == {"matching": 1, "deleted": 1}
    assert delete(body).json() == {"matching": 0, "deleted": 0}
    gone = next(o["id"] for o in owner if o["key"] == exemplar)
    assert guarded.get(f"/v1/images/{gone}/thumbnail", headers=bearer("reader")).status_code == 404
    old = guarded.get(answer.json()["links"]["self"], headers=bearer("reader"))
    assert status(old) == (404, "no-such-answer")  # it shows what was taken down
    again = guarded.post("/v1/attributions", files=image, headers=bearer("reader")).json()
    assert [o["key"] for o in again["rows"][0]["owners"]] == ["images/copy.jpg"]
    assert again["population"] == 40


def test_other_origins_only_where_they_were_named(guarded: httpx.Client, url: str) -> None:
    asks = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    allowed = guarded.options("/v1/attributions", headers=asks)
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    other = guarded.options("/v1/attributions", headers={**asks, "Origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers
    closed = httpx.get(f"{url}/healthz", headers={"Origin": "https://a.example"})
    assert not [name for name in closed.headers if name.startswith("access-control")]


def test_takedowns_are_off_without_write_keys(client: httpx.Client) -> None:
    response = client.request("DELETE", "/v1/images", json={"keys": ["a"]}, headers=bearer("any"))
    assert status(response) == (403, "no-takedowns")


@pytest.mark.parametrize("path", ["/healthz", "/v1/info", "/nothing"])
def test_headers_of_every_response(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_a_local_service_answers_to_no_other_name(client: httpx.Client) -> None:
    wrong = client.get("/v1/info", headers={"Host": "rebound.example"})
    assert status(wrong) == (421, "wrong-host")
    assert client.get("/v1/info", headers={"Host": "localhost:1"}).status_code == 200


def test_requests_have_ids_that_are_in_the_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    from search.service.frame import JsonLines

    with caplog.at_level(logging.INFO, "attrib.service"):
        given = client.get("/v1/info", headers={"X-Request-ID": "mine-1"})
        made = client.get("/v1/info", headers={"X-Request-ID": 'forged" line'})
        until = time.monotonic() + 30  # a line is written once its answer is sent
        while sum(r.message == "request" for r in caplog.records) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    assert given.headers["x-request-id"] == "mine-1"
    assert len(made.headers["x-request-id"]) == 16
    lines = [json.loads(JsonLines().format(r)) for r in caplog.records if r.message == "request"]
    by_id = {line["request_id"]: line for line in lines}
    line = by_id["mine-1"]
    assert (line["path"], line["status"], line["level"]) == ("/v1/info", 200, "info")
    assert made.headers["x-request-id"] in by_id


def test_settings_from_the_environment() -> None:
    access = access_from({"ATTRIB_READ_KEYS": "a, b,", "ATTRIB_WRITE_KEYS": "c"})
    assert access == Access(("a", "b"), ("c",))
    assert "a" not in repr(access).partition("Access(")[2].partition("origins")[0]
    assert access_from({}) == Access()
    with pytest.raises(UsageError, match="must be plain ASCII"):
        access_from({"ATTRIB_READ_KEYS": "schlüssel"})


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.0.0.2", True),
        ("0.0.0.0", False),
        ("192.168.1.1", False),
        ("attrib.example", False),
    ],
)
def test_only_a_loopback_address_limits_the_names(host: str, names: bool) -> None:
    assert bool(ServiceSettings(host=host).host_names) is names
