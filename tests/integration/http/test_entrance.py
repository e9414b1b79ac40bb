"""Only well-formed Hosts and paths reach a route, and only the matched route decides."""

from __future__ import annotations

import json

import pytest

from penstock.http.door import Access, ErrorShape
from penstock.units import Outcome

CLOSE = b"connection: close\r\n\r\n"


async def who(exchange):
    named = exchange.path_params.get("name", "-")
    await exchange.respond(200, f"{exchange.scope['path']} {named}".encode(), "text/plain")
    return Outcome.SUCCESS


ROUTES = [
    ("GET", "/healthz", who, Access.PUBLIC),
    ("GET", "/admin/live", who, Access.ADMIN),
    ("POST", "/chains/{name}/invoke", who, Access.PUBLIC),
    ("GET", "/v1/models/{name:path}", who, Access.PUBLIC),
]


async def asked(service, method: bytes, path: bytes, host: bytes = b"localhost") -> bytes:
    return await service.talk(
        method + b" " + path + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + CLOSE
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        (b"GET", b"/healthz", 200, b"/healthz -"),
        (b"HEAD", b"/healthz", 200, b""),
        (b"GET", b"/healthz?x=//%2f;", 200, b"/healthz -"),
        (b"POST", b"/chains/haiku/invoke", 200, b"/chains/haiku/invoke haiku"),
        (b"GET", b"/v1/models/chain:haiku", 200, b"chain:haiku"),
        (b"GET", b"/v1/models/chain%3Ahaiku", 200, b"chain:haiku"),
        (b"GET", b"/v1/models/org/model@1", 200, b"org/model@1"),
        (b"POST", b"/healthz", 405, b"method_not_allowed"),
        (b"GET", b"/chains/haiku/invoke", 405, b"method_not_allowed"),
        (b"DELETE", b"/v1/models/a", 405, b"method_not_allowed"),
        (b"GET", b"/", 404, b"route_not_found"),
        (b"GET", b"/healthz/", 404, b"route_not_found"),
        (b"GET", b"/HEALTHZ", 404, b"route_not_found"),
        (b"GET", b"//healthz", 400, b"invalid_path"),
        (b"GET", b"/./healthz", 400, b"invalid_path"),
        (b"GET", b"/x/../healthz", 400, b"invalid_path"),
        (b"GET", b"/x/..", 400, b"invalid_path"),
        (b"GET", b"/%68ealthz", 400, b"invalid_path"),
        (b"GET", b"/healthz;a=b", 400, b"invalid_path"),
        (b"GET", b"/healthz%00", 400, b"invalid_path"),
        (b"GET", b"/healthz%3b", 400, b"invalid_path"),
        (b"GET", b"/admin%2flive", 400, b"invalid_path"),
        (b"GET", b"/admin%2Flive", 400, b"invalid_path"),
        (b"GET", b"/admin%5clive", 400, b"invalid_path"),
        (b"GET", b"/admin\\live", 400, b"invalid_path"),
        (b"GET", b"/v1/models/..%2fadmin", 400, b"invalid_path"),
        (b"GET", b"/v1/models/%2e%2e/admin", 400, b"invalid_path"),
        (b"GET", b"/v1/models/%zz", 400, b"invalid_path"),
        (b"GET", b"/v1/models/%e2%80%ae", 400, b"invalid_path"),
        (b"GET", b"/admin/live", 401, b"invalid_api_key"),
        (b"GET", b"/admin//live", 400, b"invalid_path"),
        (b"POST", b"/admin/live", 405, b"method_not_allowed"),
    ],
)
def test_one_spelling_of_a_path_reaches_its_route(run, serving, method, path, status, said) -> None:
    async def scenario() -> None:
        async with serving(routes=ROUTES) as service:
            answer = await asked(service, method, path)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert said in answer
            if status == 405:
                assert b"\r\nallow: " in answer
            if status >= 400:
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "host"),
    [
        (b"GET", b"/nowhere", b"localhost"),
        (b"GET", b"//", b"localhost"),
        (b"GET", b"/healthz", b"evil.example"),
        (b"POST", b"/v1/models/a", b"localhost"),
    ],
)
def test_what_reaches_no_route_is_refused_in_the_shape_of_the_sdk_that_asks(
    run, serving, method, path, host
) -> None:
    async def scenario() -> None:
        async with serving(routes=ROUTES, shape=None) as service:
            by_openai = await asked(service, method, path, host)
            by_anthropic = await asked(
                service, method, path, host + b"\r\nanthropic-version: 2023-06-01"
            )
        assert json.loads(by_openai.partition(b"\r\n\r\n")[2])["error"]["code"]
        assert json.loads(by_anthropic.partition(b"\r\n\r\n")[2])["type"] == "error"

    run(scenario())


def test_a_wrong_method_is_refused_in_the_shape_of_the_route(run, serving) -> None:
    async def scenario() -> None:
        async with serving(routes=ROUTES, shape=ErrorShape.ANTHROPIC) as service:
            answer = await asked(service, b"POST", b"/healthz")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "error"

    run(scenario())


@pytest.mark.parametrize(
    ("table", "host", "answered"),
    [
        ({}, b"localhost", True),
        ({}, b"localhost:8787", True),
        ({}, b"LOCALHOST", True),
        ({}, b"127.0.0.1:1", True),
        ({}, b"127.8.8.8", True),
        ({}, b"[::1]:8787", True),
        ({}, b"evil.example", False),
        ({}, b"localhost.evil.example", False),
        ({}, b"169.254.169.254", False),
        ({"allowed_hosts": ["penstock.example"]}, b"penstock.example:443", True),
        ({"allowed_hosts": ["penstock.example"]}, b"Penstock.Example.", True),
        ({"allowed_hosts": ["penstock.example"]}, b"other.example", False),
        ({"allowed_hosts": ["penstock.example"]}, b"localhost", True),
        ({"host": "0.0.0.0"}, b"anything.example", True),  # noqa: S104 - the rule under test
        ({"host": "0.0.0.0", "allowed_hosts": ["a.example"]}, b"b.example", False),  # noqa: S104
        ({"host": "0.0.0.0", "allowed_hosts": ["a.example"]}, b"a.example", True),  # noqa: S104
        ({"host": "0.0.0.0"}, b"", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"a b", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"a/b", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"user@a", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"a:b", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"a:99999", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"[::1", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"[zz]", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"a?b", False),  # noqa: S104
        ({"host": "0.0.0.0"}, b"a, b", False),  # noqa: S104
    ],
)
def test_only_hosts_that_are_ours_are_answered(run, serving, table, host, answered) -> None:
    async def scenario() -> None:
        async with serving(routes=ROUTES, **table) as service:
            answer = await asked(service, b"GET", b"/healthz", host)
            assert answer.startswith(b"HTTP/1.1 200" if answered else b"HTTP/1.1 400")
            assert answered or b"invalid_host" in answer

    run(scenario())
