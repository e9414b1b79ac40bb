"""What the engine promises: nothing accepted is lost, nothing ended is begun again."""

import asyncio
import threading

import msgspec
import pytest

from penstock.errors import Draining, NotFound, QueueFull, Unprocessable
from penstock.jobs import engine, states
from penstock.jobs.engine import Order
from penstock.store import jobs as store
from penstock.store.jobs import Idempotency


def run(work) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


def test_an_accepted_job_is_run_in_the_name_of_its_key_and_gives_its_result(bench, own) -> None:
    async def work() -> None:
        async with bench() as one:
            job_id = await one.order(body=b'{"input":1}', class_name="batch")
            await one.begun(1)
            attempt = one.played.begun[0]
            one.played.end(job_id, b'{"output":2}')
            job = await one.jobs.wait("acme", job_id)

            assert attempt.body == b'{"input":1}'
            assert attempt.principal == msgspec.structs.replace(
                own, class_default="batch", ceiling="batch"
            )
            assert attempt.inside.job_id == job_id
            assert (job.state, job.attempts) == ("success", 1)
            assert await one.jobs.result(job) == ("application/json", b'{"output":2}')
            assert await asyncio.wrap_future(one.store.body(job_id)) == b""

    run(work)


def test_what_ran_when_the_process_died_runs_again_at_once_in_the_next_one(bench) -> None:
    async def work() -> None:
        async with bench(dies=True, attempts_max=1) as first:
            running = await first.order()
            await first.begun(1)
            waiting = await first.order(after_seconds=0.01)
            await first.begun(2)
        async with bench(attempts_max=1) as second:
            assert sorted(await second.begun(2)) == sorted([running, waiting])
            for job_id in (running, waiting):
                second.played.end(job_id)
                job = await second.jobs.wait("acme", job_id)

                assert (job.state, job.attempts) == ("success", 2)

    run(work)


class AtOnce:
    """Stands before a method of a store, and notes how many of its works were under way."""

    def __init__(self, work) -> None:
        self._work = work
        self._lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, *arguments, **named):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        future = self._work(*arguments, **named)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _future) -> None:
        with self._lock:
            self.now -= 1


def test_very_many_that_ran_when_the_process_died_start_a_few_at_a_time(bench, monkeypatch) -> None:
    """Others are served meanwhile; and of the work that is given to the store, other works, too."""
    monkeypatch.setattr(store, "GIVEN_BACK_TOGETHER_MAX", 3)
    monkeypatch.setattr(engine, "STARTING_MAX", 2)

    async def work() -> None:
        async with bench(dies=True) as first:
            ordered = [await first.order() for _ in range(8)]
            await first.begun(8)
        async with bench() as second:
            second.store.body = bodies = AtOnce(second.store.body)
            assert sorted(await second.begun(8)) == sorted(ordered)
            assert [attempt.job.attempts for attempt in second.played.begun] == [2] * 8
            assert bodies.most <= 2

    run(work)


def test_however_many_end_at_once_the_store_is_given_a_few_at_a_time(bench, monkeypatch) -> None:
    """It takes so many works; more would be refused, and tried again and again."""
    monkeypatch.setattr(engine, "KEPT_TOGETHER_MAX", 2)

    async def work() -> None:
        async with bench() as one:
            ordered = [await one.order() for _ in range(8)]
            await one.begun(8)
            one.store.finish = ends = AtOnce(one.store.finish)
            for job_id in ordered:
                one.played.end(job_id)
            for job_id in ordered:
                assert (await one.jobs.wait("acme", job_id)).state == "success"
            assert ends.most <= 2

    run(work)


def test_a_second_process_runs_nothing_while_the_first_lives(bench) -> None:
    async def work() -> None:
        async with bench() as first:
            job_id = await first.order()
            await first.begun(1)
            async with bench() as second:
                other_id = await second.order()
                seen = await second.jobs.wait("acme", job_id, 0.1)

                assert seen.state == "running"
                assert second.played.begun == []
            first.played.end(job_id)
            # The first one learns of what the other has accepted as soon as it looks.
            assert await first.begun(2) == [job_id, other_id]

    run(work)


