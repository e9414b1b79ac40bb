"""What a call costs while background responses wait: up to 100,000, without a connection each.

    ./dev run python benchmarks/waiting_in_background.py [--counts 1,1000,10000,100000]
        [--held-by queue|store] [--rounds 3] [--count 4000] [--json]

``gateway_speed.py --waiting`` holds each call that waits as an open connection of its caller, of
which a machine has as many as files. A background response waits without one: it is accepted,
stored, and its call waits where all others do. Here so many are ordered over HTTP, of a model
that lets none through, and at each count is measured:

- **Accepting**: CPU of the server for each that was ordered since the last count, until it waits in
  the queue; orders a second, and how long after the last one all of them waited.
- **A call**: CPU of a plain call to another model, turn by turn with the same call at a second
  server where nothing waits: what else the machine does meets both. Of each the median of its
  rounds, and the median of the rounds' ratios.
- **Nothing**: CPU a second while no call comes.
- **Memory**: what each that waits holds of the server's resident bytes.

``--held-by queue`` (usual) sets ``[jobs] running_max`` so high that all of them stand in the
scheduler's queue; ``store`` leaves it as it comes, so that 33 stand there and the rest in the
store. At the end the server is killed, and started again on the same store: the seconds until
``/readyz`` answers 200, those until as many wait in the queue as before, how long plain calls take
meanwhile (20 a second), and how many accepted jobs the store still has.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gateway_speed
from gateway_speed import HERE, Server, cpu_seconds, load, queued, resident_bytes, wait_for

COUNTS = (1, 1_000, 10_000, 100_000)
ORDERING = 64
"""Connections that order at once."""
SENT = 1
"""So many are sent nevertheless at each start: the limit has room for one."""
STARTED_OF_BATCH = 33
"""Of the least urgent class, where ``running_max`` is 100."""
IDLE_SECONDS = 5.0
CLASSES = 3
SETTLE_SECONDS_MAX = 600.0

BACKGROUND = """
[jobs]
queue_max = {jobs}
queue_bytes_max = 10_000_000_000
"""
INSTEAD = {
    "rpm = 1\n": "rpd = 1\n",  # none of them is sent while this runs
    # They are one tenant's, which may otherwise fill half of either.
    "queue_max = 200_000\n": "queue_max = 200_000\nqueue_tenant_share = 1\n",
    "port = 0\n": "port = 0\nbodies_bytes_max = 2_000_000_000\n",
}
RUNNING = "running_max = {running}\n"


def configuration(counts: list[int], held_by: str) -> str:
    """What ``gateway_speed`` serves with, and room for so many jobs."""
    more = BACKGROUND.format(jobs=2 * max(counts))
    if held_by == "queue":
        more += RUNNING.format(running=CLASSES * (max(counts) + SENT))
    served = gateway_speed.CONFIGURATION
    for line, instead in INSTEAD.items():
        assert line in served
        served = served.replace(line, instead)
    return served + more


def start(stack: ExitStack, where: Path, config: str, upstream: str, name: str) -> Server:
    """A server on the store in ``where``, ready."""
    where.mkdir(exist_ok=True)
    file = where / "penstock.toml"
    file.write_text(config.format(store=where / "store", upstream=upstream, connections=1000))
    port = gateway_speed.free_port()
    command = [sys.executable, "-m", "penstock", "serve", "--config", str(file)]
    command += ["--port", str(port), "--log-level", "warning"]
    log = stack.enter_context((where / "log").open("ab"))
    environment = {**os.environ, "BENCHMARK_KEY": "dev"}
    cores = gateway_speed.last_core()
    started = stack.enter_context(
        gateway_speed.process(command, cores, stdout=log, stderr=log, env=environment)
    )
    gateway_speed.wait_for(lambda: gateway_speed.is_ready(port), name)
    return Server(name, port, started)


def mock_provider(stack: ExitStack, where: Path) -> str:
    """The provider's address."""
    file = where / "provider.port"
    command = [sys.executable, str(HERE / "mock_provider.py"), str(file)]
    stack.enter_context(gateway_speed.process(command, gateway_speed.first_core()))
    return f"http://127.0.0.1:{gateway_speed.port_in(file)}"


def accepted(where: Path) -> int:
    """Jobs in the store that have not ended."""
    connection = sqlite3.connect(f"file:{where / 'store' / 'penstock.db'}?mode=ro", uri=True)
    try:
        statement = "SELECT COUNT(*) FROM jobs WHERE state IN ('pending', 'running')"
        return int(connection.execute(statement).fetchone()[0])
    finally:
        connection.close()


