"""docs/deploy.md: what it tells people to type, open and set."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from embed.shards import ImageRow
from search.index import INDEXED_FIELDS
from search.server_requests import PLACE, field_indexes
from search.server_settings import ServerSettings

REQUESTS: dict[str, Any] = {
    "facet": models.FacetRequest,
    "points/scroll": models.ScrollRequest,
    "points/count": models.CountRequest,
}


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def in_containers(text: str) -> Iterator[list[str]]:
    """The words after `attrib` of every command that is run in a container."""
    for line in re.findall(r"(?:run --rm|--) attrib (.+)", text):
        yield shlex.split(line.strip(" `"), comments=True)


def requests(page: str) -> list[tuple[str, dict[str, Any]]]:
    """(path below the collection, body) of every request for the web console."""
    found = []
    for block in blocks(page, "text"):
        for part in re.split(r"^POST ", block, flags=re.MULTILINE)[1:]:
            path, body = part.split("\n", 1)
            found.append((path.removeprefix("collections/training/"), json.loads(body)))
    return found


def keys(value: Any) -> Iterator[str]:
    """Payload fields that a filter names."""
    if isinstance(value, dict):
        if isinstance(value.get("key"), str):
            yield value["key"]
        for one in value.values():
            yield from keys(one)
    elif isinstance(value, list):
        for one in value:
            yield from keys(one)


@pytest.fixture(scope="module")
def payload() -> set[str]:
    row = ImageRow("k", "d", "p", "u", "c", "a", "l", 1, 1, "s")
    return {*row.payload(0), PLACE}


def test_commands_in_containers_exist(
    page: str, deploy: Path, fault: Callable[[list[str]], str | None]
) -> None:
    texts = [page, *(path.read_text() for path in sorted(deploy.rglob("*.yaml")))]
    commands = [words for text in texts for words in in_containers(text)]
    assert len(commands) >= 5
    for words in commands:
        assert fault(words) is None, words


def test_paths_that_are_named_exist(page: str, root: Path, example_env: dict[str, str]) -> None:
    made_by_the_reader = {"deploy/.env", "deploy/storage.env"}
    for path in set(re.findall(r"\bdeploy/[\w@./-]+[\w]", page)) - made_by_the_reader:
        assert (root / path).exists(), path
    sources = (root / "deploy" / example_env["ATTRIB_SOURCES"]).resolve()
    for inside in re.findall(r"/sources/(\S+)", page):
        assert (sources / inside).exists(), inside


def test_addresses_and_logins_are_those_of_the_compose_file(
    page: str, compose: Any, example_env: dict[str, str]
) -> None:
    open_ports = {
        port.split(":")[1]
        for service in compose["services"].values()
        for port in service.get("ports", [])
    }
    named = set(re.findall(r"://127\.0\.0\.1:(\d+)", page))
    assert named == open_ports - {"6334"}  # gRPC, which nobody opens in a browser
    for name in re.findall(r"\| `?(?:admin`, `)?([A-Z_]+)` \|$", page, re.MULTILINE):
        assert name in example_env


def test_requests_for_the_console_are_ones_that_qdrant_takes(page: str, payload: set[str]) -> None:
    found = requests(page)
    assert {path for path, _ in found} == set(REQUESTS)
    for path, body in found:
        REQUESTS[path].model_validate(body)
        assert set(keys(body)) <= set(INDEXED_FIELDS)
        shown = body.get("with_payload", [])
        assert set(shown) <= payload
        assert body.get("order_by", PLACE) == PLACE
    with pytest.raises(ValueError, match="Extra inputs"):
        models.ScrollRequest.model_validate({"limits": 5})


def test_what_is_typed_into_visualize_and_graph_is_what_they_know(
    page: str, payload: set[str]
) -> None:
    visualize, graph = (json.loads(block) for block in blocks(page, "json"))
    assert set(visualize) <= {"limit", "filter", "color_by", "using", "algorithm"}
    assert visualize["algorithm"] in {"TSNE", "UMAP", "PCA"}
    assert visualize["color_by"]["payload"] in payload
    assert set(graph) <= {"limit", "sample", "filter", "using", "tree"}
    for request in (visualize, graph):
        models.Filter.model_validate(request["filter"])
        assert set(keys(request["filter"])) <= set(INDEXED_FIELDS)


def test_every_field_is_explained_and_those_said_to_be_indexed_are(
    page: str, payload: set[str]
) -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .* \| (.*) \|$", page, re.MULTILINE)
    explained = {name for fields, _ in rows for name in re.findall(r"`(\w+)`", fields)}
    assert payload <= explained
    at_once = {
        name
        for fields, how in rows
        if how.startswith("at once")
        for name in re.findall(r"`(\w+)`", fields)
    }
    assert at_once == set(INDEXED_FIELDS)
    indexed = {field for field, _ in field_indexes(ServerSettings())}
    assert indexed == at_once | {PLACE}


def test_series_that_are_listed_are_the_ones_exported(
    page: str, exported: dict[str, set[str]]
) -> None:
    rows = re.findall(r"^\| `(attrib_\w+)` \|([^|]*)\|", page, re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`(?=:|,| *$)", cell)[:1]) for name, cell in rows}
    plain = {
        re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"}
        for name, labels in exported.items()
        if name.startswith(("attrib_worker_", "attrib_ingest_"))
    }
    assert listed == plain