def test_a_poison_run_is_given_up_with_the_reason(bench) -> None:
    async def work() -> None:
        async with bench(attempts_max=2) as one:
            job_id = await one.order()
            for attempt in (1, 2):
                await one.begun(attempt)
                one.played.break_off(job_id)
            job = await one.jobs.wait("acme", job_id)

            assert (job.state, job.error_code, job.attempts) == ("error", "worker_lost", 2)
            assert job.error_message == (
                "Attempt 2 broke off as those before, without getting on: it died"
            )

    run(work)


def test_a_full_queue_counts_against_no_job(bench, monkeypatch) -> None:
    monkeypatch.setattr(states, "NO_PLACE_SECONDS", 0.01)

    async def work() -> None:
        async with bench(attempts_max=1) as one:
            job_id = await one.order()
            for attempt in (1, 2, 3, 4):
                await one.begun(attempt)
                one.played.break_off(job_id, code="queue_full")
            await one.begun(5)
            one.played.end(job_id)

            assert (await one.jobs.wait("acme", job_id)).state == "success"

    run(work)


def test_a_cancelled_job_stops_where_it_stands(bench) -> None:
    async def work() -> None:
        async with bench() as one:
            running = await one.order()
            await one.begun(1)
            waiting = await one.order(after_seconds=1000)

            assert (await one.jobs.cancel("acme", running)).state == "interrupted"
            assert (await one.jobs.cancel("acme", waiting)).state == "interrupted"
            assert one.played.cancelled == [running]
            assert (await one.jobs.cancel("acme", running)).state == "interrupted"

    run(work)


def test_a_job_of_another_tenant_is_not_there(bench, other) -> None:
    async def work() -> None:
        async with bench() as one:
            job_id = await one.order()
            await one.begun(1)
            for ask in (one.jobs.get, one.jobs.cancel, one.jobs.delete, one.jobs.wait):
                with pytest.raises(NotFound):
                    await ask(other.tenant, job_id)
            with pytest.raises(NotFound):
                await anext(one.jobs.events(other.tenant, job_id))
            assert await one.jobs.page(other.tenant) == []
            assert [job.job_id for job in await one.jobs.page("acme")] == [job_id]

    run(work)


def test_urgent_jobs_start_while_less_urgent_ones_wait_for_a_place(bench) -> None:
    async def work() -> None:
        async with bench(running_max=3) as one:
            batch = [await one.order(class_name="batch") for _ in range(3)]
            assert await one.begun(1) == batch[:1]
            urgent = await one.order(class_name="interactive")
            assert await one.begun(2) == [batch[0], urgent]
            one.played.end(batch[0])
            assert await one.begun(3) == [batch[0], urgent, batch[1]]

    run(work)


def test_the_earliest_deadline_of_a_class_starts_first_and_a_missed_one_ends_the_job(bench) -> None:
    async def work() -> None:
        async with bench(running_max=1) as one:
            first = await one.order()
            await one.begun(1)
            late = await one.order()
            early = await one.order(deadline_seconds=60)
            missed = await one.order(deadline_seconds=0)
            one.played.end(first)
            assert await one.begun(2) == [first, early]
            one.played.end(early)
            assert await one.begun(3) == [first, early, late]
            assert (await one.jobs.get("acme", missed)).state == "timeout"

    run(work)


def test_jobs_of_one_thread_run_one_at_a_time_in_order(bench) -> None:
    async def work() -> None:
        async with bench() as one:
            first = await one.order(thread_id="t")
            second = await one.order(thread_id="t")
            elsewhere = await one.order(thread_id="u")
            assert sorted(await one.begun(2)) == sorted([first, elsewhere])
            one.played.end(first)
            assert (await one.begun(3))[2] == second

    run(work)


