"""Workers die, are busy, are replaced and stop; their callers see as little of it as possible."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from penstock.chains.supervisor import ReloadFailed
from penstock.config.model import ClassTable, WorkersTable
from penstock.errors import DeadlineExceeded, Draining

KEY = {"authorization": "Bearer key"}
NAMES = ["tokens", "pid", "kill", "slow", "block", "block_loop", "upper", "hog"]


@pytest.fixture
def made(make_front, tables):
    """A front that loads the few chains needed here."""
    few = {name: tables(name, module="contract_chains") for name in NAMES}
    few["block_limited"] = tables("block", timeout_seconds=0.2)
    return lambda **workers: make_front(tables=few, **workers)


async def until(condition, seconds=30):
    """Another process is involved, so there is no event to wait for."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def invoke(http, front, chain, value, **options):
    url = f"{front.url}/{chain}/invoke"
    async with http.post(url, json={"input": value}, **options) as answer:
        return answer.status, await answer.json(content_type=None)


def events(text):
    return [frame.split("\n") for frame in text.strip().split("\n\n")]


def test_a_worker_killed_in_the_middle_of_a_stream(made):
    """That caller gets the error, another one notices nothing, the worker is back."""

    async def go():
        front = made(count=2)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            body = {"input": {"n": 60, "delay": 0.02}}
            url = f"{front.url}/tokens/stream"
            async with http.post(url, json=body) as hit, http.post(url, json=body) as spared:
                await hit.content.readuntil(b"t3 ")
                busy = [one for one in front.pool.view() if one.runs]
                assert 2 == len(busy)
                os.kill(busy[0].pid, signal.SIGKILL)
                rests = [(await one.content.read()).decode() for one in (hit, spared)]
            hit_events, spared_events = sorted(map(events, rests), key=len)
            assert "event: error" == hit_events[-1][0]
            data = json.loads(hit_events[-1][1].removeprefix("data: "))
            assert (502, "worker_lost") == (data["status_code"], data["code"])
            assert ["event: end"] == spared_events[-1]
            await until(lambda: all(one.ready for one in front.pool.view()))
            assert [0, 1] == sorted(one.restarts for one in front.pool.view())
            pids = {(await invoke(http, front, "pid", 0))[1]["output"]}
            assert pids <= {one.pid for one in front.pool.view()}

    asyncio.run(go())


def test_a_worker_that_dies_before_it_answers_is_502_and_restarted(made):
    async def go():
        front = made(count=1)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            status, body = await invoke(http, front, "kill", 0)
            assert (502, "urn:penstock:error:worker_lost") == (status, body["type"])
            # The next caller waits for the next worker instead of being refused.
            assert (200, "A") == (
                (await invoke(http, front, "upper", "a"))[0],
                (await invoke(http, front, "upper", "a"))[1]["output"],
            )

    asyncio.run(go())


def test_a_busy_pool_lets_the_most_urgent_go_first_and_gives_up_at_the_deadline(made):
    async def go():
        front = made(count=1, runs_max=1)
        async with front.running():
            pool, order = front.pool, []

            async def take(name, rank):
                async with pool.lease(rank, None):
                    order.append(name)

            async with pool.lease(1, None):
                with pytest.raises(DeadlineExceeded):
                    async with pool.lease(0, time.monotonic() + 0.01):
                        pass
                waiting = [
                    asyncio.create_task(take(name, rank))
                    for name, rank in [("batch", 2), ("first", 1), ("second", 1), ("urgent", 0)]
                ]
                await until(lambda: pool.waiting == 4)
                waiting.pop(2).cancel()
            await asyncio.gather(*waiting)
            assert ["urgent", "first", "batch"] == order
            assert [0] == [one.runs for one in pool.view()]

    asyncio.run(go())


