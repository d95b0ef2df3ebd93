"""What was taken down is shown nowhere, whatever was under way; and answers say what they saw."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from attrib.cli import app
from search.service import engine as engine_module
from search.service import routes_answers
from search.service.settings import Access

KEY = {"X-API-Key": "w"}
ACCESS = Access(write_keys=("w",))


class Held:
    """A function that waits, the first time, until it is let go on."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._first = True
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = self._function(*args, **kwargs)
        if self._first:
            self._first = False
            self.reached.set()
            assert self.go_on.wait(60)
        return made


@pytest.fixture
def guarded(serve: Any, own: Path) -> Any:
    with (
        serve(own, access=ACCESS) as address,
        httpx.Client(base_url=address, timeout=60, headers=KEY) as client,
    ):
        yield client


def take_down(client: httpx.Client, key: str) -> None:
    done = client.request("DELETE", "/v1/images", json={"keys": [key]})
    assert done.json() == {"matching": 1, "deleted": 1}


@pytest.mark.parametrize("path", ["/v1/attributions", "/v1/attributions:batch"])
def test_an_answer_that_is_written_during_a_takedown_is_not_kept(
    guarded: httpx.Client,
    generated: Path,
    exemplar: str,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    writing = Held(routes_answers.document)
    monkeypatch.setattr(routes_answers, "document", writing)
    image = {"image": generated.read_bytes()}
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(guarded.post, path, files=image)
        assert writing.reached.wait(60)
        take_down(guarded, exemplar)
        writing.go_on.set()
        answer = asking.result().json()
    assert exemplar in str(answer)  # it was searched for before
    assert guarded.get(answer["links"]["self"]).status_code == 404
    again = guarded.post("/v1/attributions", files=image).json()
    assert exemplar not in str(again)
    assert again["contents"] != answer["contents"]
    assert guarded.get(again["links"]["self"]).status_code == 200


def test_a_thumbnail_that_is_read_during_a_takedown_is_not_kept(
    guarded: httpx.Client, generated: Path, exemplar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = guarded.post("/v1/attributions", files={"image": generated.read_bytes()}).json()
    owner = next(o for row in answer["rows"] for o in row["owners"] if o["key"] == exemplar)
    at = f"/v1/images/{owner['id']}/thumbnail"
    reading = Held(engine_module.read_thumbnails)
    monkeypatch.setattr(engine_module, "read_thumbnails", reading)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(guarded.get, at)
        assert reading.reached.wait(60)
        take_down(guarded, exemplar)
        reading.go_on.set()
        asking.result()
    assert guarded.get(at).status_code == 404


def test_contents_change_with_takedowns_ingests_and_reindexes_and_not_with_restarts(
    serve: Any, own: Path, generated: Path, exemplar: str, tmp_path: Path
) -> None:
    image = {"image": generated.read_bytes()}

    def seen(*, but: str = "") -> str:
        with serve(own, access=ACCESS) as address, httpx.Client(base_url=address) as client:
            answer = client.post("/v1/attributions", files=image, timeout=60).json()
            info = client.get("/v1/info").json()
            assert (answer["contents"], answer["collection"]) == (
                info["contents"],
                info["collection"],
            )
            if but:
                client.headers.update(KEY)
                take_down(client, but)
                now = client.get("/v1/info").json()["contents"]
                assert now != answer["contents"]
                answer = client.post("/v1/attributions", files=image, timeout=60).json()
                assert answer["contents"] == now
        return str(answer["contents"])

    def attrib(*words: str) -> None:
        done = CliRunner().invoke(app, [*words, "--data", str(own)])
        assert done.exit_code == 0, done.output

    first = seen()
    assert seen() == first
    second = seen(but=exemplar)
    assert seen() == second
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(generated.read_bytes())
    attrib("ingest", str(tmp_path / "more"))
    third = seen()
    attrib("reindex", "--quantization", "int8", "--model", "efficientnet-lite0-clipart")
    fourth = seen()
    assert len({first, second, third, fourth}) == 4
