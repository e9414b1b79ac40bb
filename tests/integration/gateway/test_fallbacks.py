"""Other models answer where one cannot; deployments that fail are left for those that do not."""

from __future__ import annotations

import httpx
import openai
import pytest

CONFIG = """
[workers]
count = 0
[providers.one]
kind = "openai"
base_url = "{one}/v1"
key_env = "UPSTREAM_KEY"
[providers.two]
kind = "openai"
base_url = "{two}/v1"
key_env = "UPSTREAM_KEY"
[deployments.large]
provider = "one"
model = "sandbox"
serves = ["large", "shared"]
rpm = 6_000
[deployments.small]
provider = "two"
model = "sandbox"
serves = ["small", "shared"]
rpm = 6_000
[models.large]
fallbacks = ["small"]
[keys.web]
tenant = "web"
class = "interactive"
admin = true
key_env = "WEB_KEY"
[keys.narrow]
tenant = "narrow"
models = ["large"]
key_env = "NARROW_KEY"
"""
WEB, NARROW = "web-key-with-enough-letters", "narrow-key-with-enough-letters"
MESSAGES = [{"role": "user", "content": "Tell me of rivers."}]


@pytest.fixture
def sandboxes(fast_sandbox):
    return fast_sandbox(), fast_sandbox()


@pytest.fixture
def service(sandboxes, serve):
    one, two = sandboxes
    config = CONFIG.replace("{one}", one.url).replace("{two}", two.url)
    return serve(config, WEB_KEY=WEB, NARROW_KEY=NARROW, UPSTREAM_KEY="sk-up")


@pytest.fixture
def client(service):
    with openai.OpenAI(api_key=WEB, base_url=f"{service.url}/v1", max_retries=0) as made:
        yield made


def ask(client, model="large", **fields):
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=MESSAGES, extra_body=fields
    )
    return raw.headers["penstock-model"], raw.headers["penstock-deployment"]


def trouble_of(service, name):
    _, shown = service.get("/admin/live", WEB)
    return {one["name"]: one["trouble"] for one in shown["deployments"]}[name]


@pytest.mark.parametrize("fault", ["400-context", "500", "401", "429-quota"])
def test_another_model_answers_where_the_one_asked_for_cannot(client, sandboxes, fault):
    assert ("large", "large") == ask(client)
    sandboxes[0].post("/faults", {"faults": [fault], "calls": 100})
    assert ("small", "small") == ask(client)
    chunks = client.chat.completions.create(model="large", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize("fault", ["html", "empty", "null", "truncated-json", "bad-gzip"])
def test_an_answer_that_is_none_is_asked_for_at_another_deployment(client, sandboxes, fault):
    """One of the same model first; another model where there is none. Never at the same again."""
    sandboxes[0].post("/faults", {"faults": [fault], "calls": 100})
    assert {("shared", "small")} == {ask(client, "shared") for _ in range(4)}
    before = sandboxes[0].get("/stats")[1]["calls"]
    assert ("small", "small") == ask(client, "large")
    assert 1 == sandboxes[0].get("/stats")[1]["calls"] - before


def test_a_deployment_whose_answers_are_none_is_left(client, service, sandboxes):
    sandboxes[0].post("/faults", {"faults": ["empty"], "calls": 5})
    for _ in range(5):
        with pytest.raises(openai.InternalServerError) as failed:
            ask(client, "large", disable_fallbacks=True)
        assert "upstream_invalid" == failed.value.code
    assert "failing" == trouble_of(service, "large")
    assert {("shared", "small")} == {ask(client, "shared") for _ in range(6)}


def test_who_refuses_fallbacks_or_may_not_use_them_gets_the_first_model_s_error(
    client, service, sandboxes
):
    sandboxes[0].post("/faults", {"faults": ["400-context"], "calls": 100})
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, disable_fallbacks=True)
    assert "context_length_exceeded" == refused.value.code
    narrow = openai.OpenAI(api_key=NARROW, base_url=f"{service.url}/v1", max_retries=0)
    with narrow, pytest.raises(openai.BadRequestError):
        ask(narrow)
    assert 0 == sandboxes[1].get("/stats")[1]["calls"]


def test_what_is_no_outage_leads_nowhere_else(client, sandboxes):
    sandboxes[0].post("/faults", {"faults": ["429"], "calls": 1})
    assert ("large", "large") == ask(client)
    before = sandboxes[1].get("/stats")[1]["calls"]
    with pytest.raises(openai.BadRequestError):
        ask(client, temperature="warm", max_tokens=0)
    assert before == sandboxes[1].get("/stats")[1]["calls"]


def test_a_deadline_that_cannot_be_met_is_met_by_another_model(fast_sandbox, serve):
    one, two = fast_sandbox("--rpm", "6", "--burst-seconds", "10"), fast_sandbox()
    config = CONFIG.replace("{one}", one.url).replace("{two}", two.url)
    config = config.replace("rpm = 6_000", "rpm = 6\nburst_seconds = 10", 1)
    service = serve(config, WEB_KEY=WEB, NARROW_KEY=NARROW, UPSTREAM_KEY="sk-up")
    headers = {"authorization": f"Bearer {WEB}", "prefer": "wait=2"}
    body = {"model": "large", "messages": MESSAGES}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as http:
        asked = [http.post("/v1/chat/completions", json=body) for _ in range(3)]
    assert [200] * 3 == [answer.status_code for answer in asked]
    assert "small" == asked[-1].headers["penstock-model"]


def test_a_key_that_is_refused_is_left_for_another_deployment_and_shown(client, service, sandboxes):
    sandboxes[0].post("/faults", {"faults": ["401"], "calls": 100})
    assert {("shared", "small")} == {ask(client, "shared") for _ in range(6)}
    assert ("key_refused", "") == (trouble_of(service, "large"), trouble_of(service, "small"))
    assert any("refused our key" in line["message"] for line in service.logged())


def test_waiting_for_a_model_that_goes_down_ends_with_another(client, sandboxes):
    """Five failures take it out; from then on nobody waits for it who need not."""
    sandboxes[0].post("/faults", {"faults": ["503"], "calls": 1000})
    assert {("small", "small")} == {ask(client) for _ in range(12)}
    assert sandboxes[0].get("/stats")[1]["calls"] < 12


def test_a_key_is_rotated_without_a_restart(fast_sandbox, serve, tmp_path, poll):
    """The file is noticed; a deployment that was out for its key is back."""
    one = fast_sandbox()
    key_file = tmp_path / "key"
    key_file.write_text("sk-number-1111")
    key_file.chmod(0o600)
    config = CONFIG.replace("{one}", one.url).replace("{two}", one.url)
    config = config.replace('key_env = "UPSTREAM_KEY"', f'key_file = "{key_file}"', 1)
    service = serve(config, WEB_KEY=WEB, NARROW_KEY=NARROW, UPSTREAM_KEY="sk-up")

    def last_key():
        ask(made)
        return one.get("/stats?calls=1")[1]["last_calls"][-1]["key"]

    with openai.OpenAI(api_key=WEB, base_url=f"{service.url}/v1", max_retries=0) as made:
        assert last_key().endswith("1111")
        one.post("/faults", {"faults": ["401", None], "calls": 2})
        assert ("small", "small") == ask(made)
        key_file.write_text("sk-number-22222")
        poll(lambda: last_key().endswith("2222"))
        assert ("large", "large") == ask(made)
        key_file.write_text("no key at all")
        poll(lambda: any("stays as it was" in line["message"] for line in service.logged()))
        assert last_key().endswith("2222")
