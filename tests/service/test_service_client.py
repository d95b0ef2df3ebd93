from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from ingest.errors import (
    EmptyQueryError,
    ImageError,
    ModelMismatchError,
    NothingLeftError,
    RunError,
    SourceError,
    UsageError,
)
from search.service.settings import Access


@pytest.fixture
def service(url: str) -> Iterator[attrib.Connected]:
    with attrib.connect(url) as connected:
        yield connected


def plain(answer: attrib.Attribution) -> Any:
    body = json.loads(json.dumps(answer.to_dict()))
    body["index"].pop("folder", None)
    return body


def test_the_same_answers_as_from_the_data_folder(
    service: attrib.Connected, own: Path, generated: Path
) -> None:
    images = [generated, generated.parent / "gpt-1.png", generated.read_bytes()]
    settings: dict[str, Any] = {"k": 4, "group_by": "creator", "where": {"dataset": "clipart"}}
    with attrib.open(own) as opened:
        one, many = opened.query(generated, **settings), opened.query_many(images, **settings)
    assert plain(service.query(generated, **settings)) == plain(one)
    settings |= {"mass": 0.3, "without": {"key": ["images/copy.jpg", "none"], "dataset": "clipart"}}
    settings["k"] = 1000
    with attrib.open(own) as opened:
        less = opened.query(generated, **settings)
    assert 1 <= len(less.rows) < 20
    assert (less.population, less.without["dataset"]) == (40, ("clipart",))
    assert plain(service.query(generated, **settings)) == plain(less)
    settings = {"k": 4, "group_by": "creator", "where": {"dataset": "clipart"}}
    asked = service.query_many(images, **settings)
    assert [answer.query for answer in asked] == [answer.query for answer in many]
    for here, there in zip(asked, many, strict=True):
        assert [row.owners for row in here.rows] == [row.owners for row in there.rows]
        assert [row.influence for row in here.rows] == pytest.approx(
            [row.influence for row in there.rows], rel=1e-3, abs=1e-6
        )
    assert service.info()["images"] == 41


def test_many_images_go_in_several_requests(
    service: attrib.Connected, generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attrib.client._MAX_BATCH", 3)
    images = sorted(generated.parent.glob("*.png"))[:7]
    answers = service.query_many(images, k=1)
    assert [answer.query for answer in answers] == [str(path) for path in images]


def test_the_same_errors(service: attrib.Connected, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("words")
    picture = Image.new("RGB", (8, 8))
    with pytest.raises(ImageError, match="not an image"):
        service.query(tmp_path / "words.png")
    with pytest.raises(SourceError, match="cannot read"):
        service.query(tmp_path / "none.png")
    with pytest.raises(EmptyQueryError, match="k must be at least 1, not 0"):
        service.query(picture, k=0)
    with pytest.raises(EmptyQueryError, match="no image given"):
        service.query_many([])
    with pytest.raises(UsageError, match="cannot filter by 'colour'"):
        service.query(picture, where={"colour": "red"})
    with pytest.raises(UsageError, match="cannot filter by 'colour'"):
        service.query_many([picture, picture], where={"colour": "red"})
    with pytest.raises(UsageError, match=r"^mass must be above 0 and at most 1, not"):
        service.query(picture, mass=1.5)
    with pytest.raises(NothingLeftError, match="all 41 training images match dataset=clipart"):
        service.query(picture, without={"dataset": "clipart"})
    with pytest.raises(RunError, match="takedowns are off"):
        service.delete(keys=["a"])
    with pytest.raises(UsageError, match="say what to delete"):
        service.delete()
    for address in ("nonsense", "ftp://a.example", "http://"):
        with pytest.raises(UsageError, match="is no address of a service"):
            attrib.connect(address)


def test_takedowns_through_a_service(serve: Any, own: Path, exemplar: str) -> None:
    access = Access(read_keys=("r",), write_keys=("w",))
    with serve(own, access=access) as address:
        with attrib.connect(address) as nobody, pytest.raises(RunError, match="ATTRIB_API_KEY"):
            nobody.info()
        with attrib.connect(address, key="w") as writer:
            assert writer.matching(keys=[exemplar, "images/copy.jpg"]) == 2
            assert writer.matching(keys=[exemplar], where={"dataset": ["clipart"]}) == 41
            assert writer.delete(keys=[exemplar]) == 1
            assert writer.info()["images"] == 40


class Moody(http.server.BaseHTTPRequestHandler):
    answers: list[tuple[int, dict[str, str], bytes]]

    def do_GET(self) -> None:
        status, headers, body = self.answers.pop(0)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def moody() -> Iterator[Any]:
    handler = type("OneMoody", (Moody,), {"answers": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_busy_service_is_asked_again(moody: Any) -> None:
    handler, address = moody
    busy = json.dumps({"type": "urn:attrib:problem:busy", "detail": "busy", "status": 429})
    handler.answers += [(429, {"Retry-After": "0"}, busy.encode())] * 3
    handler.answers.append((200, {}, b'{"images": 3}'))
    with attrib.connect(address) as service:
        assert service.info() == {"images": 3}
        handler.answers += [(429, {"Retry-After": "0"}, busy.encode())] * 6
        with pytest.raises(RunError, match=r"^busy$"):
            service.info()
        handler.answers.append((404, {}, b"<html>"))
        with pytest.raises(RunError, match="answered 404: no attrib service"):
            service.info()
        handler.answers.append((200, {}, b"<html>"))
        with pytest.raises(RunError, match="did not answer with JSON"):
            service.info()


def test_no_service_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attrib.client._LONGEST_PAUSE_S", 0.01)
    with (
        attrib.connect("http://127.0.0.1:9") as service,
        pytest.raises(RunError, match=r"cannot reach the service at http://127\.0\.0\.1:9"),
    ):
        service.info()


def test_the_command_asks_the_service(url: str, own: Path, generated: Path, tmp_path: Path) -> None:
    def query(*options: str | Path) -> Any:
        words = ["query", str(generated), "-k", "3", *map(str, options)]
        return CliRunner().invoke(app, words, env={"ATTRIB_SERVER": ""})

    here, there = query("--data", own, "--json"), query("--server", url, "--json")
    assert there.exit_code == 0, there.stderr
    (local,), (remote,) = json.loads(here.stdout), json.loads(there.stdout)
    local["index"].pop("folder")
    assert remote == local
    assert query("--server", url).stdout == query("--data", own).stdout
    less = ("--without", "key=images/copy.jpg", "--mass", "0.9", "--k", "1000")
    assert query("--server", url, *less).stdout == query("--data", own, *less).stdout
    target = tmp_path / "answer.png"
    drawn = query("--server", url, "--picture", target)
    assert drawn.exit_code == 0, drawn.stderr
    local_target = tmp_path / "local.png"
    query("--data", own, "--picture", local_target)
    with Image.open(target) as one, Image.open(local_target) as other:
        assert one.tobytes() == other.tobytes()
    wrong = query("--server", url, "--model", "dino-vitb16")
    assert wrong.exit_code == 1
    assert "answers with efficientnet-lite0-clipart, not with dino-vitb16" in wrong.stderr


def test_another_model_is_refused(url: str) -> None:
    from attrib.commands.query import _opened

    with pytest.raises(ModelMismatchError):
        _opened(Path("none"), url, "clip-vitb32")
