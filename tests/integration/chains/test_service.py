"""The example chains in a whole service: every LLM call of a run is known as that run's."""

from __future__ import annotations

import httpx

KEY = {"Authorization": "Bearer dev"}


def test_each_llm_call_of_a_run_is_logged_and_counted_as_the_run_s(service, poll):
    answer = httpx.post(
        f"{service.url}/chains/brief/invoke",
        json={"input": {"topic": "rivers"}},
        headers={**KEY, "Priority": "u=0"},
        timeout=30,
    )
    run_id = answer.json()["metadata"]["run_id"]

    def calls() -> list[dict]:
        lines = (line for line in service.logged() if line.get("door") == "gateway")
        return [line for line in lines if line.get("run") == run_id]

    poll(lambda: len(calls()) == 3)
    assert ["brief"] * 3 == [line["chain"] for line in calls()]
    assert [0, 1, 2] == [line["step"] for line in calls()]
    assert {("dev", "interactive")} == {(line["tenant"], line["class"]) for line in calls()}
    metrics = httpx.get(f"{service.url}/metrics").text
    counted = (
        'penstock_requests_total{chain="brief",class="interactive",door="gateway",'
        'outcome="success",tenant="dev"} 3.0'
    )
    assert counted in metrics


def test_every_example_chain_answers(service):
    inputs = {
        "haiku": {"topic": "rivers"},
        "brief": {"topic": "rivers"},
        "agent": {"messages": [{"role": "user", "content": "How many words: a b c?"}]},
        "keywords": {"text": "Rivers carry water. Rivers meet the sea."},
    }
    for name, chain_input in inputs.items():
        answer = httpx.post(
            f"{service.url}/chains/{name}/invoke",
            json={"input": chain_input},
            headers=KEY,
            timeout=60,
        )
        assert 200 == answer.status_code, name
        assert answer.json()["output"]


def test_the_service_says_it_is_ready_only_when_chains_and_gateway_answer(running):
    starting = running("serve", "--port", "0")
    status, _ = starting.get("/readyz")
    assert 503 == status, "the port answers before the chains are loaded"
    assert 200 == starting.get("/healthz")[0]
    starting.wait_ready()
    listed = httpx.get(f"{starting.url}/chains", headers=KEY).json()
    assert {"haiku", "brief", "agent", "keywords"} == {each["name"] for each in listed["chains"]}
    assert 0 == starting.stop()


def test_with_reload_a_changed_file_is_served_without_a_restart(running, poll, tmp_path):
    (tmp_path / "shout.py").write_text("def chain(text: str) -> str:\n    return text + '!'\n")
    config = tmp_path / "penstock.toml"
    config.write_text(
        'path = ["."]\n[workers]\ncount = 1\n[chains.shout]\nimport = "shout:chain"\n'
    )
    process = running("serve", "--config", str(config), "--port", "0", "--reload")
    process.wait_ready()

    def shouted():
        url = f"{process.url}/chains/shout/invoke"
        answer = httpx.post(url, json={"input": "a"}, headers=KEY, timeout=30)
        return answer.json().get("output")

    assert "a!" == shouted()
    (tmp_path / "shout.py").write_text("def chain(text: str) -> str:\n    return text + '?!'\n")
    poll(lambda: shouted() == "a?!", 60)
    assert 0 == process.stop()
