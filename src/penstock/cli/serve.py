"""``penstock serve``: run the service, and say in a few lines what runs where."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.pauses import Pauses
from penstock.config.load import Loaded, Overrides, load_with_secrets
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.app import Service

GC_OBJECTS = 10_000
"""So many new objects between two collections of circles."""


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The configuration file. Default: penstock.toml where it exists, else none.",
)
@click.option("--host", default=None, help="Address to listen on, instead of the file's.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=None, help="Port, instead of the file's."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged on stderr: lines on a terminal, else JSON.",
)
@click.option(
    "--reload",
    "watches_chains",
    is_flag=True,
    help="For development: replace the workers when a file of the chains changes.",
)
def serve(
    config_file: Path | None,
    host: str | None,
    port: int | None,
    log_level: str,
    *,
    watches_chains: bool,
) -> None:
    """Run the service: chains and LLM calls through one scheduler.

    Without a configuration it answers on http://127.0.0.1:8787 with the API key `dev`, on a
    sandbox provider, with the example chains. SIGHUP reads the configuration again, SIGTERM
    lets what is under way end.
    """
    default = Path("penstock.toml")
    file = default if config_file is None and default.exists() else config_file
    overrides = Overrides(host=host, port=port)
    load = partial(_load, file, overrides)
    loaded = load()
    _configure_logs(loaded, log_level)
    from penstock.http.server import event_loop_factory  # noqa: PLC0415 - a bad file is quick

    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(_serve(loaded, load, watches_chains=watches_chains))


def _load(file: Path | None, overrides: Overrides) -> Loaded:
    from penstock.store.keys import stored_key_count  # noqa: PLC0415 - as above

    return load_with_secrets(file, overrides=overrides, stored_key_count=stored_key_count)


def _configure_logs(loaded: Loaded, level: str) -> None:
    from penstock.telemetry.logs import configure  # noqa: PLC0415 - as above

    known = [*loaded.secrets.providers.values(), *loaded.secrets.keys.values()]
    # The key `dev` is no secret, and a word that stands in many a path.
    secrets = [secret for secret in known if secret != "dev"]  # noqa: S105
    configure(level.upper(), sys.stderr, json=not sys.stderr.isatty(), secrets=secrets)


async def _serve(loaded: Loaded, load: partial[Loaded], *, watches_chains: bool) -> None:
    from penstock import app  # noqa: PLC0415 - as above
    from penstock.telemetry.logs import log_unhandled  # noqa: PLC0415 - as above

    service = app.Service(loaded, load, watches_chains=watches_chains)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_unhandled)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_exit, stop)
    try:
        await service.start()
    except OSError as error:
        table = loaded.config.server
        raise PenstockError(
            f"cannot listen on {table.host}:{table.port}: {error.strerror or error}; "
            "choose another --port, or stop what listens there"
        ) from None
    _collect_rarely(service)
    reloads: set[asyncio.Task[bool]] = set()
    loop.add_signal_handler(signal.SIGHUP, _reload, service, reloads)
    _say_what_runs(service, loaded)
    await app.serve(service, stop)
    if service.failed.is_set():
        raise PenstockError("a part of the service ended; the log says why")


def _collect_rarely(service: Service) -> None:
    """What stands now stays, and a call makes some hundred objects and hardly a circle of them.

    At its usual rate the collection of circles was a twentieth of what a call cost.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 10, 10)
    gc.callbacks.append(Pauses(time.monotonic, lambda: service.waiting_count))


def _stop_or_exit(stop: asyncio.Event) -> None:
    """The first signal drains, the second does not wait."""
    if stop.is_set():
        click.echo("stopped without draining", err=True)
        signal.raise_signal(signal.SIGKILL)
    stop.set()


def _reload(service: Service, reloads: set[asyncio.Task[bool]]) -> None:
    """Read the configuration again; one reload after the other."""
    if not reloads:
        task = asyncio.ensure_future(service.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)


def _say_what_runs(service: Service, loaded: Loaded) -> None:

    config = service.config
    host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
    url = f"http://{host}:{service.port}"
    models = sorted(
        {model for table in config.deployments.values() for model in table.serves or ()}
    )
    lines = [f"Penstock on {url}"]
    lines += [f"  {note}" for note in loaded.notes]
    lines += [f"  warning: {warning}" for warning in loaded.warnings]
    lines.append(f"  chains: {', '.join(sorted(config.chains)) or 'none'}")
    lines.append(f"  models: {', '.join(models) or 'none'}")
    lines += ["", "Try:", *_examples(url, loaded, models)]
    click.echo("\n".join(lines))
    sys.stdout.flush()


def _examples(url: str, loaded: Loaded, models: list[str]) -> list[str]:
    """Three commands that can be copied as they are where the key is `dev`."""
    key = "dev" if "dev" in loaded.secrets.keys.values() else "YOUR_KEY"
    head = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    examples = []
    if "haiku" in loaded.config.chains:
        body = '{"input": {"topic": "rivers"}}'
        examples.append(f"  curl {url}/chains/haiku/invoke {head} -d '{body}'")
    if models:
        message = f'{{"model": "{models[0]}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
        examples.append(f"  curl {url}/v1/chat/completions {head} -d '{message}'")
    examples.append(f"  open {url}/live#key={key} in a browser: the queue against the limits")
    return examples
