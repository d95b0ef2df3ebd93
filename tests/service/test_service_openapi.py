"""The OpenAPI document is whole, and answers are what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    body: dict[str, Any] = client.get("/v1/openapi.json").json()
    return body


def schema_of(document: dict[str, Any], path: str, method: str, status: str) -> dict[str, Any]:
    content = document["paths"][path][method]["responses"][status]["content"]
    schema = next(iter(content.values()))["schema"]
    return {**schema, "components": document["components"]}


def responses(document: dict[str, Any]) -> Iterator[tuple[str, str, str, str, dict[str, Any]]]:
    """path, method, status, media type and content of every response that has one."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                for kind, content in response.get("content", {}).items():
                    yield path, method, status, kind, content


def test_every_route_and_its_errors_are_there(document: dict[str, Any]) -> None:
    assert sorted(document["paths"]) == [
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/attributions",
        "/v1/attributions/{id}",
        "/v1/attributions/{id}/near-equal",
        "/v1/attributions/{id}/query",
        "/v1/attributions:batch",
        "/v1/examples",
        "/v1/examples/{name}",
        "/v1/images",
        "/v1/images/{id}",
        "/v1/images/{id}/thumbnail",
        "/v1/info",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (path, method)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
    body = document["paths"]["/v1/attributions"]["post"]["requestBody"]["content"]
    assert sorted(body) == ["application/json", "multipart/form-data"]


def test_answers_are_what_it_says(
    document: dict[str, Any], client: httpx.Client, generated: Path
) -> None:
    image = {"image": generated.read_bytes()}
    checks = {
        ("/v1/attributions", "post"): client.post(
            "/v1/attributions?group_by=creator&where=dataset%3Dclipart&without=creator%3Dnobody"
            "&mass=0.9",
            files=image,
        ),
        ("/v1/info", "get"): client.get("/v1/info"),
        ("/v1/examples", "get"): client.get("/v1/examples"),
    }
    for (path, method), response in checks.items():
        assert response.status_code == 200
        jsonschema.validate(response.json(), schema_of(document, path, method, "200"))
    refused = client.post("/v1/attributions", files={"image": b"words"})
    problem = schema_of(document, "/v1/attributions", "post", "422")
    jsonschema.validate(refused.json(), problem)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"type": "x"}, problem)


def test_every_json_response_has_an_example_that_is_what_its_schema_says(
    document: dict[str, Any],
) -> None:
    seen = []
    for path, method, status, kind, content in responses(document):
        if kind not in ("application/json", "application/problem+json"):
            continue
        assert content.get("example"), (path, method, status)
        schema = {**content["schema"], "components": document["components"]}
        jsonschema.validate(content["example"], schema)
        seen.append((path, status))
        if status != "200":
            assert content["example"]["status"] == int(status)
    assert [path for path, status in seen if status == "200"] == [
        "/v1/attributions",
        "/v1/attributions/{id}",
        "/v1/attributions/{id}/near-equal",
        "/v1/images/{id}",
        "/v1/images",
        "/v1/info",
        "/v1/examples",
        "/healthz",
        "/readyz",
    ]


def test_examples_have_all_that_answers_have(
    document: dict[str, Any], client: httpx.Client, generated: Path
) -> None:
    """They were real once, and must not fall behind."""
    image = {"image": ("media-1.png", generated.read_bytes())}
    answer = client.post("/v1/attributions?k=1&group_by=licence", files=image).json()
    training = client.get(f"/v1/images/{answer['rows'][0]['owners'][0]['id']}").json()
    real = {
        "/v1/attributions": answer,
        "/v1/attributions/{id}": client.get(answer["links"]["self"]).json(),
        "/v1/attributions/{id}/near-equal": {"folds": [[1, 2]], "compared": 50},
        "/v1/images/{id}": training,
        "/v1/info": client.get("/v1/info").json(),
        "/v1/examples": client.get("/v1/examples").json(),
        "/healthz": client.get("/healthz").json(),
        "/readyz": client.get("/readyz").json(),
    }
    for path, _, status, kind, content in responses(document):
        if status == "200" and kind == "application/json" and path != "/v1/images":
            assert shape(content["example"]) == shape(real.pop(path)), path
    assert not real


def shape(value: Any) -> Any:
    """Names of members; of lists, of the first one."""
    if isinstance(value, dict):
        named = {name: shape(inner) for name, inner in value.items()}
        return named if "training" not in named and "clipart" not in named else "by name"
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_lines_of_a_batch_are_what_it_says(
    document: dict[str, Any], client: httpx.Client, generated: Path
) -> None:
    files = [("image", ("a.png", generated.read_bytes())), ("image", ("b.png", b"words"))]
    response = client.post("/v1/attributions:batch?k=1", files=files)
    content = document["paths"]["/v1/attributions:batch"]["post"]["responses"]["200"]["content"]
    assert list(content) == ["application/x-ndjson"]
    schema = content["application/x-ndjson"]["schema"]["contentSchema"]
    schema = {**schema, "components": document["components"]}
    for text in (response.text, content["application/x-ndjson"]["example"]):
        answer, failed = map(json.loads, text.splitlines())
        jsonschema.validate(answer, schema)
        jsonschema.validate(failed, schema)
        assert "rows" in answer
        assert failed["error"]["detail"] == "not an image"
        for line in (answer, failed):
            line.pop(next(iter({"rows", "error"} & set(line))))
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(line, schema)


def test_whatever_can_be_got_can_be_asked_for_its_head(
    document: dict[str, Any], client: httpx.Client, generated: Path
) -> None:
    answer = client.post("/v1/attributions", files={"image": generated.read_bytes()}).json()
    ids = {
        "/v1/attributions": answer["id"],
        "/v1/images": answer["rows"][0]["owners"][0]["id"],
    }
    paths = ["/", "/assets/app.js", "/v1/openapi.json"]
    for path, methods in document["paths"].items():
        identity = next((one for start, one in ids.items() if path.startswith(start)), "")
        name = client.get("/v1/examples").json()[0]["name"]
        filled = path.replace("{id}", identity).replace("{name}", name)
        if "get" in methods:
            paths.append(filled)
        else:
            assert client.head(filled).status_code == 405, path
    assert len(paths) == 14
    for path in paths:
        head, got = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b""), path
        for name in ("content-type", "etag", "cache-control"):
            assert head.headers.get(name) == got.headers.get(name)
        if path not in ("/metrics", "/v1/info"):
            assert head.headers["content-length"] == got.headers["content-length"]
    assert client.head("/nothing").status_code == 404
    wrong = client.put("/v1/info")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
