"""Prompts that a language model writes: asked of a real HTTP server, which may answer anything."""

from __future__ import annotations

import http.server
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.dataset.captions import Captions, _usable
from evaluation.dataset.endpoint import Endpoint
from evaluation.dataset.settings import BuildSettings
from ingest.errors import RunError, UsageError

KEY = "sk-secret-4711"
Answer = tuple[int, bytes]


def said(*lines: str) -> Answer:
    """A chat completion of these lines."""
    message = {"role": "assistant", "content": "\n".join(lines)}
    return 200, json.dumps({"choices": [{"index": 0, "message": message}]}).encode()


@dataclass
class Server:
    """Answers one after another, the last one for ever; keeps what it was asked."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    delay_s: float = 0.0

    def next(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def questions(self) -> list[str]:
        return [one["body"]["messages"][0]["content"] for one in self.asked]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append(
                {
                    "path": self.path,
                    "key": self.headers.get("Authorization"),
                    "body": json.loads(body),
                }
            )
            status, data = made.next()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{made.url}/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                for byte in range(len(data)) if made.delay_s else ():
                    time.sleep(made.delay_s)
                    self.wfile.write(data[byte : byte + 1])
                self.wfile.write(b"" if made.delay_s else data)
            except OSError:
                return

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        made.url = f"http://127.0.0.1:{web.server_address[1]}/v1"
        thread = threading.Thread(target=web.serve_forever, args=(0.02,))
        thread.start()
        yield made
        web.shutdown()
        thread.join()


Asks = Callable[..., Captions]


@pytest.fixture
def captions(server: Server) -> Asks:
    def made(per_model: int = 6, *, kind: str = "object", **more: Any) -> Captions:
        kept = more.pop("kept", None)
        endpoint = Endpoint(server.url, "tiny-llm", **{"key": KEY, "pause_s": 0.0, **more})
        chosen = BuildSettings(kind=kind, per_model=per_model)  # type: ignore[arg-type]
        return Captions(endpoint, chosen, kept)

    return made


GOOD = ("{} on a boat", "a {} at night", "two {} in the rain")


def test_half_of_a_models_prompts_are_asked_for_each_word_once(
    server: Server, captions: Asks
) -> None:
    server.answers = [said(*GOOD)]
    asking = captions(6)
    assert asking.of("cat") == GOOD
    assert asking.of("cat") == GOOD
    assert asking.told() == []
    (one,) = server.asked
    assert one["path"] == "/v1/chat/completions"
    assert one["key"] == f"Bearer {KEY}"
    assert one["body"]["model"] == "tiny-llm"
    (question,) = server.questions()
    assert question.startswith("Write 3 short, varied captions of images that show a cat:")
    assert "{}" in question
    asking.of("dog")
    assert len(server.asked) == 2


def test_what_is_no_prompt_or_comes_twice_is_left_out_and_asked_for_again(
    server: Server, captions: Asks
) -> None:
    server.answers = [
        said(
            "Here are your captions:",
            "1. {} on a boat",
            "2) {} ON A BOAT",
            "- a {} and another {}",
            '"a Cat under a tree"',  # the word in place of its slot
            "* {} cat on the moon",  # the slot, and the word
            "",
        ),
        said("{} by the sea", "{} at home"),
    ]
    asking = captions(8)
    assert asking.of("cat") == (
        "{} on a boat",
        "a {} under a tree",
        "{} on the moon",
        "{} by the sea",
    )
    assert server.questions()[1].startswith("Write 1 short")
    assert asking.told() == []


HOSTILE = (
    "{} \x1b[31mred\x1b[0m",
    "{} \u202egnp.exe",
    "a <new1> {}",
    "{} " + "x" * 200,
    f"{{}} says {KEY}",
    "{} \ud800",
    "{}",
)


def test_hostile_text_is_no_prompt(server: Server, captions: Asks) -> None:
    server.answers = [said(*HOSTILE, *GOOD)]
    assert captions(6).of("cat") == GOOD


def test_too_few_are_filled_by_the_shipped_ones_with_one_line(
    server: Server, captions: Asks
) -> None:
    server.answers = [said("{} on a boat", "nothing")]
    asking = captions(6)
    assert asking.of("cat") == ()
    assert len(server.asked) == 3
    assert asking.of("dog") == ()
    assert asking.told() == [
        f"{server.url} wrote too few prompts, ours are used (cat: 1 of 3, dog: 1 of 3)"
    ]
    # Half of them are enough.
    server.answers = [said(*GOOD[:2])]
    assert captions(6).of("cat") == GOOD[:2]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, b'{"choices": [{"mess'), "its answer is none of a chat completion"),
        ((200, b"[]"), "its answer is none of a chat completion"),
        ((200, b'{"choices": []}'), "its answer is none of a chat completion"),
        ((200, b"[" * 100_000), "its answer is none of a chat completion"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "its answer is none of a chat"),
        ((200, b"\xff\xfe"), "its answer is none of a chat completion"),
        ((200, b" " * (2 << 20)), "its answer is too long"),
        ((500, KEY.encode()), "it answers 500"),
        ((429, b""), "it answers 429"),
    ],
)
def test_failures_are_tried_three_times_then_nothing_is_asked_any_more(
    server: Server, captions: Asks, answer: Answer, why: str
) -> None:
    server.answers = [answer]
    asking = captions()
    assert asking.of("cat") == ()
    assert len(server.asked) == 3
    assert asking.of("dog") == ()
    assert len(server.asked) == 3
    (line,) = asking.told()
    assert line.startswith(f"{server.url} wrote too few prompts, ours are used (cat: {why}")
    assert KEY not in line
    assert line.count("\n") == 0


def test_a_failure_that_passes_is_none(server: Server, captions: Asks) -> None:
    server.answers = [(503, b""), (200, b"{"), said(*GOOD)]
    asking = captions(6)
    assert asking.of("cat") == GOOD
    assert asking.told() == []


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "it answers 401; set its key in ATTRIB_PROMPTS_KEY"),
        (404, "it answers 404; check the address and --prompts-model"),
        (302, "it answers 302, a redirect; give the address that it leads to"),
    ],
)
def test_what_no_waiting_mends_is_an_error_at_once(
    server: Server, captions: Asks, status: int, advice: str
) -> None:
    server.answers = [(status, KEY.encode())]
    with pytest.raises(RunError) as caught:
        captions().of("cat")
    assert str(caught.value) == f"cannot have prompts written by {server.url}: {advice}"
    assert len(server.asked) == 1


def test_nobody_there_and_an_answer_without_end(server: Server, captions: Asks) -> None:
    server.answers = [said(*GOOD)]
    server.delay_s = 0.02
    asking = captions(timeout_s=0.2)
    began = time.monotonic()
    assert asking.of("cat") == ()
    assert time.monotonic() - began < 10
    assert "takes too long" in asking.told()[0]
    nobody = Endpoint("http://127.0.0.1:9/v1", "m", pause_s=0.0)
    with pytest.raises(RunError) as caught:
        Captions(nobody, BuildSettings()).of("cat")
    assert str(caught.value) == (
        "cannot have prompts written by http://127.0.0.1:9/v1: it cannot be reached; start it, or "
        "leave --prompts-from out"
    )


def test_the_key_is_neither_logged_nor_kept(
    server: Server, captions: Asks, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [said(*GOOD, KEY)]
    asking = captions()
    with caplog.at_level(logging.DEBUG):
        asking.of("cat")
    assert caplog.records
    assert not [record for record in caplog.records if KEY in record.getMessage()]
    assert KEY not in json.dumps(asking.values())
    assert KEY not in repr(Endpoint(server.url, "m", KEY))


def test_what_was_kept_is_not_asked_again(server: Server, captions: Asks) -> None:
    server.answers = [said(*GOOD), said("no")]
    first = captions()
    assert first.of("cat") == GOOD
    assert first.of("dog") == ()
    count = len(server.asked)
    kept = json.loads(json.dumps(first.values()))
    again = captions(kept=kept)
    assert again.of("cat") == GOOD
    assert again.of("dog") == again.of("boat") == ()
    assert again.values() == first.values()
    assert again.told() == first.told()
    assert len(server.asked) == count
    for damaged in ({}, {"written": 3, "lacking": []}, {"written": {"cat": 1}}):
        assert captions(kept=damaged).of("cat") == ()
    assert len(server.asked) == count


def test_styles_are_asked_for_once_without_a_name(server: Server, captions: Asks) -> None:
    lines = [f"a {thing} in the style of {{}}" for thing in ("tree", "town", "face")]
    server.answers = [said(*lines)]
    asking = captions(6, kind="style")
    assert asking.of("Jane Doe") == tuple(lines)
    assert asking.of("John Roe") == tuple(lines)
    (question,) = server.questions()
    assert "Doe" not in question


@pytest.mark.parametrize(
    ("url", "named", "wrong"),
    [
        ("ftp://host/v1", {}, "--prompts-from is no web address: write http://HOST:PORT/v1"),
        ("host:8000", {}, "--prompts-from is no web address: write http://HOST:PORT/v1"),
        ("http://[::1", {}, "--prompts-from is no web address: write http://HOST:PORT/v1"),
        ("http://me:pw@host/v1", {}, "--prompts-from takes an address without user, password"),
        ("http://host/v1?key=1", {}, "--prompts-from takes an address without user, password"),
        ("http://host/v1", {"model": " "}, "--prompts-model is no name of a model"),
        ("http://host/v1", {"key": f"{KEY}\n"}, "ATTRIB_PROMPTS_KEY is no key: letters, digits"),
    ],
)
def test_endpoints_that_are_none(url: str, named: dict[str, str], wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint(url, named.get("model", "m"), named.get("key", ""))
    assert str(caught.value).startswith(wrong)
    assert KEY not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_the_address() -> None:
    for url in ("http://h:1/v1", "http://h:1/v1/", "http://h:1/v1/chat/completions"):
        assert Endpoint(url, "m").address == "http://h:1/v1/chat/completions"


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40) | st.text(st.sampled_from('{}cat -1."\n\x1b<new1>'), max_size=20))
def test_whatever_a_line_is_its_prompt_is_a_template(line: str) -> None:
    found = _usable(line, "cat", KEY)
    if found is not None:
        assert found.count("{}") == 1
        assert found.isprintable()
        assert found == " ".join(found.split())
        assert "<new1>" not in found
        assert 4 <= len(found) <= 200
