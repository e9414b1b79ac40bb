"""A webhook against a receiver of our own: signed, tried again, and not sent where it may not."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any


def test_a_webhook_is_signed_and_tried_again(
    service: Any, receiver: Any, poll: Callable[..., None]
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