def test_a_reader_of_events_comes_back_with_the_last_number_it_saw(bench) -> None:
    async def work() -> None:
        async with bench() as one:
            job_id = await one.order()
            await one.begun(1)
            for word in (b"1", b"2", b"3"):
                await one.played.emits[job_id]("data", word)
            events = one.jobs.events("acme", job_id)
            seen = [await anext(events) for _ in range(2)]
            await events.aclose()
            one.played.end(job_id)
            rest = [event async for event in one.jobs.events("acme", job_id, seen[-1].sequence)]

            assert [(event.sequence, event.data) for event in seen + rest] == [
                (1, b"1"),
                (2, b"2"),
                (3, b"3"),
            ]

    run(work)


def test_events_beyond_their_bound_are_left_out_and_the_job_says_so(bench) -> None:
    async def work() -> None:
        async with bench(events_bytes_max=5) as one:
            job_id = await one.order()
            await one.begun(1)
            for _ in range(3):
                await one.played.emits[job_id](None, b"four")
            one.played.end(job_id)
            job = await one.jobs.wait("acme", job_id)

            assert job.events_lost
            assert [event.data async for event in one.jobs.events("acme", job_id)] == [b"four"]

    run(work)


def test_the_same_idempotency_key_makes_one_job_and_another_body_is_refused(bench, own) -> None:
    async def work() -> None:
        async with bench() as one:
            order = Order(principal=own, class_name="batch", kind="test", path="/", body=b"1")
            key = Idempotency("k", b"digest")
            made = await asyncio.gather(*(one.jobs.create(order, key) for _ in range(5)))

            assert len({job.job_id for job, _ in made}) == 1
            assert sum(created for _, created in made) == 1
            with pytest.raises(Unprocessable):
                await one.jobs.create(order, Idempotency("k", b"other"))
            await one.jobs.delete("acme", made[0][0].job_id)
            assert (await one.jobs.create(order, Idempotency("k", b"other")))[1]

    run(work)


def test_one_tenant_has_so_many_jobs_and_the_others_go_on(bench, other) -> None:
    async def work() -> None:
        async with bench(queue_max=2, queue_bytes_max=10) as one:
            first = await one.order(body=b"12345")
            with pytest.raises(QueueFull):
                await one.order(body=b"123456")
            await one.order()
            with pytest.raises(QueueFull):
                await one.order()
            await one.order(other)
            await one.jobs.cancel("acme", first)
            await one.order()

    run(work)


def test_a_stopping_engine_takes_nothing_new_and_gives_back_what_runs(bench) -> None:
    async def work() -> None:
        async with bench() as one:
            job_id = await one.order()
            await one.begun(1)
            await one.jobs.stop(0.0)
            with pytest.raises(Draining):
                await one.order()
            job = await one.jobs.get("acme", job_id)

            assert (job.state, job.blame) == ("pending", 0)

    run(work)


def test_a_job_whose_key_was_revoked_ends(bench, own) -> None:
    async def work() -> None:
        async with bench() as one:
            gone = msgspec.structs.replace(own, key_id="gone")
            job = await one.jobs.wait("acme", await one.order(gone))

            assert (job.state, job.error_code) == ("error", "invalid_api_key")

    run(work)


def test_what_is_old_is_forgotten_with_all_its_parts(bench) -> None:
    async def work() -> None:
        async with bench() as one:
            job_id = await one.order()
            await one.begun(1)
            await one.played.emits[job_id](None, b"x")
            one.played.end(job_id)
            job = await one.jobs.wait("acme", job_id)
            await asyncio.wrap_future(one.store.purge(job.finished_at + 1))

            with pytest.raises(NotFound):
                await one.jobs.get("acme", job_id)
            assert await one.jobs.result(job) is None
            assert await asyncio.wrap_future(one.store.last_event(job_id)) == (0, 0)

    run(work)
