"""Batches and files through the SDK of OpenAI, against a real service and the sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

CHAT = "/v1/chat/completions"
ASKED = [{"role": "user", "content": "a"}]


def line(custom_id: str, url: str = CHAT, **body: Any) -> bytes:
    body = body or {"model": "sandbox", "max_tokens": 4, "messages": ASKED}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode()


def client(service: Any, key: str = "acme") -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=service.process.url + "/v1", max_retries=0)


@pytest.fixture
def acme(service: Any) -> Iterator[openai.OpenAI]:
    with client(service) as made:
        yield made


@pytest.fixture
def zeta(service: Any) -> Iterator[openai.OpenAI]:
    with client(service, "zeta") as made:
        yield made


def begun(acme: openai.OpenAI, *lines: bytes, endpoint: str = CHAT, **wishes: Any) -> Any:
    file = acme.files.create(file=("in.jsonl", b"\n".join(lines)), purpose="batch")
    return acme.batches.create(
        input_file_id=file.id,
        endpoint=endpoint,  # type: ignore[arg-type]
        completion_window=wishes.pop("window", "24h"),
        **wishes,
    )


def ended(acme: openai.OpenAI, batch: Any, poll: Callable[..., None]) -> Any:
    poll(
        lambda: (
            acme.batches.retrieve(batch.id).status
            in ("completed", "failed", "cancelled", "expired")
        ),
        60,
    )
    return acme.batches.retrieve(batch.id)


def answers(acme: openai.OpenAI, file_id: str) -> dict[str, Any]:
    texts = acme.files.content(file_id).text.splitlines()
    return {one["custom_id"]: one for one in map(json.loads, texts)}


def test_every_line_is_answered_once_and_bad_ones_are_told(
    acme: openai.OpenAI, poll: Callable[..., None]
) -> None:
    good = [line(f"c{number}") for number in range(20)]
    bad = [
        b"no json",
        line("wrong", url="/v1/embeddings"),
        line("unknown", model="no-such-model", messages=ASKED),
    ]
    streamed = line("streamed", model="sandbox", stream=True, messages=ASKED)
    batch = ended(acme, begun(acme, *good, *bad, streamed, metadata={"a": "b"}), poll)
    told = answers(acme, batch.error_file_id)

    assert batch.status == "completed"
    assert batch.metadata == {"a": "b"}
    assert (batch.request_counts.total, batch.request_counts.completed) == (24, 20)
    assert answers(acme, batch.output_file_id).keys() == {f"c{number}" for number in range(20)}
    assert told.keys() == {None, "wrong", "unknown", "streamed"}
    assert told[None]["error"]["line"] == 21
    assert told["unknown"]["response"]["status_code"] == 404
    assert told["streamed"]["response"]["status_code"] == 400


def test_embeddings_and_chains_run_in_batches_too(
    acme: openai.OpenAI, poll: Callable[..., None]
) -> None:
    embeddings = begun(
        acme,
        line("e", "/v1/embeddings", model="sandbox", input="a"),
        endpoint="/v1/embeddings",
    )
    chain = "/chains/upper/invoke"
    runs = begun(acme, line("r", chain, input="abc"), endpoint=chain)
    embedded = answers(acme, ended(acme, embeddings, poll).output_file_id)
    run = answers(acme, ended(acme, runs, poll).output_file_id)

    assert embedded["e"]["response"]["body"]["data"][0]["embedding"]
    assert run["r"]["response"]["body"]["output"] == "ABC"


def test_a_custom_id_that_comes_twice_fails_the_batch(
    acme: openai.OpenAI, poll: Callable[..., None]
) -> None:
    batch = ended(acme, begun(acme, line("a"), line("a")), poll)

    assert batch.status == "failed"
    assert [(one.code, one.line) for one in batch.errors.data] == [("duplicate_custom_id", 2)]
    assert batch.output_file_id is None


def test_a_cancelled_batch_keeps_what_is_answered(
    service: Any, acme: openai.OpenAI, poll: Callable[..., None]
) -> None:
    chain = "/chains/until/invoke"
    go = service.folder / "at-once"
    go.touch()
    waiting = [line(f"w{number}", chain, input="/nowhere/at/all") for number in range(3)]
    batch = begun(acme, line("done", chain, input=str(go)), *waiting, endpoint=chain)
    poll(lambda: acme.batches.retrieve(batch.id).request_counts.completed == 1)
    acme.batches.cancel(batch.id)
    batch = ended(acme, batch, poll)

    assert batch.status == "cancelled"
    assert batch.cancelling_at is not None
    assert answers(acme, batch.output_file_id).keys() == {"done"}
    with pytest.raises(openai.ConflictError):
        acme.batches.cancel(batch.id)


def test_a_killed_service_goes_on_with_the_lines_that_are_not_answered(
    service: Any, poll: Callable[..., None]
) -> None:
    chain = "/chains/until/invoke"
    first, later = service.folder / "first", service.folder / "later"
    first.touch()
    lines = [line("a", chain, input=str(first)), line("b", chain, input=str(later))]
    with client(service) as before:
        batch = begun(before, *lines, endpoint=chain)
        poll(lambda: before.batches.retrieve(batch.id).request_counts.completed == 1)
        # Seen is not yet stored: only what is on the disk is not asked again.
        poll(lambda: f"batch_req_{batch.id[-8:]}" in stored(service))
    service.kill()
    first.unlink()
    later.touch()
    service.start()
    with client(service) as again:
        batch = ended(again, batch, poll)

        assert batch.status == "completed"
        assert batch.error_file_id is None, again.files.content(batch.error_file_id).text
        assert answers(again, batch.output_file_id).keys() == {"a", "b"}


def stored(service: Any) -> str:
    """What the service's files hold."""
    folder = service.folder / ".penstock" / "files"
    return "".join(path.read_text() for path in folder.iterdir())


