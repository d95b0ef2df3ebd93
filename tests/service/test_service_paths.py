"""Where training images lie on the operator's disks is not everybody's affair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from search.service.paths import is_place
from search.service.settings import Access


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("photos/a.jpg", False),
        ("00000.tar#000000012.jpg", False),
        ("", False),
        ("/srv/photos/a.jpg", True),
        ("C:\\photos\\a.jpg", True),
        ("\\\\server\\share\\a.jpg", True),
        ("s3://bucket/00000.tar#1.jpg", True),
    ],
)
def test_what_tells_where_a_file_lies(path: str, place: bool) -> None:
    assert is_place(path) is place


def test_absolute_paths_are_for_those_with_a_write_key(
    serve: Any, own: Path, generated: Path
) -> None:
    access = Access(read_keys=("r",), write_keys=("w",))
    image = {"image": generated.read_bytes()}
    with serve(own, access=access) as address, httpx.Client(base_url=address) as client:

        def ask(key: str, path: str = "/v1/attributions", method: str = "POST") -> httpx.Response:
            files = image if method == "POST" else None
            return client.request(method, path, files=files, headers={"X-API-Key": key}, timeout=60)

        mine, theirs = ask("w").json(), ask("r").json()
        owners = [owner for row in mine["rows"] for owner in row["owners"]]
        assert all(Path(owner["path"]).is_absolute() for owner in owners)
        assert {owner["path"] for row in theirs["rows"] for owner in row["owners"]} == {""}
        folder = str(Path(owners[0]["path"]).parents[1])
        for owner in owners:
            owner["path"] = ""
        assert mine == theirs  # all else is the same
        for key in ("r", "w"):  # whoever asked last, a link is for readers
            ask("w")
            behind = ask(key, theirs["links"]["self"], "GET")
            assert {o["path"] for row in behind.json()["rows"] for o in row["owners"]} == {""}
        one = f"/v1/images/{owners[0]['id']}"
        assert ask("r", one, "GET").json()["path"] == ""
        assert Path(ask("w", one, "GET").json()["path"]).is_absolute()
        for key, absolute in (("r", False), ("w", True)):
            groups = ask(key, "/v1/attributions?group_by=path").json()["groups"]
            assert any(Path(group["value"]).is_absolute() for group in groups) is absolute
        batch = ask("r", "/v1/attributions:batch")
        assert '"path":""' in batch.text
        assert folder not in batch.text


def test_an_operator_may_tell_them_to_all(serve: Any, own: Path, generated: Path) -> None:
    image = {"image": generated.read_bytes()}
    with serve(own, show_paths=True) as address, httpx.Client(base_url=address) as client:
        answer = client.post("/v1/attributions?k=1", files=image, timeout=60).json()
        assert Path(answer["rows"][0]["owners"][0]["path"]).is_absolute()
        behind = client.get(answer["links"]["self"]).json()
        assert behind["rows"] == answer["rows"]