def fill(server: Server, count: int, wanted: int) -> dict[str, float]:
    """Order so many, until as many wait as are wanted; what that cost."""
    before, began = cpu_seconds(server.process.pid), time.monotonic()
    load(server.port, count=count, connections=min(count, ORDERING), background=True)
    seconds = time.monotonic() - began
    later = in_queue(server, wanted)
    return {
        "cpu_microseconds_accepting": (cpu_seconds(server.process.pid) - before) * 1e6 / count,
        "accepted_a_second": count / seconds,
        "seconds_until_in_queue": later,
    }


def in_queue(server: Server, wanted: int) -> float:
    """Seconds until so many wait in the scheduler's queue."""
    began = time.monotonic()
    gateway_speed.START_SECONDS_MAX = SETTLE_SECONDS_MAX
    wait_for(lambda: queued(server) >= wanted, f"{wanted} waiting")
    return time.monotonic() - began


def microseconds_a_call(server: Server, count: int) -> float:
    return 1e6 / gateway_speed.requests_per_cpu_second(server, count, stream=False)


def measured(server: Server, idle: Server, rounds: int, count: int) -> dict[str, float]:
    """CPU of a call at both, and of doing nothing."""
    found: list[tuple[float, float]] = []
    for _ in range(rounds):
        found.append((microseconds_a_call(server, count), microseconds_a_call(idle, count)))
    before = cpu_seconds(server.process.pid)
    time.sleep(IDLE_SECONDS)
    nothing = (cpu_seconds(server.process.pid) - before) / IDLE_SECONDS
    return {
        "cpu_microseconds": statistics.median(full for full, _ in found),
        "cpu_microseconds_idle": statistics.median(empty for _, empty in found),
        "ratio": statistics.median(full / empty for full, empty in found),
        "cpu_of_nothing": nothing,
    }


def killed(
    stack: ExitStack, server: Server, where: Path, config: str, upstream: str, wanted: int
) -> dict[str, float]:
    """Kill the server, and see how soon another has all of it."""
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    kept = accepted(where)
    began = time.monotonic()
    again = start(stack, where, config, upstream, "the service after a kill")
    ready = time.monotonic() - began
    latencies: list[float] = []
    while not latencies or queued(again) < wanted:
        latencies += load(again.port, count=40, rate=20)["latencies_ms"]
    latencies.sort()
    return {
        "kept": kept,
        "kept_after": accepted(where),
        "ready_seconds": ready,
        "all_waiting_seconds": time.monotonic() - began,
        "cpu_seconds": cpu_seconds(again.process.pid),
        "p50_ms": gateway_speed.quantile(latencies, 0.5),
        "p99_ms": gateway_speed.quantile(latencies, 0.99),
        "max_ms": latencies[-1],
    }


def figures_of(options: argparse.Namespace, where: Path, stack: ExitStack) -> dict[str, Any]:
    """Everything, count by count."""
    upstream = mock_provider(stack, where)
    config = configuration(options.counts, options.held_by)
    idle = start(stack, where / "idle", config, upstream, "idle")
    server = start(stack, where / "full", config, upstream, "full")
    for one in (idle, server):
        load(one.port, count=options.count)
    before = resident_bytes(server.process.pid)
    figures: dict[str, Any] = {"waiting": {}}
    fill(server, SENT, 0)
    ordered = wanted = 0
    for count in options.counts:
        wanted = count if options.held_by == "queue" else min(count, STARTED_OF_BATCH)
        found = fill(server, count - ordered, wanted)
        ordered = count
        found["bytes_a_waiting"] = (resident_bytes(server.process.pid) - before) / count
        found |= measured(server, idle, options.rounds, options.count)
        found["in_queue"], found["in_store"] = queued(server), accepted(where / "full")
        figures["waiting"][str(count)] = found
        if not options.json:
            print(count, {name: round(value, 3) for name, value in found.items()}, flush=True)
    figures["kill"] = killed(stack, server, where / "full", config, upstream, wanted - SENT)
    return figures


def show(figures: dict[str, Any]) -> None:
    kill = figures["kill"]
    print(
        f"\nafter a kill: {kill['kept']} were kept, {kill['kept_after']} are there; ready after "
        f"{kill['ready_seconds']:.1f} s, all wait again after {kill['all_waiting_seconds']:.1f} s "
        f"({kill['cpu_seconds']:.1f} s of CPU); calls meanwhile: p50 {kill['p50_ms']:.0f} ms, "
        f"p99 {kill['p99_ms']:.0f}, longest {kill['max_ms']:.0f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--counts",
        type=lambda text: sorted(int(one) for one in text.split(",")),
        default=list(COUNTS),
    )
    parser.add_argument("--held-by", choices=("queue", "store"), default="queue")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=4000, help="requests of one measurement")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        figures = figures_of(options, Path(directory), stack)
    print(json.dumps(figures, indent=2)) if options.json else show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
