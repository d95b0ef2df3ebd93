"""What the service does not take, and that it says why."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from folders import copy_folder
from PIL import Image
from typer.testing import CliRunner

from attrib.cli import app
from ingest.decode import DecodeLimits

SMALL = DecodeLimits(max_bytes=20_000, max_pixels=10_000)


def png(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def small(serve: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service with small limits."""
    root = copy_folder(data, tmp_path_factory.mktemp("small") / "data")
    with (
        serve(root, limits=SMALL, max_images=3, max_batch_bytes=100_000) as address,
        httpx.Client(base_url=address, timeout=60) as opened,
    ):
        yield opened


def refused(response: httpx.Response, status: int, kind: str, detail: str) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["type"], problem["detail"]) == (
        status,
        f"urn:attrib:problem:{kind}",
        detail,
    )
    assert problem["status"] == status
    assert problem["instance"] == response.request.url.path


WRONG_SETTINGS = [
    ({"k": "0"}, "k must be a whole number from 1 to 1000"),
    ({"k": "1001"}, "k must be a whole number from 1 to 1000"),
    ({"k": "²"}, "k must be a whole number from 1 to 1000"),
    ({"exact": "perhaps"}, "exact must be true or false"),
    ({"exact": "1"}, "exact must be true or false"),
    ({"k": ["1001", "5"]}, "k must be a whole number from 1 to 1000"),
    ({"mass": "0"}, "mass must be a number above 0 and at most 1"),
    ({"mass": "1.01"}, "mass must be a number above 0 and at most 1"),
    ({"mass": "-0.5"}, "mass must be a number above 0 and at most 1"),
    ({"mass": "nan"}, "mass must be a number above 0 and at most 1"),
    ({"mass": ["99", "0.5"]}, "mass must be a number above 0 and at most 1"),
    ({"without": "creator"}, "without must be field=value, such as creator=someone"),
    (
        {"without": "colour=red"},
        "cannot filter by 'colour': the fields to filter by are creator, licence, dataset, "
        "sha256, key",
    ),
    ({"where": "creator"}, "where must be field=value, such as creator=someone"),
    (
        {"where": "colour=red"},
        "cannot filter by 'colour': the fields to filter by are creator, licence, dataset, "
        "sha256, key",
    ),
]


@pytest.mark.parametrize(("settings", "detail"), WRONG_SETTINGS)
def test_wrong_settings(client: httpx.Client, settings: dict[str, Any], detail: str) -> None:
    image = {"image": png(8, 8)}
    refused(client.post("/v1/attributions", files=image, data=settings), 422, "wrong-call", detail)
    refused(
        client.post("/v1/attributions", files=image, params=settings), 422, "wrong-call", detail
    )


KNOWN = "k, mass, where, without, group_by, exact are known here"


@pytest.mark.parametrize("path", ["/v1/attributions", "/v1/attributions:batch"])
def test_misspelt_settings(client: httpx.Client, path: str) -> None:
    image = {"image": png(8, 8)}
    by_url = client.post(f"{path}?nonsense=1&k=3", files=image)
    refused(by_url, 422, "wrong-call", f"nonsense: only {KNOWN}")
    own = "image" if path.endswith("batch") else "image, url"
    by_form = client.post(path, files=image, data={"K": "3", "Exact": "true"})
    refused(by_form, 422, "wrong-call", f"Exact, K: only {own}, {KNOWN}")
    by_file = client.post(path, files={"other": png(8, 8)})
    refused(by_file, 422, "wrong-call", f"other: only {own}, {KNOWN}")
    as_file = client.post(path, files={"k": ("k.txt", b"3")})
    refused(as_file, 422, "wrong-call", "k must be a text, without a file name")


def test_misspelt_settings_in_json(client: httpx.Client) -> None:
    body = {"features": [1.0] + [0.0] * 511, "groupby": "creator"}
    response = client.post("/v1/attributions", json=body)
    refused(response, 422, "wrong-call", f"groupby: only features, {KNOWN}")


def test_a_field_to_group_by_that_no_training_image_has(
    client: httpx.Client, own: Path, generated: Path
) -> None:
    image = {"image": generated.read_bytes()}
    refusal = client.post("/v1/attributions?group_by=foo", files=image)
    detail = (
        "cannot group by 'foo': no training image has it; they have caption, category, creator, "
        "dataset, height, key, licence, path, sha256, shard, source, title, url, width"
    )
    refused(refusal, 422, "wrong-call", detail)
    words = ["query", str(generated), "--data", str(own), "--group-by", "foo"]
    done = CliRunner().invoke(app, words, env={"ATTRIB_SERVER": ""})
    assert (done.exit_code, done.stderr) == (2, f"attrib: {detail}\n")
    by_title = client.post("/v1/attributions?group_by=title", files=image)  # a field of the source
    assert "Homes Clipart" in {group["value"] for group in by_title.json()["groups"]}


