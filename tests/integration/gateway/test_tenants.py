"""Tenants by the admin API and by command: in force at once, above the file, after a restart."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.cli.main import run

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
rpm = 600
[keys.boss]
tenant = "operators"
admin = true
key_env = "BOSS_KEY"
[keys.team]
tenant = "team"
key_env = "TEAM_KEY"
"""
BOSS = {"x-api-key": "boss-key-with-letters"}
TEAM = {"x-api-key": "team-key-with-letters"}
ENVIRONMENT = {"UPSTREAM_KEY": "x", "BOSS_KEY": BOSS["x-api-key"], "TEAM_KEY": TEAM["x-api-key"]}
BODY = {"model": "sandbox", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


class Place:
    """A configuration's file, and the service that serves it, if it runs."""

    def __init__(self, running, file: Path) -> None:
        self.file = file
        self._running = running
        self.start()

    def start(self) -> None:
        self.process = self._running(
            "serve", "--config", str(self.file), "--port", "0", **ENVIRONMENT
        )
        self.client = httpx.Client(base_url=self.process.url, timeout=30, headers=BOSS)

    def stop(self) -> None:
        self.client.close()
        self.process.stop()

    def call(self, headers: dict[str, str] = TEAM) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json=BODY, headers=headers)

    def command(self, *arguments: str) -> int:
        return run([*arguments, "--config", str(self.file)])


