"""What happens to a call between its caller and its provider: order, faults, hang-ups."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest

CONFIG = """
[workers]
count = 0
[providers.up]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
idle_timeout_seconds = 2
[providers.messages]
kind = "anthropic"
base_url = "{url}"
key_env = "UPSTREAM_KEY"
idle_timeout_seconds = 2
[deployments.one]
provider = "up"
model = "sandbox"
rpm = {rpm}
burst_seconds = {burst}
[deployments.two]
provider = "messages"
model = "sandbox"
rpm = {rpm}
burst_seconds = {burst}
[deployments.other]
provider = "up"
[keys.person]
tenant = "web"
class = "interactive"
key_env = "PERSON_KEY"
[keys.nightly]
tenant = "nightly"
class = "batch"
ceiling = "batch"
key_env = "NIGHTLY_KEY"
[keys.narrow]
tenant = "narrow"
models = ["other"]
key_env = "NARROW_KEY"
"""
KEYS = {
    "UPSTREAM_KEY": "upstream-key-that-nobody-sees",
    "PERSON_KEY": "person-key-with-enough-letters",
    "NIGHTLY_KEY": "nightly-key-with-enough-letters",
    "NARROW_KEY": "narrow-key-with-enough-letters",
}
PERSON, NIGHTLY, NARROW = KEYS["PERSON_KEY"], KEYS["NIGHTLY_KEY"], KEYS["NARROW_KEY"]
CALL = {"model": "sandbox", "messages": [{"role": "user", "content": "Say it in 8 words."}]}


def client(running, key=PERSON, **options):
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=running.url, headers=headers, timeout=30, **options)


def ask(running, key=PERSON):
    """One call, and its answer."""
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{running.url}/v1/chat/completions"
    return httpx.post(url, json=CALL, headers=headers, timeout=30)


def outstanding(running) -> int:
    """Reservations that have not ended, and units that wait."""
    text = httpx.get(f"{running.url}/metrics").text
    waiting = [line for line in text.splitlines() if line.startswith("penstock_units_waiting{")]
    return sum(int(float(line.split()[-1])) for line in waiting)


@pytest.fixture(scope="module")
def pair(fast_sandbox, serve):
    """A service and its provider, with room enough."""
    sandbox = fast_sandbox("--rpm", "60000")
    service = serve(CONFIG.format(url=sandbox.url, rpm=60_000, burst=60), **KEYS)
    return service, sandbox


@pytest.fixture
def tight(fast_sandbox, serve):
    """``tight(rpm, burst)``: a service and its provider, both with this limit."""

    def start(rpm, burst):
        sandbox = fast_sandbox("--rpm", str(rpm), "--burst-seconds", str(burst))
        return serve(CONFIG.format(url=sandbox.url, rpm=rpm, burst=burst), **KEYS), sandbox

    return start


def test_pressure_is_a_wait_and_never_a_429(tight):
    service, sandbox = tight(rpm=1_200, burst=0.5)

    async def go():
        async with client(service) as http:
            calls = [http.post("/v1/chat/completions", json=CALL) for _ in range(40)]
            return await asyncio.gather(*calls)

    answers = asyncio.run(go())

    assert {200} == {answer.status_code for answer in answers}
    assert max(int(answer.headers["penstock-wait-ms"]) for answer in answers) >= 500
    # A busy machine holds up some calls on their way, so that those behind them come too close.
    by_status = sandbox.get("/stats")[1]["by_status"]
    assert 40 == by_status["200"]
    assert by_status.get("429", 0) <= 2, "the provider had next to nothing to refuse"


def test_a_person_goes_before_the_batch_that_was_there_first(tight):
    service, _ = tight(rpm=600, burst=1)

    async def go():
        async with client(service, NIGHTLY) as nightly, client(service) as person:
            batch = [
                asyncio.create_task(nightly.post("/v1/chat/completions", json=CALL))
                for _ in range(30)
            ]
            await asyncio.wait(batch, return_when=asyncio.FIRST_COMPLETED)
            answer = await person.post("/v1/chat/completions", json=CALL)
            ahead = sum(task.done() for task in batch)
            await asyncio.gather(*batch)
            return answer, ahead

    answer, ahead = asyncio.run(go())

    assert 200 == answer.status_code
    assert "interactive" == answer.headers["penstock-class"]
    assert ahead < 29, "the batch was still waiting when the person had the answer"


def test_a_key_never_rises_above_its_ceiling(pair):
    service, _ = pair

    async def go():
        async with client(service, NIGHTLY) as http:
            wishes = [
                http.post("/v1/chat/completions", json=CALL, headers={"Priority": "u=0"}),
                http.post("/v1/chat/completions", json={**CALL, "priority": -5}),
                http.post("/v1/chat/completions", json={**CALL, "service_tier": "priority"}),
            ]
            return await asyncio.gather(*wishes)

    assert ["batch"] * 3 == [answer.headers["penstock-class"] for answer in asyncio.run(go())]


@pytest.mark.parametrize("fault", ["429", "429-bare", "429-nonsense", "500", "503", "529"])
def test_a_failing_provider_is_asked_again_and_the_caller_sees_the_answer(pair, fault):
    service, sandbox = pair
    sandbox.post("/faults", {"faults": [fault], "calls": 1})

    answer = ask(service)

    assert 200 == answer.status_code
    assert answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("fault", ["reset-before", "reset-mid-stream"])
def test_a_plain_call_survives_a_reset(pair, fault):
    service, sandbox = pair
    sandbox.post("/faults", {"faults": [fault], "calls": 1})

    answer = ask(service)

    assert 200 == answer.status_code


def test_a_500_that_stays_reaches_the_caller_after_three_attempts(pair):
    service, sandbox = pair
    before = sandbox.get("/stats")[1]["by_status"].get("500", 0)
    sandbox.post("/faults", {"faults": ["500"], "calls": 3})

    answer = ask(service)

    assert 502 == answer.status_code
    assert "upstream_unavailable" == answer.json()["error"]["code"]
    assert 3 == sandbox.get("/stats")[1]["by_status"]["500"] - before


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("429-quota", 429, "upstream_quota_exhausted"),
        ("401", 502, "upstream_auth"),
        ("html", 502, "upstream_invalid"),
        ("empty", 502, "upstream_invalid"),
        ("truncated-json", 502, "upstream_invalid"),
        ("gzip-bomb", 502, "upstream_invalid"),
    ],
)
def test_what_waiting_cannot_mend_reaches_the_caller_by_name(pair, fault, status, code):
    service, sandbox = pair
    sandbox.post("/faults", {"faults": [fault], "calls": 1})

    answer = ask(service)

    assert (status, code) == (answer.status_code, answer.json()["error"]["code"])
    assert "false" == answer.headers.get("x-should-retry", "false")


@pytest.mark.parametrize(
    ("path", "ending"),
    [("/v1/chat/completions", b'"code":"upstream_'), ("/v1/messages", b"event: error")],
)
@pytest.mark.parametrize("fault", ["reset-mid-stream", "stall-mid-stream"])
def test_a_stream_that_breaks_off_ends_with_the_protocol_s_error(pair, path, ending, fault):
    service, sandbox = pair
    sandbox.post("/faults", {"faults": [fault], "calls": 1})
    body = {**CALL, "stream": True, "max_tokens": 40}

    answer = httpx.post(
        f"{service.url}{path}", json=body, headers={"x-api-key": PERSON}, timeout=30
    )

    assert 200 == answer.status_code
    assert ending in answer.content
    assert b"[DONE]" not in answer.content
    assert b"message_stop" not in answer.content
    assert b'finish_reason":"stop"' not in answer.content


def test_a_caller_who_hangs_up_while_waiting_leaves_the_queue(tight, poll):
    service, sandbox = tight(rpm=6, burst=10)

    async def go():
        async with client(service) as http:
            await http.post("/v1/chat/completions", json=CALL)
            waiting = asyncio.create_task(http.post("/v1/chat/completions", json=CALL))
            await asyncio.to_thread(poll, lambda: outstanding(service) == 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.to_thread(poll, lambda: outstanding(service) == 0, 1.0)

    asyncio.run(go())

    assert 1 == sandbox.get("/stats")[1]["calls"], "the second call was never sent"
    poll(lambda: any(line.get("outcome") == "cancelled_waiting" for line in service.logged()))


def test_a_caller_who_hangs_up_mid_stream_stops_the_provider(running, serve, poll):
    sandbox = running("sandbox", "--port", "0", "--latency-ms", "0", "--tokens-per-second", "20")
    service = serve(CONFIG.format(url=sandbox.url, rpm=600, burst=60), **KEYS)

    async def go():
        body = {**CALL, "stream": True, "messages": [{"role": "user", "content": "In 400 words"}]}
        async with (
            client(service) as http,
            http.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            async for _ in answer.aiter_bytes():
                break

    asyncio.run(go())

    poll(lambda: sandbox.get("/stats")[1]["cancelled"] == 1, 2.0)
    poll(lambda: any(line.get("outcome") == "cancelled_sent" for line in service.logged()))


def test_a_deadline_that_cannot_be_met_is_refused_at_once_with_the_time_it_would_take(tight):
    service, _ = tight(rpm=6, burst=10)

    async def go():
        async with client(service) as http:
            await http.post("/v1/chat/completions", json=CALL)
            return await http.post("/v1/chat/completions", json=CALL, headers={"Prefer": "wait=2"})

    answer = asyncio.run(go())

    assert (429, "deadline_unreachable") == (answer.status_code, answer.json()["error"]["code"])
    assert "false" == answer.headers["x-should-retry"]
    assert "retry-after" not in answer.headers
    assert 5 < answer.json()["eta_seconds"] < 11


def test_a_key_may_call_only_its_models(pair):
    service, _ = pair
    answer = ask(service, NARROW)
    assert (403, "model_forbidden") == (answer.status_code, answer.json()["error"]["code"])


def test_sigterm_lets_calls_under_way_end_and_takes_no_new_ones(running, serve, poll):
    sandbox = running("sandbox", "--port", "0", "--latency-ms", "1500")
    service = serve(CONFIG.format(url=sandbox.url, rpm=600, burst=60), **KEYS)

    async def go():
        async with client(service) as http:
            under_way = asyncio.create_task(http.post("/v1/chat/completions", json=CALL))
            await asyncio.to_thread(poll, lambda: sandbox.get("/stats")[1]["in_flight"] == 1)
            service.process.send_signal(signal.SIGTERM)
            return await under_way

    answer = asyncio.run(go())

    assert 200 == answer.status_code
    assert 0 == service.process.wait(timeout=20)


def test_sighup_takes_a_good_file_and_refuses_a_bad_one(tmp_path, fast_sandbox, running, poll):
    sandbox = fast_sandbox("--rpm", "60000")
    good = CONFIG.format(url=sandbox.url, rpm=600, burst=60)
    file = tmp_path / "penstock.toml"
    file.write_text(good)
    service = running("serve", "--config", str(file), "--port", "0", **KEYS)

    def models() -> list[str]:
        return [model["id"] for model in service.get("/v1/models", PERSON)[1]["data"]]

    assert ["other", "sandbox"] == models()
    file.write_text(good.replace('model = "sandbox"', 'model = "sandbox"\nserves = ["mine"]', 1))
    service.process.send_signal(signal.SIGHUP)
    poll(lambda: models() == ["mine", "other"])
    file.write_text(good + "\n[keys.broken]\ntenant = 5\n")
    service.process.send_signal(signal.SIGHUP)
    poll(lambda: any("reload refused" in line["message"] for line in service.logged()))

    assert ["mine", "other"] == models(), "the old configuration goes on"


def test_neither_keys_nor_prompts_reach_the_log(pair):
    service, sandbox = pair
    marker = "a-prompt-that-is-nobodys-business"
    body = {**CALL, "messages": [{"role": "user", "content": marker}]}
    sandbox.post("/faults", {"faults": ["401"], "calls": 1})
    for _ in range(2):
        httpx.post(f"{service.url}/v1/chat/completions", json=body, headers={"x-api-key": PERSON})

    log = service.log.read_text()
    assert marker not in log
    for key in KEYS.values():
        assert key not in log
