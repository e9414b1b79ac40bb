"""Threads of a worker: urgency decides, headroom is kept, what outlives its run is counted."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context

import pytest

from penstock.chains.worker import identity
from penstock.chains.worker.identity import (
    IdentityHook,
    Run,
    RunAbandoned,
    carry_into_threads,
    current_run,
)
from penstock.chains.worker.threads import Threads
from penstock.config.model import ClassTable
from penstock.units import RunIdentity

CLASSES = {"interactive": ClassTable(rank=0), "batch": ClassTable(rank=1)}


def run_of(class_name):
    return Run(RunIdentity("r", "chain", "key", "tenant", class_name, arrival=0.0))


@pytest.fixture
def submit():
    """``submit(run, fn)`` as LangChain does it: in a copy of the run's context."""
    with Threads(4, CLASSES) as threads:

        def go(run, fn):
            context = copy_context()
            context.run(current_run.set, run)
            return context.run(threads.submit, fn)

        go.threads = threads
        yield go


def test_batch_work_leaves_a_thread_to_interactive_work_which_also_goes_first(submit):
    release, order = threading.Event(), []
    batch, interactive = run_of("batch"), run_of("interactive")
    held = [submit(batch, release.wait) for _ in range(6)]
    # Three of four threads are taken, three pieces of batch work wait.
    assert "at once" == submit(interactive, lambda: "at once").result(5)
    held.append(submit(interactive, release.wait))
    later = [
        submit(batch, lambda: order.append("batch")),
        submit(interactive, lambda: order.append("interactive")),
    ]
    release.set()
    done, late = wait([*held, *later], timeout=5)
    assert not late
    assert ["interactive", "batch"] == order
    assert len(done) == 9


def test_a_thread_that_works_for_a_run_that_is_over_is_counted_until_it_returns(submit):
    release, run = threading.Event(), run_of("batch")
    stuck = submit(run, release.wait)
    assert 0 == submit.threads.overdue
    run.abandoned = True
    assert 1 == submit.threads.overdue
    release.set()
    stuck.result(5)
    assert "after" == submit(run_of("batch"), lambda: "after").result(5)
    assert 0 == submit.threads.overdue


def test_what_was_cancelled_while_it_waited_is_not_called_and_an_error_is_handed_on(submit):
    release, called = threading.Event(), []
    held = [submit(run_of("batch"), release.wait) for _ in range(3)]
    waiting = submit(run_of("batch"), lambda: called.append(1))
    assert waiting.cancel()
    release.set()
    wait(held, timeout=5)
    with pytest.raises(ZeroDivisionError):
        submit(run_of("interactive"), lambda: 1 / 0).result(5)
    assert not called


@pytest.fixture
def carried(monkeypatch):
    """The patches in place for one test."""
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", ThreadPoolExecutor.submit)
    carry_into_threads()


def in_a_run(run, work):
    context = copy_context()
    context.run(current_run.set, run)
    return context.run(work)


def seen_by_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(identity._run_of_thread()))
    thread.start()
    thread.join(5)
    return found[0]


@pytest.mark.usefixtures("carried")
def test_a_bare_thread_belongs_to_the_run_that_starts_it_while_that_lasts():
    run = run_of("batch")
    assert in_a_run(run, seen_by_a_thread) is run
    assert in_a_run(None, seen_by_a_thread) is None
    run.ended = True
    assert in_a_run(run, seen_by_a_thread) is None


@pytest.mark.usefixtures("carried")
def test_a_pools_thread_belongs_to_the_run_that_submits_not_to_the_one_that_started_it():
    first, second = run_of("batch"), run_of("interactive")
    with ThreadPoolExecutor(1) as pool:

        def submitted():
            return pool.submit(identity._run_of_thread).result(5)

        assert in_a_run(first, submitted) is first
        assert in_a_run(second, submitted) is second
        assert in_a_run(None, submitted) is None


def test_a_run_that_timed_out_makes_no_more_calls():
    class Request:
        url, method = "http://gateway:1/v1/x", "POST"

        def __init__(self):
            self.headers = {}

    run, hook = run_of("batch"), IdentityHook("http://gateway:1", b"k")
    request = Request()
    in_a_run(run, lambda: hook.add_to(request))
    assert "penstock-run" in request.headers
    run.abandoned = True
    with pytest.raises(RunAbandoned, match="no more LLM calls"):
        in_a_run(run, lambda: hook.add_to(Request()))
