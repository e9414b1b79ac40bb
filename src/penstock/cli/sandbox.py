"""``penstock sandbox``: the sandbox provider alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

from penstock.sandbox.faults import FAULTS, FaultRate, parse_rate
from penstock.sandbox.settings import MODEL, SandboxSettings
from penstock.simulate.provider_world import ProviderLimits

_DEFAULTS = SandboxSettings()
_AMOUNT = click.FloatRange(min=0, min_open=True)


class _FaultRateType(click.ParamType[FaultRate]):
    name = "NAME:PROBABILITY"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> FaultRate:
        if isinstance(value, FaultRate):
            return value
        try:
            return parse_rate(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


@click.command(
    epilog="Faults: "
    + ", ".join(FAULTS)
    + ". Each can also be asked for by the header x-sandbox-fault or by POST /faults."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8788,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--rpm", type=_AMOUNT, help="Requests a minute; as the other limits: none if absent.")
@click.option("--tpm", type=_AMOUNT, help="Tokens a minute.")
@click.option("--itpm", type=_AMOUNT, help="Input tokens a minute.")
@click.option("--otpm", type=_AMOUNT, help="Output tokens a minute.")
@click.option("--rpd", type=_AMOUNT, help="Requests a day.")
@click.option("--tpd", type=_AMOUNT, help="Tokens a day.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Calls at once.")
@click.option(
    "--burst-seconds",
    default=_DEFAULTS.limits.burst_seconds,
    show_default=True,
    type=_AMOUNT,
    help="What the limits' buckets hold, in seconds of their rate.",
)
@click.option(
    "--quantum-seconds",
    type=_AMOUNT,
    help="Hold requests to their share of every so many seconds, too (real ones: 1 or 10).",
)
@click.option(
    "--latency-ms",
    default=_DEFAULTS.latency_seconds * 1000,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Time to the first token.",
)
@click.option(
    "--tokens-per-second",
    default=_DEFAULTS.tokens_per_second,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Pace of the answer; 0: at once.",
)
@click.option("--model", "models", multiple=True, help=f"A model to serve beside '{MODEL}'.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=_FaultRateType(),
    help="A fault by chance, as in 500:0.01 for one call in a hundred.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the faults' chance.")
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as a JSON object.")
@click.option("--exit-with-parent", is_flag=True, help="Stop when standard input is closed.")
def sandbox(  # noqa: PLR0913 - click hands over one argument for each option
    *,
    host: str,
    port: int,
    latency_ms: float,
    tokens_per_second: float,
    models: tuple[str, ...],
    faults: tuple[FaultRate, ...],
    seed: int,
    as_json: bool,
    exit_with_parent: bool,
    **limits: Any,
) -> None:
    """Run a provider without a model that enforces real rate limits.

    It speaks OpenAI's and Anthropic's protocols, takes any key, and answers for the model
    'sandbox'. What it answered stands under /stats.
    """
    settings = SandboxSettings(
        limits=ProviderLimits(**limits),
        models=(MODEL, *(name for name in models if name != MODEL)),
        latency_seconds=latency_ms / 1000,
        tokens_per_second=tokens_per_second,
        fault_rates=faults,
        seed=seed,
    )
    # Imported here, so that --help and mistaken options are answered at once.
    from penstock.sandbox.app import Sandbox  # noqa: PLC0415
    from penstock.sandbox.server import SandboxServer  # noqa: PLC0415

    try:
        server = SandboxServer(Sandbox(settings), host, port)
    except OSError as problem:
        raise click.ClickException(
            f"Cannot listen on {host}:{port}: {problem.strerror or problem}. "
            "Choose another --port, or 0 for a free one."
        ) from None

    def started() -> None:
        if as_json:
            click.echo(json.dumps({"url": server.url, "port": server.port}))
        else:
            click.echo(f"Sandbox provider on {server.url}")
        sys.stdout.flush()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.stop)
        if exit_with_parent:
            _on_stdin_closed(lambda: loop.call_soon_threadsafe(server.stop))
        started()
        await server.run()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve())


def _on_stdin_closed(then: Callable[[], object]) -> None:
    """Call ``then`` from another thread when the parent closes our standard input, or dies."""

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass  # Not readable at all: as good as closed.
        then()

    # A thread rather than the loop: epoll refuses standard inputs that are files.
    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
