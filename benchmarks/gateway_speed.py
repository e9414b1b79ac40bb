"""What a call through the gateway costs, beside a proxy that does nothing but forward.

    ./dev run python benchmarks/gateway_speed.py [--rounds 5] [--count 4000] [--json]
    ./dev run python benchmarks/gateway_speed.py --waiting 1,8000,19000

Four servers are measured in one run, turn by turn, each with the same load from the same mock
provider (``speed/``): the *reference*, a bare proxy on uvicorn and aiohttp, which all ratios are
to; the same proxy with our own client; and ``penstock serve`` with authentication, scheduling
under limits, usage, ledger and metrics on, without and with its request log.

- **CPU**: requests per CPU-second of the server's process tree (user + system, from /proc), not
  wall time: others may use the machine. The server is pinned to the last core, load and provider
  to the first. Medians over the rounds; the ratio is the median of the rounds' own ratios.
- **Latency**: at 100 requests a second, paced; each server's latencies of all rounds together.
- **Memory**: resident bytes of the process tree with 1,000 streams open, against those before.
- **Waiting**: CPU per call while so many other calls wait in the queue for a limit that lets
  none of them go, and what each of them holds of the server's memory. Every caller who waits is an
  open connection: the system's limit of open files (``ulimit -Hn``) bounds how many there can be,
  here and in service. ``--waiting`` measures this alone, for as many as are named; the callers sit
  in processes of their own, each with an address of its own (127.0.0.x), since one address has
  28,000 ports.

The exit code is 0 when everything that the project promises holds (``verdicts``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent / "speed"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
REFERENCE = "reference, aiohttp"
REFERENCE_OWN = "reference, own client"
OURS = "penstock"
CONNECTIONS = 16
STREAMS_HELD = 1_000
WAITING_COUNTS = (1, 100, 1_000, 8_000)
WAITING_OF_ONE_PROCESS = 15_000
FILES_BESIDE_CALLERS = 500
WAITING_METRIC = "penstock_units_waiting{"
START_SECONDS_MAX = 60.0
RATIO_MIN = 0.7
ADDED_P50_MS_MAX = 1.0
ADDED_P99_MS_MAX = 5.0
HELD_MEGABYTES_MAX = 100.0

CONFIGURATION = """
[server]
port = 0
connections_max = {connections}

[store]
path = "{store}"

[workers]
count = 0

[providers.mock]
kind = "openai"
base_url = "{upstream}/v1"

[deployments.benchmark]
provider = "mock"
rpm = 60_000_000
tpm = 60_000_000_000

[deployments.scarce]
provider = "mock"
rpm = 1

[classes.batch]
queue_max = 200_000
wait_seconds_max = 10_000_000

