"""What the service answered once, on the example data: shown in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ANSWER", "OF_ROUTES", "PROBLEMS"]


_ID = "1d25867eaeeea437c3d9dc75c875dae796410c3ee90d6641bb1fd9aa5e843fd8"
_LINK = f"/v1/attributions/{_ID}"

ANSWER: dict[str, Any] = {
    "id": _ID,
    "query": "media-1.png",
    "rows": [
        {
            "rank": 1,
            "similarity": 0.6059258580207825,
            "influence": 0.9931571721246968,
            "interval": [0.9931571721246968, 0.9931571721246968],
            "owners": [
                {
                    "id": "96a5b413-0c1c-5075-8e32-75a653e0b4db",
                    "key": "images/d4d82a397f76.jpg",
                    "dataset": "training",
                    "creator": "Jose Hevia",
                    "licence": "public domain",
                    "url": "",
                    "path": "examples/training/images/d4d82a397f76.jpg",
                    "caption": "home homes house building buildings",
                }
            ],
            "sha256": "0e512d541d31b434f807dc42bddbd8537ac61ba699a386f92e85a411c0350ffc",
            "width": 224,
            "height": 224,
            "thumbnail": "/v1/images/96a5b413-0c1c-5075-8e32-75a653e0b4db/thumbnail",
        }
    ],
    "remaining": 0.006842827875303215,
    "remaining_interval": [0.006842827875303215, 0.006842827875303215],
    "method": "exact",
    "support": 600,
    "population": 600,
    "k": 1,
    "model": "efficientnet-lite0-clipart",
    "fingerprint": "c6e281ab3dfb4eff",
    "calibrator": {
        "tau": 0.03721544031640779,
        "b": 1.4924604859702134e-06,
        "fitted": True,
        "fitted_on": "object_val (9 models, 5,128 distractors)",
    },
    "index": {
        "backend": "edge",
        "points": 600,
        "indexed": 0,
        "dim": 512,
        "quantization": "none",
        "ef": 128,
        "segments": 1,
        "recall": None,
        "sample": 600,
        "m": 16,
        "ef_construct": 128,
        "oversampling": 1.0,
        "datatype": "float32",
    },
    "where": {},
    "without": {},
    "mass": None,
    "exact": False,
    "group_by": "licence",
    "groups": [{"value": "public domain", "influence": 1.0, "interval": [1.0, 1.0], "images": 600}],
    "groups_remaining": 0.0,
    "note": "",
    "collection": "efficientnet-lite0-clipart-0e37b747",
    "contents": "284bc6e3406f9869df2ebaa94a63e7ab8938e2f46eade0d37e5b1b27dc1dc30c",
    "links": {
        "self": _LINK,
        "page": f"/#a={_ID}",
    },
    "versions": {
        "attrib": "0.1.0",
        "numpy": "2.4.6",
        "pillow": "13.0.0",
        "qdrant-client": "1.20.0",
        "qdrant-edge-py": "0.9.0",
        "torch": "2.14.1",
    },
}
_NEAR_EQUAL: dict[str, Any] = {"folds": [[1, 2], [4, 7]], "compared": 50}
_TRAINING_IMAGE: dict[str, Any] = {
    "id": "96a5b413-0c1c-5075-8e32-75a653e0b4db",
    "title": "Homes Clipart",
    "category": "buildings/homes",
    "source": "Open Clip Art Library 0.18: buildings/homes/home13.png",
    "key": "images/d4d82a397f76.jpg",
    "dataset": "training",
    "path": "examples/training/images/d4d82a397f76.jpg",
    "url": "",
    "caption": "home homes house building buildings",
    "creator": "Jose Hevia",
    "licence": "public domain",
    "width": 224,
    "height": 224,
    "sha256": "0e512d541d31b434f807dc42bddbd8537ac61ba699a386f92e85a411c0350ffc",
    "shard": 0,
}
_DELETED: dict[str, Any] = {"matching": 12, "deleted": 12}
_INFO: dict[str, Any] = {
    "collection": "efficientnet-lite0-clipart-0e37b747",
    "model": "efficientnet-lite0-clipart",
    "backbone": "efficientnet-lite0-stages-48px",
    "fingerprint": "c6e281ab3dfb4eff",
    "feature_fingerprint": "0e37b747520bbf99",
    "tuned_on": "object_train, style_train (46 models)",
    "calibrator": {
        "tau": 0.03721544031640779,
        "b": 1.4924604859702134e-06,
        "fitted_on": "object_val (9 models, 5,128 distractors)",
    },
    "images": 600,
    "datasets": {"training": 600},
    "shards": 1,
    "rejects": 0,
    "tombstones": 0,
    "index": {
        "backend": "edge",
        "dim": 512,
        "indexed": 0,
        "quantization": "none",
        "ef": 128,
        "segments": 1,
        "recall": None,
        "sample": 600,
        "disk_bytes": 3850240,
        "rss_bytes": 115613696,
        "rss_anon_bytes": 25636864,
        "rss_file_bytes": 89976832,
        "m": 16,
        "ef_construct": 128,
        "oversampling": 1.0,
        "datatype": "float32",
    },
    "contents": "284bc6e3406f9869df2ebaa94a63e7ab8938e2f46eade0d37e5b1b27dc1dc30c",
    "filters": ["creator", "licence", "dataset", "sha256", "key"],
    "limits": {
        "max_bytes": 33554432,
        "max_pixels": 50000000,
        "max_images": 256,
        "max_batch_bytes": 268435456,
        "max_k": 1000,
    },
    "versions": {
        "attrib": "0.1.0",
        "numpy": "2.4.6",
        "pillow": "13.0.0",
        "qdrant-client": "1.20.0",
        "qdrant-edge-py": "0.9.0",
        "torch": "2.14.1",
    },
}
_EXAMPLES: list[dict[str, str]] = [
    {
        "name": "object-16-transport--gpt-0.png",
        "url": "/v1/examples/object-16-transport--gpt-0.png",
    },
    {
        "name": "object-25-etiquette--gpt-0.png",
        "url": "/v1/examples/object-25-etiquette--gpt-0.png",
    },
]
PROBLEMS: Mapping[int, dict[str, Any]] = {
    400: {
        "type": "urn:attrib:problem:broken-form",
        "title": "Bad Request",
        "status": 400,
        "detail": "the multipart body is broken",
        "instance": "/v1/attributions",
    },
    401: {
        "type": "urn:attrib:problem:key-needed",
        "title": "Unauthorized",
        "status": 401,
        "detail": "this service asks for a key",
        "instance": "/v1/attributions",
    },
    403: {
        "type": "urn:attrib:problem:read-only-key",
        "title": "Forbidden",
        "status": 403,
        "detail": "this key is for reading; takedowns need a write key",
        "instance": "/v1/images",
    },
    404: {
        "type": "urn:attrib:problem:no-such-answer",
        "title": "Not Found",
        "status": 404,
        "detail": "this answer is not kept (any more): ask again",
        "instance": _LINK,
    },
    413: {
        "type": "urn:attrib:problem:more-bytes-than-the-limit",
        "title": "Request Entity Too Large",
        "status": 413,
        "detail": "more bytes than the limit: 33,554,432",
        "instance": "/v1/attributions",
    },
    415: {
        "type": "urn:attrib:problem:unsupported-media-type",
        "title": "Unsupported Media Type",
        "status": 415,
        "detail": "send application/json",
        "instance": "/v1/attributions",
    },
    422: {
        "type": "urn:attrib:problem:not-an-image",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "not an image",
        "instance": "/v1/attributions",
    },
    429: {
        "type": "urn:attrib:problem:busy",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "64 requests are being answered already; ask again in a moment",
        "instance": "/v1/attributions",
    },
    500: {
        "type": "urn:attrib:problem:fault",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "a fault of the service; its log has the details",
        "instance": "/v1/attributions",
    },
    503: {
        "type": "urn:attrib:problem:not-ready",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "the model and the index are being loaded; ask again in a moment",
        "instance": "/v1/attributions",
    },
}

OF_ROUTES: Mapping[tuple[str, str], Any] = {
    ("/v1/attributions", "post"): ANSWER,
    ("/v1/attributions/{id}", "get"): {**ANSWER, "query": ""},
    ("/v1/attributions/{id}/near-equal", "get"): _NEAR_EQUAL,
    ("/v1/images/{id}", "get"): _TRAINING_IMAGE,
    ("/v1/images", "delete"): _DELETED,
    ("/v1/info", "get"): _INFO,
    ("/v1/examples", "get"): _EXAMPLES,
    ("/healthz", "get"): {"status": "alive"},
    ("/readyz", "get"): {"status": "ready"},
}
"""JSON by path and method."""
