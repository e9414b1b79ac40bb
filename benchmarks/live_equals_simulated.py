"""Whether the simulator tells the truth: one scenario, played live and in virtual time.

    ./dev run python benchmarks/live_equals_simulated.py [--seconds 120] [--json]

Live: ``penstock serve`` in a process of its own, in front of a ``penstock sandbox`` process that
enforces the scenario's limits, and a client for every run, over HTTP, in real time. Simulated:
``penstock.simulate`` with the policy ``penstock``. Both play the same arrivals, sizes, classes,
tenants, limits and timing, and both are counted by ``simulate.report``: a wait is what the
service told in ``penstock-wait-ms`` or, where a stream waited for so long that its head came first,
the time to its first token less the provider's; a chain's time is its client's clock, the use of
the limit and the 429s are what the sandbox counted.

The scenario is the simulator's own ``flood``, with sizes cut to a quarter so that a machine with
two cores has little to do: interactive single calls and chains of three to five steps with a
tool's time between them, and halfway a minute's worth of them in five seconds; standard calls with
deadlines; four equal batch tenants. Together they ask for half as much again as the limit, whose
bucket holds two seconds, so that people do wait.

What is made equal first, in the scenario itself:

- Sizes are read back from the bodies by the sandbox's own code, words being no exact number of
  tokens.
- A caller from outside cannot say to which run a call belongs, so here a chain's steps are calls
  in sequence and no more: the class is ordered by arrival, its ``seniority_seconds`` next to
  nothing.
- A batch tenant dumps its calls at 50 a second, not all in one moment: the time that one process
  needs to open hundreds of connections is not what is measured.
- ``Prefer: wait=`` is in whole seconds, so deadlines are.
- The way to the sandbox is a loopback's, and its first token does not depend on the prompt.

- The simulated scheduler is told the sizes that the gateway's own estimator makes of the bodies.
  The last column is the simulator as it stands, where a prompt's size is known: for comparison,
  it does not count.

What stays different is the moment at which a request reaches the provider, and all that a busy
machine adds. A line agrees within 10 % or 100 ms (429s: within 0.1 % of what was sent;
failures: exactly). The exit code is 0 when all lines do.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
from sandbox_counts import Json, attempts, charged, denied, failed

from penstock.errors import DeadlineExceeded, DeadlineUnreachable
from penstock.providers.base import Endpoint, ParsedCall
from penstock.providers.estimate import Estimator
from penstock.providers.registry import ADAPTERS
from penstock.sandbox import openai_shape
from penstock.sandbox.answers import answer_to
from penstock.sandbox.text import BYTES_PER_TOKEN, compose
from penstock.simulate.engine import Simulation
from penstock.simulate.policies.ours import Ours
from penstock.simulate.provider_world import Account
from penstock.simulate.record import Record
from penstock.simulate.report import Figures, binding_limit, figures, play
from penstock.simulate.runs import Call, Ending, Run, Step
from penstock.simulate.scenario import Scenario, Timing
from penstock.simulate.workloads import Shape, scenario_of, synthetic_rows
from penstock.units import Estimate, LimitName

SEED = 0
SIZE_DIVISOR = 4
SHAPE = Shape(load=1.5, burst_seconds=2.0, charge="openai", seed=SEED)
SETTLING_SECONDS = 20.0
TIMING = Timing(
    one_way_seconds=0.001,
    jitter_seconds=0.001,
    first_token_seconds=0.3,
    seconds_per_token_input=0.0,
    tokens_per_second=80.0,
)
SENIORITY_SECONDS = 1e-6
BATCH_CALLS_PER_SECOND = 50.0
SECONDS_MIN, SECONDS_MAX = 10.0, 240.0
START_SECONDS_MAX = 30.0
DRAIN_SECONDS_MAX = 40.0
BYTES_PER_WORD = 7

AGREES_SHARE = 0.10
AGREES_SECONDS = 0.1
AGREES_429_SHARE = 0.001

PROVIDER_KEY_ENV = "BENCHMARK_PROVIDER_KEY"
STATS_CALLS = 50_000
STREAM_END = b"data: [DONE]\n\n"
REFUSALS = frozenset({DeadlineUnreachable.code, DeadlineExceeded.code})


# The scenario


class Script(NamedTuple):
    """What is played twice, and the bodies of its calls, by run and step."""

    scenario: Scenario
    bodies: dict[tuple[str, int], bytes]


def script_for(seconds: float) -> Script:
    """The scenario, with what it has to have in common with the live one."""
    rows = [
        row._replace(
            tokens_input=max(1, row.tokens_input // SIZE_DIVISOR),
            tokens_output=max(1, row.tokens_output // SIZE_DIVISOR),
        )
        for row in synthetic_rows("flood", seconds, SEED)
    ]
    settling_seconds = min(SETTLING_SECONDS, seconds / 4)
    shape = msgspec.structs.replace(SHAPE, seconds=seconds, settling_seconds=settling_seconds)
    scenario = scenario_of("flood", rows, shape)
    first = min(each.rank for each in scenario.classes)
    classes = tuple(
        msgspec.structs.replace(each, order="arrival", seniority_seconds=SENIORITY_SECONDS)
        if each.rank == first
        else each
        for each in scenario.classes
    )
    runs = sorted(paced(scenario.runs), key=lambda run: run.arrival)
    bodies = {
        (run.name, number): body_of(run, number) for run in runs for number in range(len(run.steps))
    }
    runs = [as_sent(run, bodies) for run in runs]
    scenario = msgspec.structs.replace(scenario, runs=runs, classes=classes, timing=TIMING)
    return Script(scenario, bodies)


def paced(runs: list[Run]) -> Iterator[Run]:
    """The runs, those that a tenant dumps in one moment one after the other."""

    def dump(run: Run) -> tuple[str, float]:
        return run.tenant, run.arrival

    for _, together in groupby(sorted(runs, key=dump), key=dump):
        for number, run in enumerate(together):
            yield run._replace(arrival=run.arrival + number / BATCH_CALLS_PER_SECOND)


def as_sent(run: Run, bodies: dict[tuple[str, int], bytes]) -> Run:
    """A run in the sizes that the sandbox will see, its patience in whole seconds."""
    steps = []
    for number, step in enumerate(run.steps):
        prompt = openai_shape.read(bodies[run.name, number], {})
        output = answer_to(prompt).tokens_output
        steps.append(step._replace(tokens_input=prompt.tokens_input, tokens_output=output))
    patience = run.patience_seconds
    return run._replace(
        steps=tuple(steps), patience_seconds=None if patience is None else float(round(patience))
    )


def body_of(run: Run, number: int) -> bytes:
    """The request of one step, of about its size, which asks for an answer of about its size."""
    step: Step = run.steps[number]
    seed = hashlib.sha256(f"{run.name} {number}".encode()).digest()
    prompt, answer = (
        max(1, tokens * BYTES_PER_TOKEN // BYTES_PER_WORD)
        for tokens in (step.tokens_input, step.tokens_output)
    )
    text = f"Say it in {answer} words. {compose(f'in {prompt} words', seed)}"
    return msgspec.json.encode(
        {
            "model": "sandbox",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": step.tokens_output_max,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


# Live


class Silent:
    """Stands for the provider in a ``Record`` of what was played live.

    The sandbox alone knows its levels, and is asked for them at the marks.
    """

    def account(self, _now: float, _limit: LimitName) -> Account:
        """A level that says nothing."""
        return Account(0.0, 0.0, 1.0, 1.0)


class Played(NamedTuple):
    """What ``figures`` takes of a simulation."""

    scenario: Scenario
    record: Record


class Live:
    """Plays a script through a service, one client a run, and keeps the books of it."""

    def __init__(self, script: Script, keys: dict[str, str], service: str, sandbox: str) -> None:
        self.calls: list[Call] = []
        self.late_seconds_max = 0.0
        self.denied_at: list[float] = []
        self._script = script
        self._keys = keys
        self._address = f"{service}/v1/chat/completions"
        self._stats_address = f"{sandbox}/stats?calls={STATS_CALLS}"
        self._loop = asyncio.get_running_loop()
        self._began = 0.0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._loop.time() - self._began

    async def play(self) -> Record:
        """Everything, in real time."""
        scenario = self._script.scenario
        last = max(scenario.classes, key=lambda each: each.rank).name
        urgent: list[asyncio.Task[None]] = []
        batch: list[asyncio.Task[None]] = []
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            self._began = self._loop.time()
            marks = [
                asyncio.create_task(self._seen_at(session, at))
                for at in (scenario.settling_seconds, scenario.seconds)
            ]
            for run in scenario.runs:
                await self._until(run.arrival)
                tasks = batch if run.class_name == last else urgent
                tasks.append(asyncio.create_task(self._run(session, run)))
            seen = await asyncio.gather(*marks)
            # As in the simulation: what people and services asked for is answered, batch is not.
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await asyncio.gather(*urgent)
            seen.append(await self._seen(session))
            skew = time.time() - self.now
            self.denied_at = [
                round(each["at"] - skew, 2)
                for each in seen[-1]["last_calls"]
                if each["status"] == 429
            ]
            for task in batch:
                task.cancel()
            for result in await asyncio.gather(*batch, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result
        return self._record(seen)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.now))
        self.late_seconds_max = max(self.late_seconds_max, self.now - at)

    async def _run(self, session: aiohttp.ClientSession, run: Run) -> None:
        for number, step in enumerate(run.steps):
            if step.tool_seconds:
                await asyncio.sleep(step.tool_seconds)
            call = Call(run, number, len(self.calls), self.now)
            self.calls.append(call)
            call.ending = await self._call(session, call)
            call.ended_at = self.now
            if call.ending is not Ending.SUCCESS:
                return

    async def _call(self, session: aiohttp.ClientSession, call: Call) -> Ending:
        run = call.run
        headers = {"Authorization": f"Bearer {self._keys[run.tenant]}"}
        if run.patience_seconds is not None:
            headers["Prefer"] = f"wait={run.patience_seconds:.0f}"
        body = self._script.bodies[run.name, call.step_number]
        async with session.post(self._address, data=body, headers=headers) as answer:
            if answer.status != 200:
                return _unsuccessful(await answer.read())
            text = b""
            async for piece in answer.content.iter_any():
                text += piece
                if call.accepted_at is None and b"data: {" in text:
                    call.accepted_at = self._accepted_at(call, answer)
        if text.endswith(STREAM_END):
            return Ending.SUCCESS
        call.accepted_at = None
        return _unsuccessful(text.rpartition(b"data: ")[2])

    def _accepted_at(self, call: Call, answer: aiohttp.ClientResponse) -> float:
        """When its grant came. A stream that waited over a second has its head before that, so
        there the provider's time to its first token is taken from the moment of that token."""
        told = answer.headers.get("penstock-wait-ms")
        if told is None:
            return self.now - TIMING.first_token_seconds
        return call.ready_at + float(told) / 1000

    async def _seen_at(self, session: aiohttp.ClientSession, at: float) -> Json:
        await self._until(at)
        return await self._seen(session)

    async def _seen(self, session: aiohttp.ClientSession) -> Json:
        """What the sandbox has counted so far."""
        async with session.get(self._stats_address) as answer:
            return json.loads(await answer.read())

    def _record(self, seen: list[Json]) -> Record:
        """The simulator's books of what was played."""
        record = Record(self._script.scenario, [Silent()])
        moments: list[tuple[float, int, Callable[[], None]]] = []
        for call in self.calls:
            moments.append((call.ready_at, 0, partial(record.ready, call, call.ready_at)))
            at = call.accepted_at
            if at is not None:
                moments.append((at, 1, partial(record.accepted, call, at)))
            elif call.ended_at is not None:
                moments.append((call.ended_at, 1, partial(record.gave_up, call, call.ended_at)))
        for _, _, note in sorted(moments, key=lambda moment: moment[:2]):
            note()
        settled, over, end = seen
        record.marks = [charged(settled), charged(over)]
        record.answers_429 = denied(end) - denied(settled)
        record.answers_failed = failed(end) - failed(settled)
        record.attempts = attempts(end) - attempts(settled)
        return record


