"""A service with chains of its own and two tenants, which can be killed and started again."""

from __future__ import annotations

import http.client
import http.server
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CONFIGURATION = """
path = [{here}]
[server]
drain_seconds = 1.0
[workers]
count = 1
[jobs]
attempts_max = 2
[webhooks]
allow_private = true
[chains.upper]
import = "job_chains:upper"
[chains.until]
import = "job_chains:until"
[chains.letters]
import = "job_chains:letters"
[chains.kill]
import = "job_chains:kill"
[chains.talk]
import = "agent_chains:talk"
show_steps = true
[chains.review]
import = "agent_chains:review"
[chains.mortal]
import = "agent_chains:mortal"
[chains.fail]
import = "agent_chains:fail"
[keys.acme]
tenant = "acme"
key_env = "ACME_KEY"
[keys.zeta]
tenant = "zeta"
key_env = "ZETA_KEY"
chains = ["letters"]
"""


class Service:
    """A running service over one store."""

    def __init__(self, running: Callable[..., Any], folder: Path) -> None:
        self._running = running
        self._file = folder / "penstock.toml"
        self._file.write_text(CONFIGURATION.format(here=json.dumps(str(HERE))))
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.process = self._running(
            "serve", "--config", str(self._file), "--port", "0", ACME_KEY="acme", ZETA_KEY="zeta"
        )
        self.process.wait_ready()

    def kill(self) -> None:
        self.process.stop(signal.SIGKILL)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str = "acme",
        raw: bytes | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body, decoded where it is JSON."""
        host = self.process.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = raw if body is None else json.dumps(body)
        connection.request(method, path, data, {"Authorization": f"Bearer {key}", **named})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = "json" in answer.headers["content-type"]
        got = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, got, json.loads(content) if is_json else content.decode()

    def later(self, chain: str, value: Any, endpoint: str = "invoke", **headers: str) -> str:
        """Order a run; the job's path."""
        status, answered, _ = self.ask(
            "POST",
            f"/chains/{chain}/{endpoint}",
            {"input": value},
            Prefer="respond-async",
            **headers,
        )
        assert status == 202
        return answered["location"]


@pytest.fixture(scope="module")
def service(
    running: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    made = Service(running, tmp_path_factory.mktemp("jobs"))
    yield made
    made.process.stop()


class Receiver(http.server.ThreadingHTTPServer):
    """Answers 503 to the first message of each job, 200 to the next."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.messages: list[tuple[dict[str, str], bytes]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        named = {name.lower(): value for name, value in self.headers.items()}
        seen = [one["webhook-id"] for one, _ in self.server.messages]
        self.server.messages.append((named, body))
        self.send_response(200 if named["webhook-id"] in seen else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()