def test_settings_of_the_url_are_looked_at_where_the_body_has_others(client: httpx.Client) -> None:
    response = client.post("/v1/attributions?k=1001", files={"image": png(8, 8)}, data={"k": "5"})
    refused(response, 422, "wrong-call", "k must be a whole number from 1 to 1000")


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"k": "5"}, "k must be a whole number from 1 to 1000"),
        ({"k": True}, "k must be a whole number from 1 to 1000"),
        ({"k": 1.5}, "k must be a whole number from 1 to 1000"),
        ({"k": [5]}, "k must be a whole number from 1 to 1000"),
        ({"exact": "true"}, "exact must be true or false"),
        ({"group_by": 1}, "group_by must be the name of a field"),
        ({"group_by": "[]"}, "group_by must be the name of a field"),
        ({"where": "creator=a"}, "where must be a list of texts, such as creator=someone"),
        ({"where": [1]}, "where must be field=value, such as creator=someone"),
        ({"without": {"creator": "a"}}, "without must be a list of texts, such as creator=someone"),
        ({"mass": "0.5"}, "mass must be a number above 0 and at most 1"),
        ({"mass": None}, "mass must be a number above 0 and at most 1"),
    ],
)
def test_settings_of_another_type(
    client: httpx.Client, settings: dict[str, Any], detail: str
) -> None:
    unit = [1.0] + [0.0] * 511
    response = client.post("/v1/attributions", json={"features": unit, **settings})
    refused(response, 422, "wrong-call", detail)
    right = {"features": unit, "k": 5.0, "exact": True, "where": [], "group_by": "creator"}
    right |= {"mass": 1, "without": ["creator=nobody"]}
    answer = client.post("/v1/attributions", json=right).json()
    assert (answer["k"], answer["mass"], answer["without"]) == (5, 1.0, {"creator": ["nobody"]})


def test_an_answer_without_any_training_image(client: httpx.Client) -> None:
    everything = {"without": "dataset=clipart"}
    response = client.post("/v1/attributions", files={"image": png(8, 8)}, data=everything)
    detail = (
        "all 41 training images match dataset=clipart: without them none is left to attribute to"
    )
    refused(response, 422, "nothing-left", detail)


NO_FEATURES = (
    "features must be a list of numbers, or base64 of them, L2-normalised, of the synth mapper"
)
WRONG_FEATURES = [
    ("[]", NO_FEATURES),
    ("{}", NO_FEATURES),
    ("null", NO_FEATURES),
    ("[true]", NO_FEATURES),
    ('[1, "0"]', NO_FEATURES),
    ('"text!"', "features as a text must be base64, with its padding"),
    ("[NaN]", "features must be finite numbers"),
    ("[1e39]", "features must be finite numbers"),
    (f"[{'9' * 400}]", "features must be finite numbers"),
    ("[1, 0]", "2 features were given, the model has 512"),
    (json.dumps([1.0] * 512), "features of 'features' are not L2-normalised: norm 22.63"),
]


@pytest.mark.parametrize(("features", "detail"), WRONG_FEATURES)
def test_wrong_features(client: httpx.Client, features: str, detail: str) -> None:
    response = client.post(
        "/v1/attributions",
        content=f'{{"features": {features}}}',
        headers={"Content-Type": "application/json"},
    )
    refused(response, 422, "wrong-call", detail)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'"\\ud800"', b"[]"])
