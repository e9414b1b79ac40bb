"""A webhook against a receiver of our own: signed, tried again, and not sent where it may not."""

from __future__ import annotations

import base64
import hmac
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest


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


def test_a_webhook_is_signed_and_tried_again(
    service: Any, receiver: Receiver, poll: Callable[..., None]
) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    body = {"input": "a", "webhook": url}
    job = service.ask("POST", "/chains/upper/invoke", body, Prefer="respond-async")[2]
    poll(lambda: len(receiver.messages) == 2, 30)
    headers, sent = receiver.messages[1]
    secret = service.ask("GET", "/webhooks/secret")[2]["secret"]
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + sent
    expected = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()

    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == f"msg_{job['id']}"
    assert json.loads(sent)["type"] == "job.success"
    assert json.loads(sent)["data"]["id"] == job["id"]


def test_a_webhook_that_is_no_url_is_refused(service: Any) -> None:
    body = {"input": "a", "webhook": "file:///etc/passwd"}
    refused = service.ask("POST", "/chains/upper/invoke", body, Prefer="respond-async")

    assert (refused[0], refused[2]["error"]["param"]) == (400, "webhook")
