"""What an answer means for a job: ended, or to be attempted again."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.http.exchange import Inside
from penstock.http.inside import InsideCalls
from penstock.jobs.execution import Attempt, RequestExecutor, late_failure, refused
from penstock.jobs.frames import Frames
from penstock.jobs.states import Happening
from penstock.store.jobs import Job


@pytest.mark.parametrize(
    ("status", "code", "happening"),
    [
        (502, "worker_lost", Happening.BROKEN_OFF),
        (503, "draining", Happening.BROKEN_OFF),
        (429, "queue_full", Happening.BROKEN_OFF),
        (429, "upstream_rate_limited", Happening.BROKEN_OFF),
        (500, "internal_error", Happening.BROKEN_OFF),
        (500, "chain_failed", Happening.FAILED),
        (429, "upstream_quota_exhausted", Happening.FAILED),
        (422, "unprocessable", Happening.FAILED),
        (404, "not_found", Happening.FAILED),
        (504, "chain_timeout", Happening.TIMED_OUT),
    ],
)
def test_what_passes_by_itself_is_attempted_again_and_the_rest_ends_the_job(
    status: int, code: str, happening: Happening
) -> None:
    body = {"error": {"code": code, "message": "why"}}
    late = {"status_code": status, "code": code, "message": "why"}
    problem = {"type": f"urn:penstock:error:{code}", "detail": "why"}

    for ending in (
        refused(status, msgspec.json.encode(body)),
        refused(status, msgspec.json.encode(problem)),
        late_failure(msgspec.json.encode(late)),
    ):
        assert (ending.happening, ending.code, ending.message) == (happening, code, "why")


@given(st.binary(max_size=60))
def test_no_answer_is_too_strange_to_be_an_ending(body: bytes) -> None:
    assert refused(400, body).happening is Happening.FAILED
    assert late_failure(body).happening is Happening.BROKEN_OFF


lines = st.text(alphabet="abc: ", max_size=8).map(str.encode)
events = st.lists(st.tuples(st.sampled_from([None, "data", "error"]), lines), max_size=6)


@given(events, st.lists(st.integers(1, 12), max_size=30))
def test_events_are_the_same_however_the_stream_is_cut(told, cuts: list[int]) -> None:
    stream = b": ping\n\n"
    for name, data in told:
        head = b"" if name is None else b"event: " + name.encode() + b"\n"
        stream += head + b"data: " + data + b"\n\n"
    frames, seen = Frames(1000), []
    for cut in [*cuts, len(stream)]:
        piece, stream = stream[:cut], stream[cut:]
        seen += frames.feed(piece)

    assert seen == told


def test_an_event_without_end_is_not_held_without_end() -> None:
    frames = Frames(10)

    assert list(frames.feed(b"data: " + b"x" * 20)) == []
    assert frames.too_large
    assert list(frames.feed(b"\n\ndata: y\n\n")) == []


def _executed(door, attempt: Attempt):
    calls = InsideCalls()
    calls.doors = door
    told = []

    async def emit(name, data) -> None:
        told.append((name, data))

    async def work():
        async with asyncio.timeout(10):
            return await RequestExecutor(calls, 100)(attempt, emit)

    return asyncio.run(work()), told


def _answering(status: int, content_type: str, *pieces: bytes, whole: bool = True):
    async def door(scope) -> None:
        assert isinstance(scope["penstock.inside"], Inside)
        line = scope["state"]["line"]
        line.whole_body()
        line.begin(status, {"content-type": content_type}, None)
        for piece in pieces:
            line.write(piece, is_last=False)
        if whole:
            line.write(b"", is_last=True)

    return door


@pytest.fixture
def attempt(own) -> Attempt:
    job = Job(
        job_id="x",
        tenant="acme",
        key_id="key",
        kind="request",
        chain="c",
        path="/p",
        class_name="batch",
        rank=2,
        thread_id=None,
        details=b"{}",
        body_bytes=2,
        created_at=0.0,
        due_at=0.0,
        deadline=None,
        state="running",
        attempts=2,
        blame=0,
        journaled=0,
        cancel_requested=False,
        started_at=None,
        finished_at=None,
        status=None,
        error_code=None,
        error_message=None,
        events_lost=False,
    )
    return Attempt(job, b"{}", own, 0.0)


def test_a_whole_answer_is_the_result(attempt: Attempt) -> None:
    ending, _ = _executed(_answering(200, "application/json", b"[1,", b"2]"), attempt)

    assert (ending.happening, ending.body) == (Happening.SUCCEEDED, b"[1,2]")


def test_a_result_over_its_bound_ends_the_job(attempt: Attempt) -> None:
    ending, _ = _executed(_answering(200, "application/json", b"x" * 101), attempt)

    assert (ending.happening, ending.code) == (Happening.FAILED, "result_too_large")


def test_a_stream_is_told_event_by_event_under_the_attempts_number(attempt: Attempt) -> None:
    pieces = (b"event: metadata\ndata: {}\n\nevent: data\nda", b"ta: 1\n\nevent: end\n\n")
    ending, told = _executed(_answering(200, "text/event-stream", *pieces), attempt)

    assert ending.happening is Happening.SUCCEEDED
    assert told == [("metadata", b'{"run_id":"x","attempt":2}'), ("data", b"1")]


def test_a_stream_that_breaks_off_is_no_success(attempt: Attempt) -> None:
    broken = _answering(200, "text/event-stream", b"data: 1\n\n", whole=False)

    assert _executed(broken, attempt)[0].happening is Happening.BROKEN_OFF