def test_other_than_a_json_object(client: httpx.Client, body: bytes) -> None:
    response = client.post(
        "/v1/attributions", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (400, 422)
    assert response.json()["detail"] in ("the body is not JSON", "the body must be a JSON object")


BROKEN = "multipart/form-data; boundary=x"
BODIES = [
    ("text/plain", b"abc", 415),
    ("multipart/form-data", b"abc", 400),
    (BROKEN, b"", 422),
    (BROKEN, b"abc", 400),
    (BROKEN, b"--x\r\nno header\r\n\r\n\r\n--x--", 400),
    (BROKEN, b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc\r\n--x--\r\n', 422),
    (BROKEN, b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n", 400),
    (
        BROKEN,
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n--x--\r\n',
        422,
    ),
    ("multipart/form-data; boundary=" + "x" * 5000, b"--x", 400),
    (
        BROKEN + "; charset=nonsense",
        b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n\xff\r\n--x--\r\n',
        422,
    ),
]


@pytest.mark.parametrize(("kind", "body", "status"), BODIES)
def test_broken_bodies(client: httpx.Client, kind: str, body: bytes, status: int) -> None:
    for path in ("/v1/attributions", "/v1/attributions:batch"):
        response = client.post(path, content=body, headers={"Content-Type": kind})
        if path.endswith("batch") and response.status_code == 200:
            assert b'"error"' in response.content  # an empty image is a line of its own
            continue
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 nonsense\r\n\r\n", b"GET /" + b"a" * 40_000])
def test_what_never_reaches_the_app_is_a_problem_too(client: httpx.Client, sent: bytes) -> None:
    address = (client.base_url.host, client.base_url.port or 0)
    with socket.create_connection(address, timeout=30) as raw:
        raw.sendall(sent)
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert b"\r\nX-Content-Type-Options: nosniff" in head
    assert json.loads(body)["detail"] == (
        "the request is no HTTP/1.1, or its address and headers are too long"
    )


def test_neither_nothing_nor_two_things(client: httpx.Client) -> None:
    detail = "give either one image (a file) or one url (a text)"
    both = client.post(
        "/v1/attributions", files={"image": png(8, 8)}, data={"url": "http://example.com/a.png"}
    )
    refused(both, 422, "wrong-call", detail)
    nothing = client.post("/v1/attributions", files={"url": png(8, 8)})
    refused(nothing, 422, "wrong-call", detail)


def test_more_than_the_limits(small: httpx.Client) -> None:
    refused(
        small.post("/v1/attributions", files={"image": b"x" * 20_001}),
        413,
        "more-bytes-than-the-limit",
        "more bytes than the limit: 20,000",
    )
    refused(
        small.post("/v1/attributions", files={"image": b"x" * 200_000}),
        413,
        "more-bytes-than-the-limit",
        "more bytes than the limit: 20,000",  # of the image, not of the form around it
    )
    refused(
        small.post("/v1/attributions", files={"image": png(101, 100)}),
        413,
        "more-pixels-than-the-limit",
        "more pixels than the limit: 101 x 100 pixels, the limit is 10000",
    )
    assert small.post("/v1/attributions", files={"image": png(100, 100)}).status_code == 200
    many = small.post("/v1/attributions:batch", files=[("image", png(8, 8))] * 4)
    assert (many.status_code, many.json()["detail"]) == (
        400,
        "Too many files. Maximum number of files is 3.",
    )


def test_a_body_without_a_length_is_cut_off_at_the_limit(small: httpx.Client) -> None:
    def endless() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(10_000):
            yield b"x" * 10_000

    headers = {"Content-Type": BROKEN}
    try:
        response = small.post("/v1/attributions", content=endless(), headers=headers)
    except (httpx.WriteError, httpx.RemoteProtocolError):
        pass  # the service hung up while we still wrote
    else:
        assert response.status_code == 413
    assert small.get("/healthz").status_code == 200


def test_hostile_names_are_only_text(client: httpx.Client) -> None:
    name = "../../etc/<script>alert(1)</script>\u202e.png"
    answer = client.post("/v1/attributions?k=1", files={"image": (name, png(8, 8))})
    assert answer.status_code == 200
    assert "<script>" in answer.json()["query"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("http://127.0.0.1/a.png", "not-a-public-address"),
        ("http://localhost:8723/v1/info", "not-a-public-address"),
        ("http://169.254.169.254/latest/meta-data/", "not-a-public-address"),
        ("http://[::1]/", "not-a-public-address"),
        ("http://[::ffff:10.0.0.1]/", "not-a-public-address"),
        ("http://2130706433/", "not-a-public-address"),
        ("http://1.1.1.1:99999/", "not-a-web-address"),
        ("http://1.1.1.1:0/", "not-a-web-address"),
        ("file:///etc/passwd", "not-a-web-address"),
        ("gopher://127.0.0.1/", "not-a-web-address"),
        ("nonsense", "not-a-web-address"),
    ],
)
def test_addresses_that_are_not_public(client: httpx.Client, address: str, kind: str) -> None:
    response = client.post("/v1/attributions", files={"url": (None, address)})
    assert (response.status_code, response.json()["type"]) == (422, f"urn:attrib:problem:{kind}")
    if kind == "not-a-public-address":  # what a name resolves to here is nobody's affair
        told = "not a public address: only those of the public internet are fetched"
        assert response.json()["detail"] == told


def test_a_url_where_private_addresses_are_allowed(
    serve: Any, own: Path, web: Any, make_jpeg: Callable[[int], bytes]
) -> None:
    web.redirect("/moved", "/image/3")
    web.redirect("/loop", "/loop")
    with serve(own, allow_private_urls=True) as address, httpx.Client(base_url=address) as client:

        def ask(path: str) -> httpx.Response:
            at = web.url(path, "127.0.0.1")
            return client.post("/v1/attributions?k=2", files={"url": (None, at)}, timeout=60)

        by_url, by_file = ask("/moved").json(), {"image": make_jpeg(3)}
        assert by_url["rows"] == client.post("/v1/attributions?k=2", files=by_file).json()["rows"]
        assert by_url["query"] == web.url("/moved", "127.0.0.1")
        assert "robots" not in str(web.requests)
        assert ask("/loop").json()["detail"] == "too many redirects: more than 5"
        web.respond("/text", 200, b"words", kind="text/plain")
        assert ask("/text").status_code == 422


def test_a_request_that_is_no_http(url: str, client: httpx.Client) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"\x00\x01 nonsense\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/attributions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
        )  # and hang up in the middle
    assert client.get("/healthz").status_code == 200


def test_other_paths_and_methods(client: httpx.Client) -> None:
    refused(client.get("/nothing"), 404, "not-found", "there is nothing here")
    refused(client.put("/v1/attributions"), 405, "method-not-allowed", "this cannot be done here")
    assert client.get("/assets/..%2F..%2Fpyproject.toml").status_code == 404
    assert client.get("/assets/%2Fetc%2Fpasswd").status_code == 404
