"""Each call through a real service makes one row, whatever became of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.simulate.rows import read_rows

CONFIG = """
[workers]
count = 0
[store]
path = "{store}"
[providers.sandbox]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
[deployments.one]
provider = "sandbox"
model = "sandbox"
tpm = 1_000_000
concurrency = 8
price_input = 1.5
price_output = 6
[keys.person]
tenant = "web"
key_env = "PERSON_KEY"
models = ["sandbox"]
[keys.boss]
tenant = "operators"
admin = true
key_env = "BOSS_KEY"
"""
BOSS = {"x-api-key": "boss-key-of-the-ledger"}
BODY = {"model": "sandbox", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}


def rows(store: Path) -> list[dict[str, Any]]:
    """What the ledger holds."""
    with contextlib.closing(sqlite3.connect(store / "penstock.db")) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("SELECT * FROM calls ORDER BY number").fetchall()
        return [dict(row) for row in found]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "state"


@pytest.fixture(scope="module")
def client(fast_sandbox, serve, store):
    config = CONFIG.replace("{url}", fast_sandbox().url).replace("{store}", str(store))
    environment = {
        "PERSON_KEY": "person-key-of-the-ledger",
        "BOSS_KEY": BOSS["x-api-key"],
        "UPSTREAM_KEY": "x",
    }
    service = serve(config, **environment)
    headers = {"x-api-key": "person-key-of-the-ledger"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as client:
        yield client


def test_every_ending_makes_one_row_with_its_outcome(client: httpx.Client, store, poll) -> None:
    path = "/v1/chat/completions"
    plain = client.post(path, json=BODY, headers={"x-request-id": "plain"})
    with client.stream(
        "POST", path, json=BODY | {"stream": True}, headers={"x-request-id": "stream"}
    ) as stream:
        stream.read()
    client.post(path, json=BODY | {"model": "gone"}, headers={"x-request-id": "forbidden"})
    client.post(path, content=b"{", headers={"x-request-id": "invalid"})
    huge = BODY | {"max_tokens": 9_000_000}
    refused = client.post(path, json=huge, headers={"x-request-id": "huge"})
    client.post(path, json=BODY, headers={"x-request-id": "nobody", "x-api-key": "wrong"})
    poll(lambda: len(rows(store)) >= 5)
    found = {row["request_id"]: row for row in rows(store)}

    assert len(rows(store)) == 5
    assert {name: row["outcome"] for name, row in found.items()} == {
        "plain": "success",
        "stream": "success",
        "forbidden": "forbidden",
        "invalid": "invalid",
        "huge": "refused_too_large",
    }, refused.text
    assert {row["tenant"] for row in found.values()} == {"web"}
    usage = plain.json()["usage"]
    row = found["plain"]
    assert (row["tokens_input"], row["tokens_output"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert (row["deployment"], row["model"], row["attempts"]) == ("one", "sandbox", 1)
    assert row["tokens_output_max"] == 20
    assert row["upstream_seconds"] > 0
    assert row["nano_dollars"] == 1_500 * row["tokens_input"] + 6_000 * row["tokens_output"]
    assert float(plain.headers["penstock-cost-usd"]) * 1e9 == pytest.approx(row["nano_dollars"])
    assert "penstock-cost-usd" not in stream.headers
    assert found["stream"]["nano_dollars"] > 0
    assert found["stream"]["tokens_output"] > 0
    assert found["forbidden"]["model"] == found["invalid"]["model"] == ""
    assert found["huge"]["deployment"] == ""


def test_an_admin_sees_the_sums_and_nobody_else_does(client: httpx.Client, store, poll) -> None:
    poll(lambda: len(rows(store)) >= 5)
    found = client.get("/admin/usage?group_by=tenant", headers=BOSS).json()
    text = client.get("/admin/usage?group_by=outcome&format=csv&since=1h", headers=BOSS)

    assert [(one["name"], one["calls"]) for one in found["usage"]] == [("web", 5)]
    assert found["usage"][0]["tokens_input"] == sum(row["tokens_input"] for row in rows(store))
    assert text.headers["content-type"].startswith("text/csv")
    assert {line.partition(",")[0] for line in text.text.splitlines()} >= {"name", "success"}
    assert client.get("/admin/usage").status_code == 403
    assert client.get("/admin/usage", headers={"x-api-key": "x"}).status_code == 401
    for query in ("group_by=prompt", "since=never", "colour=red", "since=1d&since=2d", "format=x"):
        assert client.get(f"/admin/usage?{query}", headers=BOSS).status_code == 400


def test_an_admin_sees_where_each_limit_is_known_from(client: httpx.Client) -> None:
    (one,) = client.get("/admin/limits", headers=BOSS).json()["deployments"]
    sources = {limit["name"]: limit["source"] for limit in one["limits"]}

    assert one["name"] == "one"
    assert sources == {"tpm": "configured", "concurrency": "configured"}
    assert client.get("/admin/limits").status_code == 403
    unknown = client.get("/admin/limits?all=1", headers=BOSS)
    assert (400, True) == (unknown.status_code, "there are none here" in unknown.text)


def test_the_command_line_sums_up_the_same(client: httpx.Client, store, tmp_path, poll) -> None:
    poll(lambda: len(rows(store)) >= 5)
    file = tmp_path / "penstock.toml"
    file.write_text(CONFIG.replace("{url}", "http://127.0.0.1:1").replace("{store}", str(store)))

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "penstock", "usage", "--config", str(file), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    table = run("--group-by", "model").splitlines()
    listed = json.loads(run("--json", "--since", "1h"))
    exported = run("--calls").splitlines()

    assert table[0].split()[0] == "model"
    assert {line.split()[0] for line in table[1:]} == {"sandbox", "-"}
    assert [(one["name"], one["calls"]) for one in listed] == [("web", 5)]
    assert exported[0].startswith("at,tenant,class,model,")
    assert len(exported) == 1 + sum(row["model"] != "" for row in rows(store))


def test_what_a_service_did_can_be_played_again(
    client: httpx.Client, store, tmp_path, poll
) -> None:
    """The export as it is, and the service's own configuration: nothing in between."""
    for _ in range(3):
        answer = client.post("/v1/chat/completions", json=BODY)
        assert answer.status_code == 200, answer.text
    poll(lambda: sum(row["tokens_output"] > 0 for row in rows(store)) >= 3)
    config = CONFIG.replace("{url}", "http://127.0.0.1:1").replace("{store}", str(store))
    (tmp_path / "penstock.toml").write_text(config)

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "penstock", *options, "--config", "penstock.toml"]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path
        ).stdout

    (tmp_path / "calls.csv").write_text(run("usage", "--calls"))
    played = json.loads(run("simulate", "--workload", "calls.csv", "--seconds", "60", "--json"))

    assert played["before"][0]["policy"] == "penstock"
    found = read_rows(tmp_path / "calls.csv")
    assert len(found) == sum(row["model"] != "" for row in rows(store))
    assert {(row.tenant, row.class_name, row.model) for row in found} == {
        ("web", "standard", "sandbox")
    }
    answered = [row for row in found if row.tokens_output_max == BODY["max_tokens"]]
    assert all(row.busy_seconds > 0 and row.tokens_output <= 20 for row in answered)
