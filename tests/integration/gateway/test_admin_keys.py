"""Keys by the admin API: made, seen once, rotated, ended, and in force at once."""

from __future__ import annotations

import httpx
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
[deployments.one]
provider = "openai"
model = "sandbox"
tpm = 1_000_000
[tenants.team]
weight = 2
budget_month_usd = 10
[keys.boss]
tenant = "operators"
admin = true
key_env = "BOSS_KEY"
"""
BOSS = {"x-api-key": "boss-key-with-letters"}
BODY = {"model": "sandbox", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def client(fast_sandbox, serve, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "state"
    config = CONFIG.replace("{url}", fast_sandbox().url).replace("{store}", str(store))
    service = serve(config, UPSTREAM_KEY="x", BOSS_KEY=BOSS["x-api-key"])
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def call(client: httpx.Client, key: str) -> int:
    headers = {"x-api-key": key}
    return client.post("/v1/chat/completions", json=BODY, headers=headers).status_code


def test_a_key_works_from_the_answer_that_shows_it_to_the_one_that_ends_it(client) -> None:
    wish = {"name": "ci", "tenant": "team", "models": ["sandbox"], "budget_day_tokens": 10_000}
    made = client.post("/admin/keys", json=wish, headers=BOSS)
    key = made.json()["key"]

    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    assert call(client, key) == 200

    rotated = client.post(
        "/admin/keys/ci/rotate", json={"overlap_seconds": 3600}, headers=BOSS
    ).json()["key"]
    assert [call(client, one) for one in (key, rotated)] == [200, 200]
    again = client.post("/admin/keys/ci/rotate", headers=BOSS).json()["key"]
    assert [call(client, one) for one in (key, rotated, again)] == [401, 401, 200]

    (listed,) = client.get("/admin/keys", headers=BOSS).json()["keys"]
    assert listed["spent"]["day"]["calls"] == 4
    assert listed["budget_day_tokens"] == 10_000
    assert key not in client.get("/admin/keys", headers=BOSS).text
    assert client.get("/admin/keys/ci", headers=BOSS).json() == listed

    assert client.delete("/admin/keys/ci", headers=BOSS).json() == {"name": "ci", "revoked": True}
    assert call(client, again) == 401
    assert client.delete("/admin/keys/ci", headers=BOSS).status_code == 404
    assert client.get("/admin/keys/ci", headers=BOSS).status_code == 404
    assert client.post("/admin/keys/ci/rotate", headers=BOSS).status_code == 404


def test_a_wish_that_breaks_a_rule_makes_no_key(client: httpx.Client) -> None:
    good = {"name": "taken", "tenant": "team"}
    assert client.post("/admin/keys", json=good, headers=BOSS).status_code == 201
    assert client.post("/admin/keys", json=good, headers=BOSS).status_code == 409
    for bad in (
        {"name": "x"},
        {"name": "x", "tenant": "a b"},
        {"name": "x", "tenant": "team", "class": "batsh"},
        {"name": "x", "tenant": "team", "models": ["nothing"]},
        {"name": "x", "tenant": "team", "key_env": "HOME"},
        {"name": "x", "tenant": "team", "budget_day_usd": -1},
        {"name": "x", "tenant": "team", "expires_in_seconds": 0},
        {"name": "boss", "tenant": "team"},
    ):
        answer = client.post("/admin/keys", json=bad, headers=BOSS)
        assert answer.status_code == 400, bad
    assert client.post("/admin/keys", content=b"[" * 9999, headers=BOSS).status_code == 400


def test_only_an_admin_may_see_or_make_keys(client: httpx.Client) -> None:
    wish = {"name": "plain", "tenant": "team"}
    plain = {"x-api-key": client.post("/admin/keys", json=wish, headers=BOSS).json()["key"]}

    assert client.get("/admin/keys", headers=plain).status_code == 403
    assert client.post("/admin/keys", json=wish, headers=plain).status_code == 403
    assert client.post("/admin/keys/plain/rotate", headers=plain).status_code == 403
    assert client.delete("/admin/keys/plain", headers=plain).status_code == 403
    assert client.get("/admin/tenants", headers=plain).status_code == 403
    assert client.get("/admin/keys/plain", headers=plain).status_code == 403
    assert client.get("/admin/keys").status_code == 401


def test_an_admin_key_that_is_held_to_something_gives_no_key_more(client: httpx.Client) -> None:
    """Not a new one, not one that it changes, and none whose secret it would learn."""

    def made(name: str, **fields: object) -> httpx.Response:
        wish = {"name": name, "tenant": "team", **fields}
        return client.post("/admin/keys", json=wish, headers=BOSS)

    key = made("held", admin=True, ceiling="batch", models=[], **{"class": "batch"}).json()["key"]
    held = {"x-api-key": key}
    assert made("wide").status_code == 201
    assert made("close", ceiling="batch", models=[], **{"class": "batch"}).status_code == 201

    def asked(method: str, path: str, body: object) -> tuple[int, str]:
        answer = client.request(method, path, json=body, headers=held)
        problem = answer.json()
        return answer.status_code, problem.get("type", "").rpartition(":")[2]

    refused = (403, "exceeds_maker")
    narrow = {"name": "more", "tenant": "team", "class": "batch", "ceiling": "batch"}
    assert asked("POST", "/admin/keys", narrow) == refused
    assert asked("POST", "/admin/keys", narrow | {"models": ["sandbox"]}) == refused
    assert asked("PATCH", "/admin/keys/close", {"models": None}) == refused
    assert asked("PATCH", "/admin/keys/held", {"ceiling": "interactive"}) == refused
    assert asked("POST", "/admin/keys/wide/rotate", None) == refused
    assert asked("PATCH", "/admin/keys/wide", {"budget_day_usd": 1})[0] == 200
    assert asked("POST", "/admin/keys/close/rotate", {})[0] == 200
    assert asked("POST", "/admin/keys", narrow | {"models": []})[0] == 201


@pytest.mark.parametrize(("field", "value"), [("tenant", "other"), ("admin", True)])
def test_what_of_a_key_is_fixed_is_said_with_the_reason_and_the_way_out(client, field, value):
    wish = {"name": f"fixed-{field}", "tenant": "team"}
    assert client.post("/admin/keys", json=wish, headers=BOSS).status_code == 201

    answer = client.patch(f"/admin/keys/fixed-{field}", json={field: value}, headers=BOSS)

    detail = answer.json()["detail"]
    assert answer.status_code == 400
    assert f"body.{field} = " in detail
    assert "for good" in detail or "from the first or never" in detail
    assert "POST /admin/keys makes another key" in detail


def test_tenants_are_shown_with_their_budget_and_what_they_have_spent(client) -> None:
    tenants = {
        one["name"]: one for one in client.get("/admin/tenants", headers=BOSS).json()["tenants"]
    }

    assert tenants["team"]["weight"] == 2
    assert tenants["team"]["budget_month_usd"] == 10
    assert tenants["team"]["spent"]["month"]["calls"] >= 0
