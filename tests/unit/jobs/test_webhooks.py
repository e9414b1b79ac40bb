"""Webhooks: signed, delivered again after a failure, and never to an address that is not public."""

from __future__ import annotations

import asyncio
import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.model import WebhooksTable
from penstock.errors import InvalidRequest
from penstock.jobs.webhooks import (
    NotPublic,
    Resolver,
    Webhooks,
    is_public,
    secret_of,
    shown_secret,
    signature,
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - judged, not bound
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "no address",
    ],
)
def test_addresses_of_networks_and_machines_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_the_same_in_its_mapped_form(address) -> None:
    assert is_public(str(address)) == is_public(f"::ffff:{address}")


def test_a_name_that_leads_inside_is_not_connected_to() -> None:
    async def work() -> None:
        closed, open_ = Resolver(lambda: False), Resolver(lambda: True)
        with pytest.raises(NotPublic):
            await closed.resolve("localhost", 80)
        assert (await open_.resolve("localhost", 80))[0]["host"] in ("127.0.0.1", "::1")

    asyncio.run(work())


def made(**settings) -> Webhooks:
    table = WebhooksTable(**settings)
    return Webhooks(None, None, table, lambda: b"pepper", lambda: 0.0)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://example.test/x",
        "ftp://example.test/x",
        "https://user:pass@example.test/",
        "https:///x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://localhost/x",
        "https://example.test:99999/x",
        "https://example.test/a b",
        "https://example.test/\n",
        "https://example.test/" + "x" * 2048,
    ],
)
def test_a_url_that_leads_astray_is_refused_when_it_is_ordered(url: str) -> None:
    with pytest.raises(InvalidRequest):
        made().check(url)


def test_hosts_may_be_listed() -> None:
    hooks = made(hosts=["hooks.example.test"])

    assert hooks.check("https://hooks.example.test/a") == "https://hooks.example.test/a"
    with pytest.raises(InvalidRequest):
        hooks.check("https://other.example.test/a")


def test_a_receiver_can_check_the_signature_and_each_tenant_has_its_own() -> None:
    secret = secret_of(b"pepper", "acme")
    said = signature(secret, "msg_1", 17, b"body").removeprefix("v1,")
    key = base64.b64decode(shown_secret(secret).removeprefix("whsec_"))
    expected = hmac.digest(key, b"msg_1.17.body", "sha256")

    assert base64.b64decode(said) == expected
    assert secret != secret_of(b"pepper", "zeta")
    assert made().secret("acme") == shown_secret(secret)
