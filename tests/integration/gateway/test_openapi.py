"""Requests made from our own description of the service: none of them breaks it."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from typing import Any

import httpx
import pytest

UNSEEN = r"^/playground|^/(metrics|live)|\.(js|css|html|svg)$"
DESCRIBED = re.compile(r"^/(admin|v1/files|v1/batches)\b")
BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
CALL = {"model": "sandbox", "messages": [{"role": "user", "content": "Hi"}]}


def lines(count: int) -> bytes:
    """A file of so many calls."""
    line = {"method": "POST", "url": BATCH["endpoint"], "body": CALL}
    return b"\n".join(json.dumps({"custom_id": f"{n}", **line}).encode() for n in range(count))


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


class Sharpened:
    """Every other request is for what there is: at random only what there is not is found."""

    def __init__(self, client: httpx.Client, *, is_admin: bool) -> None:
        self._client = client
        self._turns: Counter[str] = Counter()
        self._number = itertools.count()
        self._is_admin = is_admin
        self._batches = itertools.cycle([self._batch(lines(1)), self._batch(b"no line")])

    def _file(self, content: bytes) -> str:
        form = {"files": {"file": ("lines.jsonl", content)}, "data": {"purpose": "batch"}}
        return str(self._client.post("/v1/files", **form).json()["id"])

    def _batch(self, content: bytes) -> str:
        wanted = {**BATCH, "input_file_id": self._file(content)}
        return str(self._client.post("/v1/batches", json=wanted).json()["id"])

    def _name(self, path: str) -> str:
        name = f"made{next(self._number)}"
        if path.startswith("/admin/keys"):
            self._client.post("/admin/keys", json={"name": name, "tenant": "web"})
        else:
            self._client.patch(f"/admin/tenants/{name}", json={"weight": 2})
        return name

    def __call__(self, case: Any) -> None:
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "sandbox"  # a random name is refused before all else
        self._turns[case.operation.label] += 1
        if self._turns[case.operation.label] % 2 == 0:
            return
        if "file" in case.path_parameters:
            case.path_parameters["file"] = self._file(lines(1))
        if "batch" in case.path_parameters:
            is_cancel = case.path.endswith("/cancel")  # which needs one that has not ended
            case.path_parameters["batch"] = (
                self._batch(lines(1000)) if is_cancel else next(self._batches)
            )
        if "name" in case.path_parameters and self._is_admin:
            case.path_parameters["name"] = self._name(case.path)
        for moment in case.query.keys() & {"since", "until"}:
            case.query[moment] = "2d"
        if case.path == "/v1/batches" and case.method == "POST":
            case.body = {
                **BATCH,
                "input_file_id": self._file(lines(1)),
                "metadata": {"of": "a test"},
            }
        if case.path == "/admin/keys" and case.method == "POST":
            case.body = {"name": f"made{next(self._number)}", "tenant": "web"}
        if case.path.startswith("/admin/keys/") and case.method in ("PATCH", "POST"):
            case.body = {}
        if case.path.startswith("/admin/tenants/") and case.method in ("PATCH", "PUT"):
            case.body = {"rpm": 60.0, "budget_hard": False}


@pytest.mark.parametrize("key", ["PERSON_KEY", "ADMIN_KEY", None])
def test_no_request_by_the_document_breaks_anything(service, document, keys, key, by_document):
    headers = {} if key is None else {"authorization": f"Bearer {keys[key]}"}
    with httpx.Client(base_url=service.url, headers=headers) as client:
        seen = by_document(
            service.url,
            document,
            headers=headers,
            exclude=UNSEEN,
            once=ALIAS,
            sharpened=Sharpened(client, is_admin=key == "ADMIN_KEY") if key else lambda _case: None,
        )

    expected = {None: {200, 401}, "PERSON_KEY": {200, 400, 403}, "ADMIN_KEY": {200, 400, 404}}
    assert seen.total() > 80
    assert {status for _, status in seen} >= expected[key], seen
    if key == "ADMIN_KEY":
        described = [
            f"{method.upper()} {path}"
            for path, operations in document["paths"].items()
            for method in operations
            if DESCRIBED.match(path)
        ]
        answered = {operation for operation, status in seen if status in (200, 201)}
        assert len(described) > 20
        assert {*described} <= answered, {*described} - answered
    assert not [line for line in service.logged() if line["level"] == "error"]


def test_a_query_and_a_form_are_described(document) -> None:
    usage = document["paths"]["/admin/usage"]["get"]["parameters"]
    upload = document["paths"]["/openai/v1/files"]["post"]["requestBody"]["content"]

    assert [one["name"] for one in usage] == ["group_by", "since", "until", "format"]
    assert upload.keys() == {"multipart/form-data"}
