"""Durable runs over HTTP, against a real service with real workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def ended(service: Any, path: str) -> bool:
    return service.ask("GET", path)[2]["status"] not in ("pending", "running")


def test_a_run_is_accepted_and_its_result_fetched_later(
    service: Any, poll: Callable[..., None]
) -> None:
    status, headers, job = service.ask(
        "POST", "/chains/upper/invoke", {"input": "abc"}, Prefer="respond-async"
    )
    path = headers["location"]
    poll(lambda: ended(service, path))
    shown = service.ask("GET", path)[2]

    assert status == 202
    assert headers["preference-applied"] == "respond-async"
    assert path == f"/jobs/{job['id']}"
    assert shown["error"] is None
    assert (shown["status"], shown["attempts"], shown["class"]) == ("success", 1, "standard")
    assert shown["result"]["output"] == "ABC"
    assert shown["result"]["metadata"]["run_id"] == job["id"]


def test_a_caller_who_waits_long_enough_gets_the_answer_itself(service: Any) -> None:
    prefer = "respond-async, wait=30"
    status, _, body = service.ask("POST", "/chains/upper/invoke", {"input": "a"}, Prefer=prefer)

    assert (status, body["output"]) == (200, "A")


def test_a_run_outlives_the_front_that_accepted_it(service: Any, poll: Callable[..., None]) -> None:
    go = service.folder / "go"
    path = service.later("until", str(go))
    poll(lambda: service.ask("GET", path)[2]["status"] == "running")
    service.kill()
    go.touch()
    service.start()
    poll(lambda: ended(service, path), 30)
    shown = service.ask("GET", path)[2]

    assert (shown["status"], shown["attempts"]) == ("success", 2)
    assert shown["result"]["output"] == "there"


def test_a_run_that_kills_its_worker_ends_with_the_reason_and_others_go_on(
    service: Any, poll: Callable[..., None]
) -> None:
    poison = service.later("kill", "x")
    poll(lambda: ended(service, poison), 30)
    shown = service.ask("GET", poison)[2]
    prefer = "respond-async, wait=30"
    after = service.ask("POST", "/chains/upper/invoke", {"input": "a"}, Prefer=prefer)

    assert (shown["status"], shown["attempts"]) == ("error", 2)
    assert shown["error"]["code"] == "worker_lost"
    assert "Attempt 2 broke off" in shown["error"]["message"]
    assert after[0] == 200


def test_what_a_run_says_can_be_read_from_where_one_left_off(service: Any) -> None:
    path = service.later("letters", "xyz", "stream")
    whole = service.ask("GET", f"{path}/events")[2]
    rest = service.ask("GET", f"{path}/events", Last_Event_ID="2")[2]

    assert [block.splitlines()[-1] for block in whole.split("\n\n")[1:4]] == [
        'data: "x"',
        'data: "y"',
        'data: "z"',
    ]
    assert whole.split("\n\n")[-2].startswith('event: end\ndata: {"id":')
    assert whole.endswith(rest)
    assert rest.startswith('id: 3\nevent: data\ndata: "y"\n\n')


def test_a_cancelled_run_ends_and_a_deleted_one_is_gone(
    service: Any, poll: Callable[..., None]
) -> None:
    path = service.later("until", "/nowhere/at/all")
    poll(lambda: service.ask("GET", path)[2]["status"] == "running")
    service.ask("POST", f"{path}/cancel")
    poll(lambda: ended(service, path))

    assert service.ask("GET", path)[2]["status"] == "interrupted"
    assert service.ask("DELETE", path)[0] == 200
    assert service.ask("GET", path)[0] == 404


def test_a_key_sees_its_own_tenants_jobs_and_no_others(service: Any) -> None:
    path = service.later("upper", "x")
    strangers = [
        service.ask("GET", path, key="zeta"),
        service.ask("GET", f"{path}/events", key="zeta"),
        service.ask("POST", f"{path}/cancel", key="zeta"),
        service.ask("DELETE", path, key="zeta"),
        service.ask("GET", "/jobs/nothing", key="zeta"),
    ]

    assert {status for status, _, _ in strangers} == {404}
    assert len({body["detail"] for _, _, body in strangers}) == 1
    assert service.ask("GET", "/jobs", key="zeta")[2]["data"] == []


def test_a_chain_that_the_key_may_not_use_is_refused_at_once(service: Any) -> None:
    async_please = {"Prefer": "respond-async"}
    forbidden = service.ask("POST", "/chains/upper/invoke", {}, "zeta", **async_please)
    unknown = service.ask("POST", "/chains/nothing/invoke", {}, **async_please)

    assert (forbidden[0], unknown[0]) == (403, 404)


def test_jobs_are_listed_by_pages_the_newest_first(service: Any) -> None:
    made = [service.later("letters", str(n), key="zeta").removeprefix("/jobs/") for n in range(3)]
    first = service.ask("GET", "/jobs?limit=2", key="zeta")[2]
    second = service.ask("GET", f"/jobs?limit=2&after={first['data'][-1]['id']}", key="zeta")[2]

    assert [job["id"] for job in first["data"] + second["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert service.ask("GET", "/jobs?limit=1000")[0] == 400
    assert service.ask("GET", "/jobs?status=dead")[0] == 400


def test_an_idempotency_key_makes_one_job_for_one_body(service: Any) -> None:
    headers = {"Prefer": "respond-async", "Idempotency_Key": '"8e03978e"'}
    first, again = (
        service.ask("POST", "/chains/upper/invoke", {"input": "a"}, **headers)[2]["id"]
        for _ in range(2)
    )
    other = service.ask("POST", "/chains/upper/invoke", {"input": "b"}, **headers)
    bad = {**headers, "Idempotency_Key": "x" * 256}

    assert first == again
    assert (other[0], other[2]["error"]["code"]) == (422, "idempotency_key_reused")
    assert service.ask("POST", "/chains/upper/invoke", {"input": "b"}, **bad)[0] == 400


def test_a_run_can_be_ordered_for_later(service: Any) -> None:
    body = {"input": "a", "after_seconds": 1000}
    job = service.ask("POST", "/chains/upper/invoke", body, Prefer="respond-async")[2]
    bad = {"input": "a", "after_seconds": -1}

    assert service.ask("GET", f"/jobs/{job['id']}")[2]["status"] == "pending"
    assert service.ask("POST", "/chains/upper/invoke", bad, Prefer="respond-async")[0] == 400
