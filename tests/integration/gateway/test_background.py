"""Background responses by the unmodified SDK: accepted means stored, across a restart, too."""

from __future__ import annotations

import signal

import openai
import pytest

CONFIG = """
[workers]
count = 0
[store]
path = "{store}"
[providers.one]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
[deployments.one]
provider = "one"
model = "sandbox"
rpm = 6_000
[keys.web]
tenant = "web"
class = "interactive"
key_env = "WEB_KEY"
[keys.other]
tenant = "other"
key_env = "OTHER_KEY"
"""
WEB, OTHER = "web-key-with-enough-letters", "other-key-with-enough-letters"


@pytest.fixture
def start(serve, tmp_path):
    def one(sandbox):
        config = CONFIG.replace("{url}", sandbox.url).replace("{store}", str(tmp_path / "store"))
        return serve(config, WEB_KEY=WEB, OTHER_KEY=OTHER, UPSTREAM_KEY="sk-up")

    return one


def client(service, key=WEB):
    return openai.OpenAI(api_key=key, base_url=f"{service.url}/v1", max_retries=0)


def test_it_is_answered_at_once_and_there_when_it_is_asked_for(start, fast_sandbox, poll):
    service = start(fast_sandbox())
    with client(service) as mine, client(service, OTHER) as theirs:
        raw = mine.responses.with_raw_response.create(
            model="sandbox", input="Tell me of rivers.", background=True
        )
        accepted = raw.parse()
        assert accepted.status in {"queued", "in_progress"}
        poll(lambda: mine.responses.retrieve(accepted.id).status == "completed")
        done = mine.responses.retrieve(accepted.id)
        now = mine.responses.create(model="sandbox", input="Tell me of rivers.")
        assert (accepted.id, now.output_text) == (done.id, done.output_text)
        assert done.background
        assert done.usage.output_tokens > 0

        again = mine.responses.create(
            model="sandbox", input="And lakes?", previous_response_id=done.id
        )
        assert again.output_text
        with pytest.raises(openai.NotFoundError):
            theirs.responses.retrieve(done.id)
        with pytest.raises(openai.BadRequestError):
            theirs.responses.create(model="sandbox", input="x", previous_response_id=done.id)

        told = list(mine.responses.retrieve(accepted.id, stream=True))
        assert "response.completed" == told[-1].type
        assert done.output_text == told[-1].response.output_text
        mine.responses.delete(done.id)
        with pytest.raises(openai.NotFoundError):
            mine.responses.retrieve(done.id)


def test_it_can_be_streamed_and_cancelled(start, fast_sandbox):
    sandbox = fast_sandbox()
    service = start(sandbox)
    with client(service) as mine:
        events = list(
            mine.responses.create(model="sandbox", input="Hi", background=True, stream=True)
        )
        assert ["response.created", "response.completed"] == [events[0].type, events[-1].type]
        sandbox.post("/faults", {"faults": ["stall"], "calls": 5})
        waiting = mine.responses.create(model="sandbox", input="Hi", background=True)
        assert "cancelled" == mine.responses.cancel(waiting.id).status
        with pytest.raises(openai.NotFoundError):
            mine.responses.create(model="nobody", input="Hi", background=True)


def test_what_was_accepted_survives_a_kill(start, fast_sandbox, poll):
    sandbox = fast_sandbox()
    sandbox.post("/faults", {"faults": ["stall"], "calls": 1})
    first = start(sandbox)
    with client(first) as mine:
        accepted = mine.responses.create(model="sandbox", input="Hi", background=True)
        poll(lambda: mine.responses.retrieve(accepted.id).status == "in_progress")
        poll(lambda: sandbox.get("/stats")[1]["in_flight"] == 1)  # the one that stalls
    first.stop(signal.SIGKILL)
    second = start(sandbox)
    with client(second) as mine:
        poll(lambda: mine.responses.retrieve(accepted.id).status == "completed")
        assert mine.responses.retrieve(accepted.id).output_text
