"""Thumbnails of training images from a service, for a report."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from attrib.audits import ServiceAnswerer
from attrib.client import connect


def test_several_at_a_time_in_the_order_asked_for(web: Any) -> None:
    ids = [str(UUID(int=number)) for number in range(24)]
    host = f"127.0.0.1:{web.port}"

    def slow(number: int) -> Any:
        def route(handler: Any) -> None:
            time.sleep(0.2 if number % 2 else 0.05)  # the later ones of a pair are there first
            handler.answer(200, b"picture %d" % number)

        return route

    for number, id in enumerate(ids):
        if number != 5:  # has none
            web.routes[f"/v1/images/{id}/thumbnail"] = slow(number)
    with connect(f"http://{host}") as service:
        found = ServiceAnswerer(service).thumbnails(ids)
    assert found == [None if n == 5 else b"picture %d" % n for n in range(24)]
    assert 2 <= web.most["127.0.0.1"] <= 8