def _unsuccessful(said: bytes) -> Ending:
    """What an error means, be it a whole answer or the end of a stream."""
    try:
        code = json.loads(said)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return Ending.GAVE_UP
    return Ending.REFUSED if code in REFUSALS else Ending.GAVE_UP


@asynccontextmanager
async def started(folder: Path, environment: dict[str, str], *arguments: str) -> AsyncIterator[str]:
    """A penstock command in a process of its own; the URL where it listens."""
    log = folder / f"{arguments[0]}.log"
    with log.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "penstock", *arguments, "--port", "0"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_file,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        )
    if process.stdout is None:
        raise SystemExit("the process has no standard output")
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://[\d.]+:\d+", line)
        if found is None:
            raise SystemExit(f"penstock {arguments[0]} did not start: {line}{log.read_text()}")
        yield found[0]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def play_live(script: Script) -> tuple[Figures, Live]:
    """The figures, and what the clients noted beside them."""
    scenario = script.scenario
    site = scenario.sites[0]
    classes = {run.tenant: run.class_name for run in scenario.runs}
    keys = {tenant: f"key-of-{tenant}-in-the-benchmark-of-truth" for tenant in classes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            limits = [
                *("--rpm", str(site.limits.rpm), "--tpm", str(site.limits.tpm)),
                *("--burst-seconds", str(site.limits.burst_seconds)),
                *("--latency-ms", str(scenario.timing.first_token_seconds * 1000)),
                *("--tokens-per-second", str(scenario.timing.tokens_per_second)),
            ]
            sandbox = await stack.enter_async_context(
                started(folder, {}, "sandbox", "--exit-with-parent", *limits)
            )
            file = folder / "penstock.toml"
            file.write_text(configuration(scenario, classes, sandbox))
            environment = {variable(tenant): key for tenant, key in keys.items()}
            environment[PROVIDER_KEY_ENV] = "provider-key-in-the-benchmark"
            service = await stack.enter_async_context(
                started(folder, environment, "serve", "--config", str(file))
            )
            live = Live(script, keys, service, sandbox)
            record = await live.play()
    played = Played(scenario, record)
    return figures(played, "live", "", binding_limit(scenario)), live


def configuration(scenario: Scenario, classes: dict[str, str], sandbox: str) -> str:
    """The service's file: what the scenario tells the simulated scheduler."""
    limits = scenario.sites[0].limits
    tables = ["[workers]\ncount = 0"]
    tables.append(
        f'[providers.sandbox]\nkind = "openai"\nbase_url = "{sandbox}/v1"\n'
        f'key_env = "{PROVIDER_KEY_ENV}"'
    )
    tables.append(
        f'[deployments.sandbox]\nprovider = "sandbox"\nrpm = {limits.rpm}\n'
        f"tpm = {limits.tpm}\nburst_seconds = {limits.burst_seconds}"
    )
    tables += [
        f'[keys.{tenant}]\ntenant = "{tenant}"\nclass = "{name}"\nceiling = "{name}"\n'
        f'key_env = "{variable(tenant)}"'
        for tenant, name in classes.items()
    ]
    return "\n\n".join(tables) + "\n"


def variable(tenant: str) -> str:
    """The environment variable that holds a tenant's key."""
    return "BENCHMARK_KEY_" + tenant.upper().replace("-", "_")


# Simulated


class Estimating(Ours):
    """The real scheduler, told of each call what the gateway's estimator makes of its body."""

    def __init__(self, bodies: dict[tuple[str, int], bytes], simulation: Simulation) -> None:
        super().__init__(simulation)
        self._bodies = bodies
        self._estimator = Estimator()
        self._estimated: dict[str, tuple[ParsedCall, Estimate]] = {}

    def ready(self, call: Call) -> None:
        """Estimate and submit it."""
        body = self._bodies[call.run.name, call.step_number]
        parsed = ADAPTERS["openai"].parse(Endpoint.CHAT, body)
        estimate = self._estimator.estimate(parsed, call.run.tenant)
        self._estimated[call.name] = parsed, estimate
        call.tokens_input_estimated = estimate.tokens_input
        super().ready(call)

    def ended(self, call: Call) -> None:
        """Learn from it and settle it."""
        parsed, estimate = self._estimated.pop(call.name)
        self._estimator.learn(parsed, call.run.tenant, estimate, call.usage)
        super().ended(call)


def play_simulated(script: Script) -> Figures:
    """The figures in virtual time, with the gateway's estimates."""
    simulation = Simulation(script.scenario, partial(Estimating, script.bodies))
    digest = simulation.run()
    return figures(simulation, "simulated", digest, binding_limit(script.scenario))


# Side by side


class Line(msgspec.Struct, frozen=True):
    """One figure of both; None where it has nothing to stand on."""

    name: str
    unit: str
    live: float | None
    simulated: float | None
    simulated_sizes_known: float | None
    agrees: bool


def compared(live: Figures, simulated: Figures, known: Figures) -> list[Line]:
    """What has to agree."""

    def line(name: str, unit: str, of: Callable[[Figures], float | None]) -> Line:
        ours, theirs = of(live), of(simulated)
        return Line(name, unit, ours, theirs, of(known), agree(ours, theirs, ALLOWED[unit]))

    return [
        line("interactive wait p50", "s", lambda each: each.wait.p50),
        line("interactive wait p95", "s", lambda each: each.wait.p95),
        line("interactive wait p99", "s", lambda each: each.wait.p99),
        line("chain mean", "s", lambda each: each.chain.mean),
        line("chain p99", "s", lambda each: each.chain.p99),
        line("standard goodput", "share", lambda each: each.goodput),
        line("use of the limit", "share", lambda each: each.use),
        line("429s of what was sent", "429s", share_429),
        line("Jain, batch tenants", "share", lambda each: each.jain),
        line("failures", "calls", lambda each: each.failures),
    ]


ALLOWED: dict[str, tuple[float, float]] = {
    "s": (AGREES_SHARE, AGREES_SECONDS),
    "share": (AGREES_SHARE, 0.0),
    "429s": (0.0, AGREES_429_SHARE),
    "calls": (0.0, 0.0),
}
"""By unit: the difference allowed as a share of the simulated figure, and as it is."""


def share_429(each: Figures) -> float:
    """How many of the sends were answered 429."""
    return each.answers_429 / max(1, each.attempts)


def agree(live: float | None, simulated: float | None, allowed: tuple[float, float]) -> bool:
    """Whether two figures differ by no more than one of the two allowances."""
    if live is None or simulated is None:
        return live is simulated
    share, difference = allowed
    return abs(live - simulated) <= max(share * abs(simulated), difference)


def text_of(value: float | None, unit: str) -> str:
    """A figure as it stands in the table."""
    if value is None:
        return "-"
    if unit == "calls":
        return f"{value:.0f}"
    return f"{value:.2%}" if unit == "429s" else f"{value:.3f}"


def print_table(report: Json, lines: list[Line]) -> None:
    """Both, side by side."""
    print(
        f"{report['seconds']:g} s at {report['rpm']:g} RPM and {report['tpm']:g} TPM, a burst of "
        f"{report['burst_seconds']:g} s;\nlive: {report['calls_interactive']} interactive calls "
        f"and {report['chains']} chains counted, {report['attempts']} sent; "
        f"clients at most {report['late_seconds_max'] * 1000:.0f} ms late;\n"
        f"load average {report['load_average']:.1f}"
    )
    print(f"\n{'':24}{'live':>10}{'simulated':>12}{'':11}{'sizes known':>12}")
    for line in lines:
        title = f"{line.name}, s" if line.unit == "s" else line.name
        live, simulated, known = (
            text_of(value, line.unit)
            for value in (line.live, line.simulated, line.simulated_sizes_known)
        )
        verdict = "agrees" if line.agrees else "DIFFERS"
        print(f"{title:24}{live:>10}{simulated:>12}  {verdict:9}{known:>12}")
    if report["answers_429_at_seconds"]:
        print(f"\n429s came at these seconds: {report['answers_429_at_seconds']}")


def duration(text: str) -> float:
    """``--seconds``, within what the whole may last."""
    seconds = float(text)
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text}: from {SECONDS_MIN:g} to {SECONDS_MAX:g}")
    return seconds


def main() -> None:
    """Play both, print them, and say by the exit code whether they agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=duration, default=120.0, help="how long work arrives")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    script = script_for(options.seconds)
    simulated = play_simulated(script)
    live, clients = asyncio.run(play_live(script))
    lines = compared(live, simulated, play(script.scenario, "penstock"))
    limits = script.scenario.sites[0].limits
    report = {
        "version": 1,
        "seconds": options.seconds,
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "burst_seconds": limits.burst_seconds,
        "calls_interactive": live.wait.count,
        "chains": live.chain.count,
        "attempts": live.attempts,
        "late_seconds_max": round(clients.late_seconds_max, 4),
        "answers_429_at_seconds": clients.denied_at,
        "load_average": os.getloadavg()[0],
        "agrees": all(line.agrees for line in lines),
        "lines": msgspec.to_builtins(lines),
    }
    if options.json:
        print(json.dumps(report))
    else:
        print_table(report, lines)
    sys.exit(0 if report["agrees"] else 1)


if __name__ == "__main__":
    main()