def test_a_chain_that_blocks_its_thread_harms_no_other_caller(made):
    async def go():
        front = made(count=1)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            blocked = asyncio.create_task(invoke(http, front, "block", 1.5))
            await until(lambda: any(one.runs for one in front.pool.view()))
            for _ in range(20):
                assert 200 == (await invoke(http, front, "upper", "a"))[0]
            assert not blocked.done()
            assert "blocked" == (await blocked)[1]["output"]

    asyncio.run(go())


def test_a_worker_whose_loop_is_blocked_gets_no_new_runs_until_it_turns_again(made, monkeypatch):
    """The one with the fewest runs is the one whose callers all wait elsewhere."""
    monkeypatch.setattr("penstock.chains.process.PING_SECONDS", 0.1)

    async def go():
        front = made(count=2)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            blocked = asyncio.create_task(invoke(http, front, "block_loop", 3))
            workers = [place.worker for place in front.pool._places]
            await until(lambda: any(worker.blocked for worker in workers))
            others = [asyncio.create_task(invoke(http, front, "slow", 0.2)) for _ in range(10)]
            assert {200} == {status for status, _ in await asyncio.gather(*others)}
            assert not blocked.done(), "the others did not wait for it"
            assert "blocked" == (await blocked)[1]["output"]
            await until(lambda: not any(worker.blocked for worker in workers))
            assert [0, 0] == [one.restarts for one in front.pool.view()]

    asyncio.run(go())


@pytest.mark.parametrize("endpoint", ["invoke", "batch", "stream"])
def test_a_worker_whose_loop_stays_blocked_is_replaced(made, monkeypatch, endpoint):
    """A batch has no time limit of its own, and nobody in there could keep to one."""
    monkeypatch.setattr("penstock.chains.process.PING_SECONDS", 0.1)
    monkeypatch.setattr("penstock.chains.process.BLOCKED_SECONDS_MAX", 0.5)

    async def go():
        front = made(count=1)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            body = {"inputs": [600]} if endpoint == "batch" else {"input": 600}
            async with http.post(f"{front.url}/block_loop/{endpoint}", json=body) as answer:
                assert 502 == answer.status
                assert (
                    "urn:penstock:error:worker_lost"
                    == (await answer.json(content_type=None))["type"]
                )
            assert 200 == (await invoke(http, front, "upper", "a"))[0]
            assert [1] == [one.restarts for one in front.pool.view()]

    asyncio.run(go())


def test_an_interactive_run_waits_neither_for_a_place_nor_for_a_thread_behind_batch_runs(made):
    """Four places; batch runs that block their threads fill what they may, and more wait."""

    async def go():
        front = made(count=1, runs_max=4)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            batch = {"headers": {"priority": "u=7"}}
            runs = [asyncio.create_task(invoke(http, front, "block", 3, **batch)) for _ in range(9)]
            await until(lambda: front.pool.waiting == 7)
            assert [2] == [one.runs for one in front.pool.view()]
            urgent = {"headers": {"priority": "u=0"}}
            answered = await asyncio.gather(
                *(invoke(http, front, "upper", "a", **urgent) for _ in range(2))
            )
            assert [200, 200] == [status for status, _ in answered]
            assert not any(run.done() for run in runs)
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)

    asyncio.run(go())


def test_a_full_queue_refuses_and_says_when_to_come_back(made):
    async def go():
        front = made(count=1, runs_max=1)
        front.pool.adopt({"standard": ClassTable(rank=1, queue_max=1)})
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            runs = [asyncio.create_task(invoke(http, front, "slow", 9))]
            await until(lambda: front.pool.view()[0].runs == 1)
            runs.append(asyncio.create_task(invoke(http, front, "slow", 9)))
            await until(lambda: front.pool.waiting == 1)
            url = f"{front.url}/upper/invoke"
            async with http.post(url, json={"input": "a"}) as answer:
                assert 429 == answer.status
                assert 1 <= int(answer.headers["retry-after"]) <= 2
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)

    asyncio.run(go())


