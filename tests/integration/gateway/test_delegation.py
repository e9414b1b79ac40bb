"""A key that acts for other tenants: named as stock clients name an organisation, and only then."""

from __future__ import annotations

import json

import anthropic
import httpx
import openai
import pytest

CONFIG = """
[workers]
count = 0
[store]
path = "{store}"
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
[providers.anthropic]
kind = "anthropic"
base_url = "{url}"
key_env = "UPSTREAM_KEY"
[deployments.one]
provider = "openai"
model = "sandbox"
tpm = 1_000_000
[deployments.two]
provider = "anthropic"
model = "sandbox"
itpm = 1_000_000
[tenants.team]
rpm = 777
[tenants.poor]
budget_day_tokens = 0
[tenants."org-Ours"]
[keys.hub]
tenant = "platform"
acts_for = ["team", "poor"]
ceiling = "standard"
key_env = "HUB_KEY"
[keys.every]
tenant = "platform"
acts_for = ["*"]
key_env = "EVERY_KEY"
[keys.team]
tenant = "team"
key_env = "TEAM_KEY"
[keys.boss]
tenant = "operators"
admin = true
key_env = "BOSS_KEY"
"""
NAMES = ("hub", "every", "team", "boss")
KEYS = {name: f"{name}-key-with-letters" for name in NAMES}
BODY = {"model": "sandbox", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
HEADER = "OpenAI-Organization"


@pytest.fixture(scope="module")
def service(fast_sandbox, serve, tmp_path_factory):
    store = tmp_path_factory.mktemp("delegation") / "store"
    config = CONFIG.replace("{url}", fast_sandbox().url).replace("{store}", str(store))
    environment = {f"{name.upper()}_KEY": key for name, key in KEYS.items()}
    return serve(config, UPSTREAM_KEY="x", **environment)


@pytest.fixture
def client(service):
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def call(client: httpx.Client, key: str, tenant: str | None = None, **more: str) -> httpx.Response:
    named = {} if tenant is None else {HEADER: tenant}
    headers = {"x-api-key": KEYS.get(key, key), **named, **more}
    return client.post("/v1/chat/completions", json=BODY, headers=headers)


def calls_by_tenant(client: httpx.Client) -> dict[str, int]:
    """What the budgets have counted, which lags behind nothing."""
    shown = client.get("/admin/tenants", headers={"x-api-key": KEYS["boss"]}).json()["tenants"]
    return {one["name"]: one["spent"]["day"]["calls"] for one in shown}


def test_the_stock_clients_name_the_tenant_and_the_call_is_that_tenants(service, client) -> None:
    before = calls_by_tenant(client)
    with openai.OpenAI(
        api_key=KEYS["hub"], base_url=f"{service.url}/v1", organization="team", max_retries=0
    ) as stock:
        answer = stock.chat.completions.with_raw_response.create(**BODY)
    with anthropic.Anthropic(
        api_key=KEYS["hub"], base_url=service.url, default_headers={HEADER: "team"}, max_retries=0
    ) as stock:
        stock.messages.create(**BODY)
    own = call(client, "hub")
    after = calls_by_tenant(client)

    assert answer.headers[HEADER] == "team"
    assert answer.headers["x-ratelimit-limit-requests"] == "777"
    assert HEADER not in own.headers
    assert own.headers.get("x-ratelimit-limit-requests") != "777"
    assert {name: after[name] - before[name] for name in ("team", "platform", "poor")} == {
        "team": 2,
        "platform": 1,
        "poor": 0,
    }


def test_the_ledger_has_the_tenant_that_was_named_and_the_key_that_called(client, poll) -> None:
    assert call(client, "every", "team").status_code == 200
    boss = {"x-api-key": KEYS["boss"]}

    def keys() -> set[str]:
        usage = client.get("/admin/usage?group_by=key", headers=boss).json()["usage"]
        return {one["name"] for one in usage}

    poll(lambda: "every" in keys())
    usage = client.get("/admin/usage?group_by=tenant", headers=boss).json()["usage"]
    assert "team" in {one["name"] for one in usage}


def test_budget_is_the_tenants_and_what_the_key_may_do_stays_the_keys(client) -> None:
    refused = call(client, "hub", "poor")
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_quota")
    assert call(client, "hub").status_code == 200
    assert call(client, "hub", "team", priority="u=0").headers["penstock-class"] == "standard"


def test_what_a_key_may_not_act_for_is_refused_and_says_nothing_of_who_there_is(client) -> None:
    answers = {}
    for key, tenant in (
        ("team", "platform"),
        ("team", "nobody"),
        ("team", "*"),
        ("team", "org-Ours"),
        ("hub", "operators"),
        ("hub", "org-Elsewhere"),
        ("every", "nobody"),
        ("every", "penstock-workers"),
        ("every", "*"),
        ("every", "x" * 3000),
    ):
        refused = call(client, key, tenant)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (403, "tenant_forbidden"), (key, tenant)
        assert error["param"] == HEADER
        answers[key, tenant] = error["message"]
    assert len(set(answers.values())) == 1
    messages = client.post(
        "/v1/messages", json=BODY, headers={"x-api-key": KEYS["team"], HEADER: "platform"}
    )
    assert messages.json()["error"]["type"] == "permission_error"
    assert call(client, "nobody", "team").status_code == 401


def test_an_openai_organisation_of_an_unmodified_environment_means_nothing(client) -> None:
    for named in ("org-Ab12Cd34Ef56", "", "team"):
        answer = call(client, "team", named)
        assert answer.status_code == 200
        assert HEADER not in answer.headers


def test_nothing_that_is_kept_for_one_tenant_is_given_to_another(client) -> None:
    named = {"idempotency-key": "one"}
    assert call(client, "hub", "team", **named).headers["penstock-cache"] == "miss"
    assert call(client, "hub", "team", **named).headers["penstock-cache"] == "hit"
    assert call(client, "hub", **named).headers["penstock-cache"] == "miss"
    assert call(client, "team", **named).headers["penstock-cache"] == "miss"


def test_batches_are_the_tenants_and_go_on_in_its_name(service, client, poll) -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": BODY}
    hub = {"api_key": KEYS["hub"], "base_url": f"{service.url}/v1", "max_retries": 0}
    before = calls_by_tenant(client)
    with openai.OpenAI(organization="team", **hub) as acting, openai.OpenAI(**hub) as own:
        content = ("lines.jsonl", json.dumps(line).encode())
        file = acting.files.create(file=content, purpose="batch")
        batch = acting.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        poll(lambda: acting.batches.retrieve(batch.id).status == "completed", 30)
        with pytest.raises(openai.NotFoundError):
            own.batches.retrieve(batch.id)
    as_team = client.get(f"/v1/batches/{batch.id}", headers={"x-api-key": KEYS["team"]})

    assert as_team.json()["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    after = calls_by_tenant(client)
    assert (after["team"] - before["team"], after["platform"] - before["platform"]) == (1, 0)


def test_the_secret_of_a_tenants_webhooks_is_for_its_own_keys(client) -> None:
    path = "/webhooks/secret"
    assert client.get(path, headers={"x-api-key": KEYS["team"]}).status_code == 200
    acting = {"x-api-key": KEYS["hub"], HEADER: "team"}
    assert client.get(path, headers=acting).status_code == 403


def test_a_stored_key_acts_for_whom_it_may_at_this_moment(client) -> None:
    boss = {"x-api-key": KEYS["boss"]}
    wish = {"name": "proxy", "tenant": "solo", "acts_for": ["brand-new"]}
    key = client.post("/admin/keys", json=wish, headers=boss).json()["key"]

    assert call(client, key, "brand-new").status_code == 200
    # A name that stands in a key's list is a tenant from then on.
    assert call(client, "every", "brand-new").headers[HEADER] == "brand-new"
    client.patch("/admin/keys/proxy", json={"acts_for": []}, headers=boss)
    assert call(client, key, "brand-new").status_code == 403
    assert call(client, key).status_code == 200
