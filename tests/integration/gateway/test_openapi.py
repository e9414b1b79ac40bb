"""Requests made from our own description of the service: none of them breaks it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

UNSEEN = r"^/playground|^/(metrics|live)|\.(js|css|html|svg)$"
ALIAS = re.compile(r"^/(openai|anthropic)(?=/v1/)")


@pytest.fixture(scope="module")
def service(fast_sandbox, serve, hostile_config, keys):
    started = serve(hostile_config(fast_sandbox().url), **keys)
    started.wait_ready()
    return started


@pytest.fixture(scope="module")
def document(service) -> dict[str, Any]:
    answer = httpx.get(f"{service.url}/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_every_call_of_the_gateway_is_described(document) -> None:
    paths = document["paths"]

    for path in ("/v1/chat/completions", "/openai/v1/embeddings", "/anthropic/v1/messages"):
        post = paths[path]["post"]
        assert post["requestBody"]["required"], path
        assert post["security"], path
    assert paths["/healthz"]["get"]["security"] == []
    assert "admin" in paths["/admin/keys"]["post"]["description"]
    for path, name in (("/v1/batches", "BatchRequest"), ("/threads/{thread}/runs", "RunBody")):
        content = paths[path]["post"]["requestBody"]["content"]
        assert content["application/json"]["schema"]["$ref"].endswith(f"/{name}")


def test_an_alias_is_described_as_the_path_that_it_stands_for(document) -> None:
    paths = document["paths"]
    aliases = [path for path in paths if ALIAS.match(path)]

    assert len(aliases) > 20
    for path in aliases:
        plain = paths[ALIAS.sub("", path)]
        assert {"tags", "security", "responses"} <= set.union(*map(set, plain.values()))
        for method, operation in paths[path].items():
            assert operation | {"operationId": ""} == plain[method] | {"operationId": ""}, path


@pytest.mark.parametrize("key", ["PERSON_KEY", "ADMIN_KEY", None])
def test_no_request_by_the_document_breaks_anything(service, document, keys, key, by_document):
    def sharpened(case: Any) -> None:
        if key == "PERSON_KEY" and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "sandbox"  # a random name is refused before all else

    seen = by_document(
        service.url,
        document,
        headers={} if key is None else {"authorization": f"Bearer {keys[key]}"},
        exclude=UNSEEN,
        once=ALIAS,
        sharpened=sharpened,
    )

    expected = {None: {200, 401}, "PERSON_KEY": {200, 400, 403}, "ADMIN_KEY": {200, 400, 404}}
    assert seen.total() > 80
    assert seen.keys() >= expected[key], seen
    assert not [line for line in service.logged() if line["level"] == "error"]
