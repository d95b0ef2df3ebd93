from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from ingest.decode import DecodeLimits
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


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://127.0.0.1:8723", "identity"),
        ("http://localhost", "identity"),
        ("http://[::1]:80/", "identity"),
        ("http://localhost.example", "gzip, deflate"),
    ],
)
def test_answers_from_this_machine_are_not_compressed(url: str, taken: str) -> None:
    with attrib.connect(url) as connected:
        assert connected._client.headers["accept-encoding"][: len(taken)] == taken


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


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client waits each time; it only says so."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waited.append))
    return waited


def problem(status: int, kind: str, retry_after: str) -> tuple[int, dict[str, str], bytes]:
    body = {"type": f"urn:attrib:problem:{kind}", "detail": kind, "status": status}
    return status, {"Retry-After": retry_after}, json.dumps(body).encode()


def test_a_busy_service_is_asked_again(moody: Any, pauses: list[float]) -> None:
    handler, address = moody
    handler.answers += [problem(429, "busy", "1")] * 3
    handler.answers.append((200, {}, b'{"images": 3}'))
    with attrib.connect(address) as service:
        assert service.info() == {"images": 3}
        assert pauses == [1, 1, 1]
        handler.answers.append((404, {}, b"<html>"))
        with pytest.raises(RunError, match="answered 404: no attrib service"):
            service.info()
        handler.answers.append((200, {}, b"<html>"))
        with pytest.raises(RunError, match="did not answer with JSON"):
            service.info()


@pytest.mark.parametrize(
    ("answer", "longest"),
    [
        (problem(429, "busy", "0"), 4),
        (problem(429, "busy", "1"), 4),
        (problem(503, "not-ready", "2"), 4),
        (problem(503, "folder-busy", "60"), 30),
    ],
)
def test_it_is_asked_for_half_a_minute_and_no_longer(
    moody: Any,
    pauses: list[float],
    answer: tuple[int, dict[str, str], bytes],
    longest: float,
) -> None:
    handler, address = moody
    handler.answers += [answer] * 50
    with attrib.connect(address) as service, pytest.raises(RunError, match=r"busy|not-ready"):
        service.info()
    assert sum(pauses) == pytest.approx(30, abs=1)
    assert max(pauses) == pytest.approx(longest, abs=1)
    assert len(pauses) + 1 == 50 - len(handler.answers)


def test_no_service_there(pauses: list[float]) -> None:
    with (
        attrib.connect("http://127.0.0.1:9") as service,
        pytest.raises(RunError, match=r"cannot reach the service at http://127\.0\.0\.1:9"),
    ):
        service.info()
    assert sum(pauses) == pytest.approx(30, abs=1)
    assert pauses[:6] == [0.25, 0.5, 1, 2, 4, 4]


def test_an_image_too_large_for_the_service_is_named(
    serve: Any, own: Path, generated: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(generated.read_bytes() + bytes(300_000))
    middling = tmp_path / "middling.png"
    middling.write_bytes(generated.read_bytes() + bytes(100_000))
    with serve(own, limits=DecodeLimits(max_bytes=50_000)) as url:
        for path in (large, middling):  # larger than any body may be, and than an image may
            asked = ["query", str(path), "--server", url]
            done = CliRunner().invoke(app, asked)
            assert done.exit_code == 1
            told = f"more bytes than the limit: {path}: 50,000\n"
            assert done.stderr == f"attrib: {told}"
        with attrib.connect(url) as service, pytest.raises(ImageError) as failed:
            service.query_many([generated, middling, generated], k=1)
        assert str(failed.value) == f"more bytes than the limit: {middling}: 50,000"
        with attrib.connect(url) as service, pytest.raises(ImageError) as failed:
            service.query(middling.read_bytes())
        assert str(failed.value) == "more bytes than the limit: image: 50,000"


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
