"""Each protocol gets errors in its own shape, with the headers that its clients obey."""

from __future__ import annotations

import json

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import errors
from penstock.http.error_body import ErrorShape, render

SHAPES = list(ErrorShape)


def every_error() -> list[errors.CallError]:
    found: list[errors.CallError] = []
    waiting = [errors.CallError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind is errors.UpstreamRejected:
            found += [kind(404, b'{"error":{"message":"theirs"}}'), kind(404, None)]
        else:
            found.append(kind("What is wrong, and the way out."))
    return found


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_error_of_the_tree_has_a_body_in_every_shape(error, shape) -> None:
    status, headers, body = render(error, shape, "request-1")
    assert status == error.status
    document = json.loads(body)
    if isinstance(error, errors.UpstreamRejected) and error.body is not None:
        assert body == error.body
        assert headers["content-type"] == "application/json"
        return
    problem = document["problem_type" if shape is ErrorShape.ANTHROPIC else "type"]
    assert problem == f"urn:penstock:error:{error.code}"
    assert document["title"]
    assert document["status"] == error.status
    assert document["detail"] == error.message
    assert document["instance"] == "request-1"
    assert ("error" in document) == (shape is not ErrorShape.PROBLEM)
    expected = "application/json" if shape is ErrorShape.ANTHROPIC else "application/problem+json"
    assert headers["content-type"] == expected


def _answer(error: errors.CallError, shape: ErrorShape) -> httpx2.MockTransport:
    status, headers, body = render(error, shape, "request-1")
    headers["request-id"] = headers["x-request-id"] = "request-1"
    return httpx2.MockTransport(lambda _: httpx2.Response(status, headers=headers, content=body))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.InvalidRequest("x"), anthropic.BadRequestError),
        (errors.Unauthenticated("x"), anthropic.AuthenticationError),
        (errors.Forbidden("x"), anthropic.PermissionDeniedError),
        (errors.NotFound("x"), anthropic.NotFoundError),
        (errors.QueueFull("x"), anthropic.RateLimitError),
        (errors.InternalError("x"), anthropic.InternalServerError),
    ],
)
def test_the_anthropic_sdk_reads_type_and_message(error, expected) -> None:
    http = httpx2.Client(transport=_answer(error, ErrorShape.ANTHROPIC))
    client = anthropic.Anthropic(api_key="k", max_retries=0, http_client=http)
    with pytest.raises(expected) as caught:
        client.messages.create(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "hello"}]
        )
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["message"] == "x"
    assert caught.value.request_id == "request-1"
    http.close()


def test_anthropics_own_type_names_are_used() -> None:
    names = {
        error.status: json.loads(render(error, ErrorShape.ANTHROPIC, "r")[2])["error"]["type"]
        for error in every_error()
        if not isinstance(error, errors.UpstreamRejected)
    }
    assert names[400] == "invalid_request_error"
    assert names[401] == "authentication_error"
    assert names[403] == "permission_error"
    assert names[404] == "not_found_error"
    assert names[413] == "request_too_large"
    assert names[429] == "rate_limit_error"
    assert names[500] == "api_error"
    assert names[503] == "overloaded_error"


def test_the_openai_error_object_is_whole() -> None:
    error = errors.InvalidRequest("x", param="messages", code="too_many_messages")
    document = json.loads(render(error, ErrorShape.OPENAI, "r")[2])
    assert document["error"] == {
        "message": "x",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "too_many_messages",
    }


def test_the_openai_sdk_reads_code_param_and_message() -> None:
    error = errors.NotFound("No model 'x'.", param="model", code="model_not_found")
    http = httpx2.Client(transport=_answer(error, ErrorShape.OPENAI))
    client = openai.OpenAI(api_key="k", max_retries=0, http_client=http)
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "No model 'x'." in caught.value.message
    assert caught.value.request_id == "request-1"
    http.close()


@given(seconds=st.floats(0.0, 1e6), jitter=st.floats(0, 1))
def test_a_full_queue_says_when_to_come_back_with_jitter(seconds: float, jitter: float) -> None:
    error = errors.QueueFull("full", retry_after_seconds=seconds)
    _, headers, _ = render(error, ErrorShape.OPENAI, "r", jitter=jitter)
    milliseconds = int(headers["retry-after-ms"])
    assert seconds * 1000 <= milliseconds <= max(seconds * 1250, 0) + 1
    assert int(headers["retry-after"]) * 1000 >= milliseconds
    assert headers["x-should-retry"] == "true"


def test_jitter_spreads_callers() -> None:
    error = errors.Draining("stopping", retry_after_seconds=4.0)
    waits = {
        render(error, ErrorShape.OPENAI, "r", jitter=j / 10)[1]["retry-after-ms"] for j in range(11)
    }
    assert len(waits) == 11


def test_an_unreachable_deadline_is_not_to_be_retried_and_says_the_eta() -> None:
    error = errors.DeadlineUnreachable("too late", eta_seconds=12.34567)
    status, headers, body = render(error, ErrorShape.OPENAI, "r")
    assert status == 429
    assert headers["x-should-retry"] == "false"
    assert not {"retry-after", "retry-after-ms"} & set(headers)
    assert json.loads(body)["eta_seconds"] == 12.346


def test_only_a_missing_key_is_challenged() -> None:
    for error in every_error():
        headers = render(error, ErrorShape.OPENAI, "r")[1]
        assert ("www-authenticate" in headers) == isinstance(error, errors.Unauthenticated)


@given(st.text(alphabet=st.characters(), max_size=50) | st.just("\ud800" * 5000))
def test_any_message_gives_a_bounded_body_that_is_utf8(message: str) -> None:
    for shape in SHAPES:
        body = render(errors.InvalidRequest(message, param=message), shape, "r")[2]
        json.loads(body.decode("utf-8"))
        assert len(body) < 80_000