@pytest.fixture(scope="module")
def place(running, fast_sandbox, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tenants")
    file = folder / "penstock.toml"
    url = fast_sandbox().url
    file.write_text(CONFIG.replace("{url}", url).replace("{store}", str(folder / "store")))
    place = Place(running, file)
    yield place
    place.stop()


@pytest.fixture
def client(place: Place) -> httpx.Client:
    """As the operator; nothing is set of any tenant."""
    for tenant in place.client.get("/admin/tenants").json()["tenants"]:
        if tenant["changed_at"] is not None:
            place.client.delete(f"/admin/tenants/{tenant['name']}")
    return place.client


def limit_told(answer: httpx.Response) -> str:
    return answer.headers["x-ratelimit-limit-requests"]


def test_limits_that_are_set_are_told_and_enforced_from_the_answer_on(place, client, poll) -> None:
    assert limit_told(place.call()) == "600"

    shown = client.patch("/admin/tenants/team", json={"rpm": 60, "weight": 3}).json()
    assert (shown["rpm"], shown["weight"]) == (60, 3)
    assert shown["sources"]["rpm"] == shown["sources"]["weight"] == "store"
    poll(lambda: limit_told(place.call()) == "60")  # headers are written anew every 50 ms

    shown = client.put("/admin/tenants/team", json={"tpm": 90_000}).json()
    assert (shown["rpm"], shown["weight"], shown["tpm"]) == (600, 1, 90_000)
    assert (shown["sources"]["rpm"], shown["sources"]["weight"]) == ("file", "default")

    shown = client.patch("/admin/tenants/team", json={"rpm": None, "tpm": None}).json()
    assert (shown["rpm"], shown["sources"]["rpm"]) == (None, "store")
    # Without limits of its own a tenant is told the deployment's.
    poll(lambda: "x-ratelimit-limit-requests" not in place.call().headers)

    shown = client.delete("/admin/tenants/team").json()
    assert (shown["rpm"], shown["changed_at"]) == (600, None)
    assert client.get("/admin/tenants/team").json() == shown
    assert client.delete("/admin/tenants/team").status_code == 404
    assert limit_told(place.call()) == "600"


def test_a_call_that_waits_for_a_limit_goes_when_the_limit_is_lifted(place, client) -> None:
    client.patch("/admin/tenants/idle", json={"rpm": 1})
    wish = {"name": "idle", "tenant": "idle"}
    headers = {"x-api-key": client.post("/admin/keys", json=wish).json()["key"]}
    assert place.call(headers).status_code == 200

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(place.call, headers)
        while not any(
            one["name"] == "idle" and one["waiting"]
            for one in client.get("/admin/live").json()["tenants"]
        ):
            assert not second.done()
        client.patch("/admin/tenants/idle", json={"rpm": 6000})
        answer = second.result(timeout=20)

    assert answer.status_code == 200
    assert 0 < float(answer.headers["penstock-wait-ms"]) < 20_000


def test_budgets_refuse_or_warn_from_the_answer_on(place, client) -> None:
    assert place.call().status_code == 200
    client.patch("/admin/tenants/team", json={"budget_day_tokens": 1})
    refused = place.call()
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_quota")

    client.patch("/admin/tenants/team", json={"budget_hard": False})
    warned = place.call()
    assert warned.status_code == 200
    assert warned.headers["penstock-budget-warning"].startswith("tenant; period=day; unit=tokens")

    client.patch("/admin/tenants/team", json={"budget_day_tokens": None})
    assert "penstock-budget-warning" not in place.call().headers


def test_what_a_command_sets_counts_within_a_second_and_after_a_reload_and_a_restart(
    place, client, poll
) -> None:
    wish = ("--budget-month-tokens", "0", "--rpm", "90")
    assert place.command("tenants", "set", "team", *wish) == 0
    poll(lambda: place.call().status_code == 402, 5)

    place.process.process.send_signal(signal.SIGHUP)
    poll(lambda: any(line["message"] == "reload taken" for line in place.process.logged()))
    assert place.call().status_code == 402
    warned = [one["message"] for one in place.process.logged() if one["level"] == "warning"]
    assert [one for one in warned if one.startswith("tenant team: rpm 90.0, which was set, stands")]
    place.stop()
    place.start()
    assert place.call().status_code == 402
    assert place.client.get("/admin/tenants/team").json()["budget_month_tokens"] == 0

    assert place.command("tenants", "reset", "team") == 0
    poll(lambda: place.call().status_code == 200, 5)


def test_what_breaks_a_rule_is_refused_with_the_value_the_rule_and_the_way_out(client) -> None:
    for name, body, words in (
        ("team", {"rpm": -1}, "body.rpm = -1: must be a number from 0.001"),
        ("team", {"weight": None}, "body.weight"),
        ("team", {"budget_hard": "no"}, "must be true or false"),
        ("team", {"rmp": 5}, "did you mean rpm?"),
        ("!", {"rpm": 5}, "must be a name of at most 128"),
        ("team", [], "must be a JSON object"),
    ):
        for method in ("PUT", "PATCH"):
            answer = client.request(method, f"/admin/tenants/{name}", json=body)
            assert answer.status_code == 400, answer.text
            assert words in answer.json()["detail"]
    for content in (b"", b"[" * 9999, b"\xff", b'{"rpm": 1e999}', b'{"rpm": 1' + b"0" * 999 + b"}"):
        assert client.put("/admin/tenants/team", content=content).status_code == 400
    assert client.get("/admin/tenants/nobody").status_code == 404
    assert client.get("/admin/tenants/team").json()["changed_at"] is None


def test_only_an_admin_may_see_or_set_a_tenant(place) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        for headers, status in ((TEAM, 403), ({"x-api-key": "nobody"}, 401)):
            answer = place.client.request(method, "/admin/tenants/team", headers=headers)
            assert answer.status_code == status


def test_a_tenant_whose_name_has_slashes_has_a_place(place, client) -> None:
    assert place.call().status_code == 200
    assert client.patch("/admin/tenants/org/team", json={"rpm": 5}).status_code == 200
    listed = {one["name"]: one for one in client.get("/admin/tenants").json()["tenants"]}

    assert listed["org/team"]["rpm"] == 5
    assert listed["team"]["spent"]["month"]["calls"] > 0


def test_every_change_is_logged_with_who_made_it(place, client, poll) -> None:
    client.patch("/admin/tenants/team", json={"concurrency": 7})

    def said() -> list[dict[str, Any]]:
        lines = place.process.logged()
        told = [one for one in lines if one["message"] == "tenant team: concurrency null -> 7"]
        by = [one for one in lines if one.get("changed") == "tenant team"]
        return told and [one for one in by if one["key"] == "boss"]

    poll(lambda: bool(said()))


def test_a_key_is_changed_without_its_secret_and_at_once(place, client) -> None:
    wish = {"name": "ci", "tenant": "team", "acts_for": ["a"], "expires_in_seconds": 90}
    key = client.post("/admin/keys", json=wish).json()["key"]
    headers = {"x-api-key": key}
    assert place.call(headers).headers["penstock-class"] == "standard"

    change = {"class": "batch", "ceiling": "batch", "models": ["sandbox"], "name": "nightly"}
    shown = client.patch("/admin/keys/ci", json=change | {"expires_in_seconds": None})
    assert key not in shown.text
    assert shown.json()["name"] == "nightly"
    assert (shown.json()["expires_at"], shown.json()["acts_for"]) == (None, ["a"])
    assert place.call(headers | {"priority": "u=0"}).headers["penstock-class"] == "batch"

    client.patch("/admin/keys/nightly", json={"budget_day_tokens": 1})
    assert place.call(headers).status_code == 402
    client.patch("/admin/keys/nightly", json={"budget_day_tokens": None, "models": []})
    assert place.call(headers).status_code == 403
    client.patch("/admin/keys/nightly", json={"expires_in_seconds": 1e-6})
    assert place.call(headers).status_code == 401
    client.patch("/admin/keys/nightly", json={"expires_in_seconds": 90, "models": None})
    assert place.call(headers).status_code == 200


def test_a_change_of_a_key_that_breaks_a_rule_changes_nothing(place, client) -> None:
    for name in ("one", "two"):
        client.post("/admin/keys", json={"name": name, "tenant": "team"})
    before = client.get("/admin/keys").json()

    for name, body, status in (
        ("nobody", {"ceiling": "batch"}, 404),
        ("one", {"name": "two"}, 409),
        ("one", {"name": "boss"}, 400),
        ("one", {"name": ["a"]}, 400),
        ("one", {"class": "interactive", "ceiling": "batch"}, 400),
        ("one", {"models": ["nothing"]}, 400),
        ("one", {"acts_for": "team"}, 400),
        ("one", {"tenant": "other"}, 400),
        ("one", {"admin": True}, 400),
        ("one", {"expires_in_seconds": 0}, 400),
        ("one", [], 400),
    ):
        answer = client.patch(f"/admin/keys/{name}", json=body)
        assert answer.status_code == status, (body, answer.text)
    assert place.client.patch("/admin/keys/one", json={}, headers=TEAM).status_code == 403
    assert client.get("/admin/keys").json() == before
