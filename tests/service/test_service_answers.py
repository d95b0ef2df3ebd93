from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from folders import copy_folder
from PIL import Image

import attrib
from attrib.opened import Opened


def without_folder(answer: dict[str, Any]) -> dict[str, Any]:
    """As the service has it: where the index is on the disk is nobody's affair."""
    plain: dict[str, Any] = json.loads(json.dumps(answer))
    del plain["index"]["folder"]
    return plain


@pytest.fixture(scope="module")
def opened(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = copy_folder(data, tmp_path_factory.mktemp("opened") / "data")
    with attrib.open(root) as collection:
        yield collection


SETTINGS: list[dict[str, Any]] = [
    {},
    {"k": 3},
    {"k": 5, "group_by": "creator", "exact": True},
    {"where": {"licence": ["public domain"]}, "group_by": "licence"},
    {"where": {"creator": ["nobody"]}},
    {"mass": 0.5, "k": 1000},
    {"mass": 1e-7},
    {"without": {"key": ["images/d4d82a397f76.jpg", "images/copy.jpg"]}, "group_by": "creator"},
    {"without": {"licence": ["public domain"], "creator": ["nobody"]}},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_answers_are_those_of_attrib_query_to_the_last_digit(
    client: httpx.Client, opened: Opened, generated: Path, settings: dict[str, Any]
) -> None:
    expected = without_folder(opened.query(generated, **settings).to_dict())
    form = dict(settings)
    for name in {"where", "without"} & set(form):
        form[name] = [f"{f}={v}" for f, values in form[name].items() for v in values]
    with generated.open("rb") as file:
        response = client.post("/v1/attributions", files={"image": file}, data=form)
    assert response.status_code == 200, response.text
    answer = response.json()
    for row in answer["rows"]:
        thumbnail = row.pop("thumbnail")
        assert thumbnail == f"/v1/images/{row['owners'][0]['id']}/thumbnail"
    identity = answer.pop("id")
    links = {"self": f"/v1/attributions/{identity}", "page": f"/#a={identity}"}
    assert answer.pop("links") == links
    assert answer.pop("versions")["attrib"] == attrib.__version__
    assert answer["exact"] is settings.get("exact", False)
    info = client.get("/v1/info").json()
    assert answer.pop("collection") == info["collection"] == opened.info()["collection"]
    assert answer.pop("contents") == info["contents"]
    assert len(info["contents"]) == 64
    assert answer.pop("query") == "media-1.png"
    del expected["query"]
    assert answer == expected


def test_features_give_the_same_answer_as_their_image(
    client: httpx.Client, opened: Opened, generated: Path
) -> None:
    features = opened._collection.features([opened.load(generated)])[0]
    body = {"features": features.tolist(), "k": 4, "group_by": "creator"}
    by_features = client.post("/v1/attributions", json=body).json()
    form = {"k": "4", "group_by": "creator"}
    by_image = client.post(
        "/v1/attributions", files={"image": generated.read_bytes()}, data=form
    ).json()
    for name in ("rows", "remaining", "groups", "method", "support"):
        assert by_features[name] == by_image[name]
    gone = client.get(by_features["links"]["self"] + "/query")
    assert (gone.status_code, gone.json()["type"]) == (404, "urn:attrib:problem:no-image")


def test_an_answer_and_its_image_are_kept_behind_a_link(
    client: httpx.Client, generated: Path
) -> None:
    answer = client.post(
        "/v1/attributions?k=2", files={"image": generated.read_bytes()}, data={"k": "3"}
    ).json()
    assert answer["k"] == len(answer["rows"]) == 3  # the body goes over the query
    again = client.get(answer["links"]["self"])
    assert again.json() == {**answer, "query": ""}
    picture = client.get(answer["links"]["self"] + "/query")
    assert picture.headers["content-type"] == "image/webp"
    with Image.open(BytesIO(picture.content)) as image:
        assert (image.format, image.size) == ("WEBP", (64, 64))
    same = client.get(
        answer["links"]["self"] + "/query", headers={"If-None-Match": picture.headers["etag"]}
    )
    assert (same.status_code, same.content) == (304, b"")
    other = client.post("/v1/attributions?k=4", files={"image": generated.read_bytes()}).json()
    assert other["id"] != answer["id"]
    for further in ("mass=0.5", "without=creator%3Dnobody"):
        asked = f"/v1/attributions?k=4&{further}"
        one = client.post(asked, files={"image": generated.read_bytes()}).json()
        assert one["id"] != other["id"]
    gone = client.get("/v1/attributions/" + "0" * 64)
    assert (gone.status_code, gone.headers["content-type"]) == (404, "application/problem+json")


def test_a_link_tells_no_other_askers_name(client: httpx.Client, generated: Path) -> None:
    data = generated.read_bytes()

    def ask(name: str) -> Any:
        return client.post("/v1/attributions?k=3", files={"image": (name, data)}).json()

    secret, mine = ask("secret-project.png"), ask("mine.png")
    assert (secret["query"], mine["query"]) == ("secret-project.png", "mine.png")
    assert {**secret, "query": ""} == {**mine, "query": ""}
    behind = client.get(mine["links"]["self"])
    assert behind.json()["query"] == ""
    assert "secret" not in behind.text


def test_a_batch_streams_an_answer_or_an_error_for_each_image_in_order(
    client: httpx.Client, generated: Path
) -> None:
    folder = generated.parent
    files = [
        ("image", (name, (folder / name).read_bytes()))
        for name in ("gpt-0.png", "media-1.png", "gpt-2.png")
    ]
    files.insert(1, ("image", ("notes.png", b"no picture")))
    response = client.post("/v1/attributions:batch?k=2", files=files)
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line.get("query") for line in lines] == ["gpt-0.png", None, "media-1.png", "gpt-2.png"]
    assert lines[1]["name"] == "notes.png"
    assert lines[1]["error"]["detail"] == "not an image"
    single = client.post("/v1/attributions?k=2", files={"image": files[2][1]}).json()
    for row, other in zip(single["rows"], lines[2]["rows"], strict=True):
        assert row["owners"] == other["owners"]
        assert row["influence"] == pytest.approx(other["influence"], rel=1e-3)


def test_concurrent_clients_get_the_answers_that_each_would_get_alone(
    client: httpx.Client, generated: Path
) -> None:
    images = [path.read_bytes() for path in sorted(generated.parent.glob("*.png"))]

    def ask(image: bytes) -> Any:
        response = client.post("/v1/attributions?k=5", files={"image": image})
        assert response.status_code == 200, response.text
        return response.json()

    alone = [ask(image) for image in images]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, images * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert one["id"] == other["id"]
        shares = [[row["influence"] for row in answer["rows"]] for answer in (one, other)]
        assert np.allclose(*shares, rtol=1e-2, atol=1e-6)
    assert 'attrib_batch_size_count{stage="embed"}' in client.get("/metrics").text


def test_answers_are_compressed_from_1_kib_on_for_those_who_take_it(client: httpx.Client) -> None:
    body = {"features": [1.0] + [0.0] * 511, "k": 40, "exact": True}

    def ask(path: str, encoding: str) -> httpx.Response:
        return client.post(path, json=body, headers={"Accept-Encoding": encoding})

    packed, plain = ask("/v1/attributions", "gzip"), ask("/v1/attributions", "identity")
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == (
        "gzip",
        "Accept-Encoding",
    )
    assert "content-encoding" not in plain.headers
    assert 1024 < int(packed.headers["content-length"]) < len(plain.content)
    assert packed.json() == plain.json()
    short = ask("/v1/attributions?k=none", "gzip")
    assert (short.status_code, "content-encoding" in short.headers) == (422, False)
    assert len(short.content) < 1024


def test_training_images_and_their_thumbnails(
    client: httpx.Client, generated: Path, exemplar: str
) -> None:
    answer = client.post("/v1/attributions?k=1", files={"image": generated.read_bytes()}).json()
    (row,) = answer["rows"]
    assert {owner["key"] for owner in row["owners"]} == {exemplar, "images/copy.jpg"}
    owner = next(owner for owner in row["owners"] if owner["key"] == exemplar)
    payload = client.get(f"/v1/images/{owner['id']}").json()
    assert (payload["key"], payload["sha256"]) == (exemplar, row["sha256"])
    picture = client.get(row["thumbnail"])
    assert picture.headers["cache-control"] == "private, max-age=3600, immutable"
    with Image.open(BytesIO(picture.content)) as image:
        assert f"image/{image.format.lower()}" == picture.headers["content-type"]  # type: ignore[union-attr]
    etag = picture.headers["etag"]
    assert client.get(row["thumbnail"], headers={"If-None-Match": etag}).status_code == 304
    nobody = "00000000-0000-0000-0000-000000000000"
    assert client.get(f"/v1/images/{nobody}").status_code == 404
    assert client.get(f"/v1/images/{nobody}/thumbnail").status_code == 404
    assert client.get("/v1/images/..%2f..%2fetc%2fpasswd").status_code == 404
    assert client.get("/v1/images/nonsense").status_code == 422


def test_what_is_served_is_told_but_not_where_it_lies(client: httpx.Client, data: Path) -> None:
    info = client.get("/v1/info")
    facts = info.json()
    assert (facts["images"], facts["model"]) == (41, "efficientnet-lite0-clipart")
    assert facts["datasets"] == {"clipart": 41}
    assert facts["limits"]["max_images"] == 8
    assert "/data" not in info.text


def test_examples(client: httpx.Client) -> None:
    examples = client.get("/v1/examples").json()
    assert len(examples) == 24
    assert examples[0]["name"] == "object-16-transport--gpt-0.png"
    image = client.get(examples[0]["url"])
    assert image.headers["content-type"] == "image/png"
    with Image.open(BytesIO(image.content)) as picture:
        assert picture.size == (64, 64)
    assert client.get("/v1/examples/..%2Fprompts.json").status_code == 404
    assert client.get("/v1/examples/none.png").status_code == 404


def test_health_and_metrics(client: httpx.Client, generated: Path) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post("/v1/attributions", files={"image": generated.read_bytes()})
    text = client.get("/metrics").text
    for stage in ("decode", "embed", "search", "calibrate"):
        assert f'attrib_stage_seconds_count{{stage="{stage}"}}' in text
    for line in ("attrib_ready 1.0", 'attrib_answers_total{method="estimated"} 0.0'):
        assert line in text.splitlines()
    assert "attrib_embed_queue_depth" in text
    assert "attrib_support_images_bucket" in text