def test_a_tenant_sees_its_own_files_and_batches_only(
    acme: openai.OpenAI, zeta: openai.OpenAI
) -> None:
    batch = begun(acme, line("a"))
    for ask in (
        lambda: zeta.batches.retrieve(batch.id),
        lambda: zeta.batches.cancel(batch.id),
        lambda: zeta.files.retrieve(batch.input_file_id),
        lambda: zeta.files.content(batch.input_file_id),
        lambda: zeta.files.delete(batch.input_file_id),
        lambda: zeta.batches.create(
            input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
        ),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert zeta.batches.list().data == []
    assert zeta.files.list().data == []
    assert batch.id in [one.id for one in acme.batches.list()]


def test_files_are_listed_fetched_and_deleted(acme: openai.OpenAI) -> None:
    file = acme.files.create(file=("in.jsonl", b"some bytes"), purpose="batch")

    assert (file.filename, file.bytes, file.purpose) == ("in.jsonl", 10, "batch")
    assert acme.files.content(file.id).read() == b"some bytes"
    assert file.id in [one.id for one in acme.files.list(limit=2)]
    assert acme.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        acme.files.retrieve(file.id)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "/v1/files"},
        {"endpoint": "/chains/../jobs/invoke"},
        {"window": "forever"},
        {"window": "31d"},
        {"metadata": {"a": "x" * 513}},
    ],
)
def test_a_batch_that_breaks_a_rule_is_refused(acme: openai.OpenAI, wrong: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        begun(acme, line("a"), **wrong)


def test_uploads_that_break_a_rule_are_refused(service: Any, acme: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        acme.files.create(file=b"x", purpose="fine-tune")
    url, headers = service.process.url + "/v1/files", {"Authorization": "Bearer acme"}
    plain = httpx.post(url, headers=headers, json={})
    empty = httpx.post(url, headers=headers, data={"purpose": "batch"}, files={"x": b""})

    assert (plain.status_code, empty.status_code) == (415, 400)


def test_the_same_idempotency_key_makes_one_batch_and_one_file(acme: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "upload-1"}
    upload = {"file": ("a", line("a")), "purpose": "batch", "extra_headers": headers}
    files = {acme.files.create(**upload).id for _ in range(2)}
    order = {
        "input_file_id": files.copy().pop(),
        "endpoint": CHAT,
        "completion_window": "24h",
        "extra_headers": {"Idempotency-Key": "batch-1"},
    }
    batches = {acme.batches.create(**order).id for _ in range(2)}

    assert len(files) == len(batches) == 1
    with pytest.raises(openai.UnprocessableEntityError):
        acme.batches.create(**{**order, "completion_window": "1h"})
    with pytest.raises(openai.UnprocessableEntityError):
        acme.files.create(**{**upload, "file": ("a", b"other")})
