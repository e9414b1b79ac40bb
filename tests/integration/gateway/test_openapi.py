"""Requests made from our own description of the service: none of them breaks it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS

EXAMPLES = 8
CHECKED = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
LEAKS = re.compile(rb"Traceback|File \"|upstream-key|\bat 0x[0-9a-f]{6}|penstock\.[a-z_]+\.[a-z_]+")
NOT_SERVED = 501
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
def test_no_request_by_the_document_breaks_anything(service, document, keys, key) -> None:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=service.url)
    schema = schema.exclude(path_regex=UNSEEN)
    checks = [one for one in CHECKS.get_all() if one.__name__ in CHECKED]
    assert len(checks) == len(CHECKED)
    headers = {} if key is None else {"x-api-key": keys[key]}
    seen: Counter[int] = Counter()

    for operation in (found.ok() for found in schema.get_all_operations()):
        count = EXAMPLES if operation.body and key else 2
        count = 1 if ALIAS.match(operation.path) else count

        @given(case=operation.as_strategy())
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def answered(case: Any) -> None:
            if key == "PERSON_KEY" and isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = "sandbox"  # a random name is refused before all else
            answer = case.call(headers=headers, timeout=20)
            seen[answer.status_code] += 1
            case.validate_response(answer, checks=checks)
            assert answer.status_code < 500 or answer.status_code == NOT_SERVED, answer.content
            assert not LEAKS.search(answer.content), answer.content

        answered()

    expected = {None: {200, 401}, "PERSON_KEY": {200, 400, 403}, "ADMIN_KEY": {200, 400, 404}}
    assert seen.total() > 80
    assert seen.keys() >= expected[key], seen
    assert not [line for line in service.logged() if line["level"] == "error"]
