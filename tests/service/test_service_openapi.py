"""The OpenAPI document is whole, and answers are what it says."""

from __future__ import annotations

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