[keys.dev]
tenant = "benchmark"
key_env = "BENCHMARK_KEY"
class = "interactive"
admin = true
"""


class Server(NamedTuple):
    """A process under test."""

    name: str
    port: int
    process: subprocess.Popen[bytes]


def first_core() -> set[int]:
    return {min(os.sched_getaffinity(0))}


def last_core() -> set[int]:
    return {max(os.sched_getaffinity(0))}


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listed.read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree so far."""
    ticks = 0
    for member in tree(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / CLOCK_TICKS


def resident_bytes(pid: int) -> int:
    return sum(
        int(Path(f"/proc/{member}/statm").read_text().split()[1]) * PAGE_BYTES
        for member in tree(pid)
    )


@contextmanager
def process(command: list[str], cores: set[int], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process on these cores, ended with the block."""
    started = subprocess.Popen(command, **more)
    os.sched_setaffinity(started.pid, cores)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Poll until it holds. Raises SystemExit when it does not in time."""
    ends_at = time.monotonic() + START_SECONDS_MAX
    while not condition():
        if time.monotonic() > ends_at:
            raise SystemExit(f"{what} did not come up within {START_SECONDS_MAX:g} s")
        time.sleep(0.05)


def port_in(file: Path) -> int:
    wait_for(lambda: file.exists() and file.read_text().strip() != "", file.stem)
    return int(file.read_text())


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start_servers(
    stack: ExitStack, directory: Path, connections: int, *, only_ours: bool
) -> list[Server]:
    """The mock provider, and what stands in front of it."""
    file = directory / "provider.port"
    provider = [sys.executable, str(HERE / "mock_provider.py"), str(file)]
    stack.enter_context(process(provider, first_core()))
    upstream = f"http://127.0.0.1:{port_in(file)}"
    servers = []
    references = () if only_ours else ((REFERENCE, "aiohttp"), (REFERENCE_OWN, "own"))
    for name, client in references:
        file = directory / f"{client}.port"
        command = [sys.executable, str(HERE / "reference.py"), str(file), upstream, client]
        started = stack.enter_context(process(command, last_core()))
        servers.append(Server(name, port_in(file), started))
    logging = () if only_ours else ((f"{OURS}, logging", "info"),)
    for name, level in ((OURS, "warning"), *logging):
        where = directory / name.replace(", ", "-")
        where.mkdir()
        config = where / "penstock.toml"
        config.write_text(
            CONFIGURATION.format(store=where / "store", upstream=upstream, connections=connections)
        )
        port = free_port()
        command = [sys.executable, "-m", "penstock", "serve", "--config", str(config)]
        command += ["--port", str(port), "--log-level", level]
        log = stack.enter_context((where / "log").open("wb"))
        environment = {**os.environ, "BENCHMARK_KEY": "dev"}
        started = stack.enter_context(
            process(command, last_core(), stdout=log, stderr=log, env=environment)
        )
        wait_for(lambda port=port: is_ready(port), name)
        servers.append(Server(name, port, started))
    return servers


def load(port: int, **spec: Any) -> dict[str, Any]:
    """Put load on a server from a process of its own; its figures."""
    whole = {"port": port, "connections": CONNECTIONS, "stream": False, "rate": None, **spec}
    command = [sys.executable, str(HERE / "load.py"), json.dumps(whole)]
    with process(command, first_core(), stdout=subprocess.PIPE) as started:
        printed, _ = started.communicate()
    if started.returncode:
        raise SystemExit("the load generator failed")
    figures: dict[str, Any] = json.loads(printed)
    if figures["failed"]:
        raise SystemExit(f"{figures['failed']} of {whole['count']} requests failed")
    return figures


def requests_per_cpu_second(server: Server, count: int, *, stream: bool) -> float:
    before = cpu_seconds(server.process.pid)
    load(server.port, count=count, stream=stream)
    return count / (cpu_seconds(server.process.pid) - before)


def throughput(servers: list[Server], rounds: int, count: int, *, stream: bool) -> dict[str, Any]:
    """Requests per CPU-second of each, and the ratio to the reference round by round."""
    rates: dict[str, list[float]] = {server.name: [] for server in servers}
    for server in servers:
        load(server.port, count=count // 4, stream=stream)
    for _ in range(rounds):
        for server in servers:
            rates[server.name].append(requests_per_cpu_second(server, count, stream=stream))
    reference = rates[servers[0].name]
    return {
        name: {
            "per_cpu_second": statistics.median(found),
            "ratio": statistics.median(one / base for one, base in zip(found, reference)),
        }
        for name, found in rates.items()
    }


def quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def latency(servers: list[Server], rounds: int) -> dict[str, Any]:
    """Milliseconds at 100 requests a second."""
    found: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            found[server.name] += load(server.port, count=500, rate=100)["latencies_ms"]
    return {
        name: {"p50_ms": quantile(sorted(values), 0.5), "p99_ms": quantile(sorted(values), 0.99)}
        for name, values in found.items()
    }


def memory(servers: list[Server]) -> dict[str, Any]:
    """Megabytes with and without many streams open."""
    figures = {}
    for server in servers:
        before = resident_bytes(server.process.pid)
        spec = {"port": server.port, "count": STREAMS_HELD, "hold": True}
        command = [sys.executable, str(HERE / "load.py"), json.dumps(spec)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with process(command, first_core(), **pipes) as started:
            assert started.stdout is not None
            if b"begun" not in started.stdout.readline():
                raise SystemExit("the streams did not begin")
            during = resident_bytes(server.process.pid)
            started.communicate(b"\n")
        figures[server.name] = {"before_mb": before / 1e6, "with_streams_mb": during / 1e6}
    return figures


def waiting(
    servers: list[Server], rounds: int, count: int, waiting_counts: Sequence[int]
) -> dict[str, Any]:
    """CPU microseconds of a call while so many others wait, for the server without a log.

    The counts take turns, and each is the least of its rounds; memory is that of the first round,
    since what was taken is not given back.
    """
    server = next(server for server in servers if server.name == OURS)
    requests_per_cpu_second(server, count, stream=False)
    before = resident_bytes(server.process.pid)
    figures: dict[str, Any] = {}
    for _ in range(rounds):
        for waiting_count in waiting_counts:
            with callers_waiting(server, waiting_count):
                held = (resident_bytes(server.process.pid) - before) / waiting_count
                rate = requests_per_cpu_second(server, count, stream=False)
            wait_for(lambda: queued(server) == 0, "an empty queue")
            found = figures.setdefault(
                str(waiting_count), {"cpu_microseconds": 1e6 / rate, "bytes_a_caller": held}
            )
            found["cpu_microseconds"] = min(found["cpu_microseconds"], 1e6 / rate)
    return figures


@contextmanager
def callers_waiting(server: Server, waiting_count: int) -> Iterator[None]:
    """So many calls in the queue, from as many processes as their ports and files need."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ExitStack() as stack:
        holders = []
        for number in range(-(-waiting_count // WAITING_OF_ONE_PROCESS)):
            held = min(WAITING_OF_ONE_PROCESS, waiting_count - number * WAITING_OF_ONE_PROCESS)
            spec = {
                "port": server.port,
                "count": held,
                "wait": True,
                "from": f"127.0.0.{number + 2}",
            }
            command = [sys.executable, str(HERE / "load.py"), json.dumps(spec)]
            holders.append(stack.enter_context(process(command, first_core(), **pipes)))
        for holder in holders:
            assert holder.stdout is not None
            if b"begun" not in holder.stdout.readline():
                raise SystemExit("the calls did not begin to wait")
        wait_for(lambda: queued(server) >= waiting_count - 2, f"{waiting_count} waiting")
        yield
        for holder in holders:
            holder.communicate(b"\n")


def waiting_counts_of(text: str) -> list[int]:
    """Counts from the command line. Raises SystemExit for more than there can be."""
    counts = [int(one) for one in text.split(",")]
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max(counts) > files - FILES_BESIDE_CALLERS:
        raise SystemExit(
            f"each caller is an open file of the server, of which the system allows {files}; "
            "raise it with `ulimit -Hn`"
        )
    return counts


def queued(server: Server) -> int:
    """How many calls wait, as the service's metrics say."""
    url = f"http://127.0.0.1:{server.port}/metrics"
    request = urllib.request.Request(url, headers={"authorization": "Bearer dev"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith(WAITING_METRIC)))


def verdicts(figures: dict[str, Any]) -> dict[str, bool]:
    """What the project promises, and whether it holds."""
    reference, ours = figures["latency"][REFERENCE], figures["latency"][OURS]
    return {
        f"plain calls: at least {RATIO_MIN:g} of the reference": (
            figures["plain"][OURS]["ratio"] >= RATIO_MIN
        ),
        f"streams: at least {RATIO_MIN:g} of the reference": (
            figures["streams"][OURS]["ratio"] >= RATIO_MIN
        ),
        f"added latency: p50 at most {ADDED_P50_MS_MAX:g} ms": (
            ours["p50_ms"] - reference["p50_ms"] <= ADDED_P50_MS_MAX
        ),
        f"added latency: p99 at most {ADDED_P99_MS_MAX:g} ms": (
            ours["p99_ms"] - reference["p99_ms"] <= ADDED_P99_MS_MAX
        ),
        f"{STREAMS_HELD} streams: at most {HELD_MEGABYTES_MAX:g} MB": (
            figures["memory"][OURS]["with_streams_mb"] <= HELD_MEGABYTES_MAX
        ),
    }


def show(figures: dict[str, Any]) -> None:
    """The table."""
    for part, unit in (("plain", "2 kB JSON"), ("streams", "streams of 20 chunks")):
        print(f"\n{unit}: requests per CPU-second")
        for name, found in figures[part].items():
            print(f"  {name:<22} {found['per_cpu_second']:8.0f}   {found['ratio']:.2f}")
    print("\nlatency at 100 requests/s, ms")
    for name, found in figures["latency"].items():
        print(f"  {name:<22} p50 {found['p50_ms']:.2f}   p99 {found['p99_ms']:.2f}")
    print(f"\nresident MB: before, with {STREAMS_HELD} streams open")
    for name, found in figures["memory"].items():
        print(f"  {name:<22} {found['before_mb']:8.1f} {found['with_streams_mb']:8.1f}")
    show_waiting(figures["waiting"])
    print()
    for promise, holds in figures["verdicts"].items():
        print(f"  {'holds' if holds else 'FAILS'}  {promise}")


def show_waiting(figures: dict[str, Any]) -> None:
    print("\nwhile others wait: CPU microseconds a call, bytes of memory each of them holds")
    for count, found in figures.items():
        cost, held = found["cpu_microseconds"], found["bytes_a_caller"]
        print(f"  {count:>6} waiting: {cost:6.0f}  {held:8.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=4000, help="requests of one measurement")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--waiting",
        metavar="COUNTS",
        type=waiting_counts_of,
        help="measure only what a call costs while so many others wait, such as 1,8000,19000",
    )
    options = parser.parse_args()
    waiting_counts = options.waiting or WAITING_COUNTS
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        connections = max(waiting_counts) + FILES_BESIDE_CALLERS
        only_ours = options.waiting is not None
        servers = start_servers(stack, Path(directory), connections, only_ours=only_ours)
        rounds, count = options.rounds, options.count
        if options.waiting:
            found = waiting(servers, min(rounds, 3), count, waiting_counts)
            print(json.dumps(found)) if options.json else show_waiting(found)
            return 0
        figures: dict[str, Any] = {
            "plain": throughput(servers, rounds, count, stream=False),
            "streams": throughput(servers, rounds, count // 4, stream=True),
            "latency": latency(servers, rounds),
            "memory": memory(servers),
            "waiting": waiting(servers, 1, count, waiting_counts),
        }
    figures["verdicts"] = verdicts(figures)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0 if all(figures["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