def test_a_worker_that_holds_too_much_is_replaced_while_its_runs_end(made, monkeypatch):
    monkeypatch.setattr("penstock.chains.process.PING_SECONDS", 0.1)
    monkeypatch.setattr("penstock.chains.supervisor.REPLACED_AFTER_SECONDS_MIN", 0.0)

    async def go():
        front = made(count=1)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            worker = front.pool._places[0].worker
            await until(lambda: worker.status.resident_bytes > 0)
            allowed = worker.status.resident_bytes + 64 * 1024 * 1024
            front.pool._table = WorkersTable(count=1, memory_bytes_max=allowed)
            running = asyncio.create_task(invoke(http, front, "slow", 8))
            before = (await invoke(http, front, "hog", 128))[1]["output"]
            await until(lambda: front.pool.view()[0].pid not in (before, None))
            await until(lambda: front.pool.view()[0].ready)
            assert before != (await invoke(http, front, "pid", 0))[1]["output"]
            assert (200, "done") == ((await running)[0], running.result()[1]["output"])
            await until(lambda: not Path(f"/proc/{before}").exists())
            assert [0] == [one.restarts for one in front.pool.view()]

    asyncio.run(go())


def test_a_thread_that_outlives_its_run_takes_a_place_until_it_returns(made, monkeypatch):
    monkeypatch.setattr("penstock.chains.process.PING_SECONDS", 0.1)

    async def go():
        front = made(count=1)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            worker = front.pool._places[0].worker
            assert 504 == (await invoke(http, front, "block_limited", 2))[0]
            await until(lambda: worker.status.threads_overdue == 1)
            assert (0, 1) == (worker.runs, worker.places_taken)
            await until(lambda: worker.places_taken == 0)

    asyncio.run(go())


def test_a_reload_switches_workers_without_dropping_a_run(made, tables):
    async def go():
        front = made(count=1)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            before = (await invoke(http, front, "pid", 0))[1]["output"]
            running = asyncio.create_task(invoke(http, front, "slow", 2))
            await until(lambda: front.pool.view()[0].runs == 1)
            await front.pool.reload(front.spec, drain_seconds=20)
            after = (await invoke(http, front, "pid", 0))[1]["output"]
            assert before != after
            assert (200, "done") == ((await running)[0], running.result()[1]["output"])
            await until(lambda: not Path(f"/proc/{before}").exists())

    asyncio.run(go())


def test_a_reload_that_brings_up_no_worker_changes_nothing(made):
    async def go():
        front = made(count=1, start_timeout_seconds=0.3)
        front.pool._table = type(front.pool._table)(count=1)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            front.pool._table = type(front.pool._table)(count=1, start_timeout_seconds=0.05)
            before = front.pool.view()[0].pid
            with pytest.raises(ReloadFailed):
                await front.pool.reload(front.spec)
            assert before == (await invoke(http, front, "pid", 0))[1]["output"]

    asyncio.run(go())


def test_a_stopping_pool_lets_runs_end_and_takes_no_new_ones(made):
    async def go():
        front = made(count=1)
        async with front.running(), aiohttp.ClientSession(headers=KEY) as http:
            pid = front.pool.view()[0].pid
            running = asyncio.create_task(invoke(http, front, "slow", 0.5))
            await until(lambda: front.pool.view()[0].runs == 1)
            stopping = asyncio.create_task(front.pool.stop(20))
            assert (200, "done") == ((await running)[0], running.result()[1]["output"])
            await stopping
            with pytest.raises(Draining):
                async with front.pool.lease(0, None):
                    pass
            assert not Path(f"/proc/{pid}").exists()  # noqa: ASYNC240

    asyncio.run(go())


def test_a_worker_ends_when_its_front_is_gone(made):
    async def go():
        front = made(count=1)
        async with front.running():
            worker = front.pool._places[0].worker
            pid = worker.pid
            # What the kernel does when the front is killed.
            worker._process.stdin.close()
            await until(lambda: front.pool.view()[0].pid not in (pid, None))

    asyncio.run(go())
