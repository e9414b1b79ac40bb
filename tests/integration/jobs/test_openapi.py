"""Requests made from our own description of chains, jobs and the Agent Server protocol."""

from __future__ import annotations

import itertools
import re
from typing import Any

ELSEWHERE = r"^(?!/(chains|jobs|runs|threads|assistants|webhooks)\b)|playground"
NOT_SERVED = re.compile(
    r".*/(crons|commands|copy|prune|stream\{rest\})|/runs/cancel|/assistants$"
    r"|.*/(graph|subgraphs|versions|latest)"
)


class Sharpened:
    """Every other request is for what there is: at random only what there is not is found."""

    def __init__(self, service: Any) -> None:
        self._turn = itertools.count()
        _, _, thread = service.ask("POST", "/threads", {})
        talk = {"assistant_id": "talk", "input": {"messages": [{"role": "user", "content": "Hi"}]}}
        place = f"/threads/{thread['thread_id']}/runs"
        service.ask("POST", place + "/wait", talk)
        _, _, runs = service.ask("GET", place)
        self._names = {
            "thread": thread["thread_id"],
            "run": runs[0]["run_id"],
            "job": service.later("upper", "text").rpartition("/")[2],
            "assistant": "review",
            "name": "upper",
        }

    def __call__(self, case: Any) -> None:
        if case.method == "DELETE" or next(self._turn) % 2:
            return
        case.path_parameters |= {
            name: self._names[name] for name in case.path_parameters if name in self._names
        }
        for body in case.body if isinstance(case.body, list) else [case.body]:
            if isinstance(body, dict) and "assistant_id" in body:
                body["assistant_id"] = "talk"
            if isinstance(body, dict) and "webhook" in body:
                body["webhook"] = None


def test_no_request_by_the_document_breaks_anything(service, by_document) -> None:
    status, _, document = service.ask("GET", "/openapi.json")
    assert status == 200
    bodies = [
        path
        for path, operations in document["paths"].items()
        if "requestBody" in operations.get("post", {})
    ]
    assert {"/chains/{name}/batch", "/runs/batch", "/threads/search", "/assistants/count"} <= {
        *bodies
    }

    seen = by_document(
        service.process.url,
        document,
        headers={"authorization": "Bearer acme"},
        exclude=ELSEWHERE,
        once=NOT_SERVED,
        sharpened=Sharpened(service),
        examples=12,
    )

    assert {status for _, status in seen} >= {200, 404, 422}, seen
    assert seen.total() > 200
    asked = [
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if any(one["in"] == "query" for one in operation.get("parameters", ()))
        and not re.search(ELSEWHERE, path)
    ]
    assert len(asked) > 8
    assert not [operation for operation in asked if not seen[operation, 200]]
    errors = [line["message"] for line in service.process.logged() if line["level"] == "error"]
    # A graph that is given nothing fails: the chain's own fault, and said as such.
    assert not [line for line in errors if ": chain talk failed: " not in line]
