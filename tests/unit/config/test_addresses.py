"""Which addresses are accepted, and how they are spelled afterwards."""

from __future__ import annotations

import pytest

from penstock.config.addresses import (
    AddressError,
    is_host,
    is_loopback,
    normalised_base_url,
)


@pytest.mark.parametrize(
    ("kind", "text", "url"),
    [
        ("openai", "https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "https://host/v1beta/openai/", "https://host/v1beta/openai"),
        ("anthropic", "https://api.anthropic.com", "https://api.anthropic.com"),
        ("anthropic", "https://api.anthropic.com/v1", "https://api.anthropic.com"),
        ("anthropic", "https://host/anthropic/", "https://host/anthropic"),
        ("openai", "http://127.0.0.1:8788", "http://127.0.0.1:8788/v1"),
        ("openai", "http://[::1]:8788/v1", "http://[::1]:8788/v1"),
        ("openai", "http://10.1.2.3:8000/v1", "http://10.1.2.3:8000/v1"),
        ("openai", "http://vllm:8000/v1", "http://vllm:8000/v1"),
        ("openai", "http://vllm.ai.svc/v1", "http://vllm.ai.svc/v1"),
    ],
)
def test_an_address_is_taken_as_the_providers_sdk_takes_it(kind: str, text: str, url: str) -> None:
    assert url == normalised_base_url(kind, text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ftp://host", "https:// or http://"),
        ("host/v1", "https:// or http://"),
        ("file:///etc/passwd", "https:// or http://"),
        ("https://", "must name a host"),
        ("https:///v1", "must name a host"),
        ("https://a..b/v1", "must name a host"),
        ("https://host:0/v1", "must name a host"),
        ("https://host:99999/v1", "must be a URL"),
        ("https://[::1/v1", "must be a URL"),
        ("https://user@host/v1", "credentials"),
        ("https://user:pass@host/v1", "credentials"),
        ("https://host/v1?a=b", "query"),
        ("https://host/v1?", "query"),
        ("https://host/v1#a", "fragment"),
        ("https://host/v 1", "printable ASCII"),
        ("https://host/\r\nx: y", "printable ASCII"),
        ("http://api.openai.com/v1", "must be https"),
        ("http://8.8.8.8/v1", "must be https"),
        ("http://internal.example.com/v1", "must be https"),
    ],
)
def test_an_address_that_breaks_a_rule_is_refused_without_being_repeated(
    text: str, rule: str
) -> None:
    with pytest.raises(AddressError, match=rule) as raised:
        normalised_base_url("openai", text)
    assert "pass" not in str(raised.value)


def test_only_this_machine_is_loopback() -> None:
    inside = ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1"]
    outside = ["::", "192.168.0.1", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com"]

    assert [host for host in inside + outside if is_loopback(host)] == inside


def test_a_host_is_an_address_or_a_name() -> None:
    good = ["a", "a-b.c_d", "1.2.3.4", "::1"]
    bad = ["", "-a", "a b", "a..b", "a/b", "a:1", "a\n", "[::1]"]

    assert [host for host in good + bad if is_host(host)] == good
