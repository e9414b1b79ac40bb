"""A log line is one line, holds no secret, and says of an error where, not what."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.logs import (
    REDACTED,
    JsonFormatter,
    Redactor,
    configure,
    log_facts,
    log_unhandled,
)

SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(message: str, *args: object, json_lines: bool = True, **facts: object) -> str:
    stream = io.StringIO()
    configure("INFO", stream, json=json_lines, secrets=[SECRET])
    if facts:
        log_facts(logging.getLogger("penstock.test"), logging.INFO, message, facts)
    else:
        logging.getLogger("penstock.test").info(message, *args)
    return stream.getvalue()


@given(st.text(alphabet=st.characters(), max_size=60), st.booleans())
def test_any_text_is_one_line_without_control_characters(text: str, json_lines: bool) -> None:
    line = logged("%s", text, json_lines=json_lines)
    assert line.endswith("\n")
    assert not any(
        ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in line[:-1]
    )
    assert "\u202e" not in line
    line.encode("utf-8")
    if json_lines:
        assert json.loads(line)["level"] == "info"


WORDS = st.sampled_from([SECRET, "psk_abcdefgh", "AIzaabcdefgh", "Bearer abcdefgh", "task-1"])


@given(st.lists(st.text(st.characters(categories=None), max_size=8) | WORDS, max_size=4))
def test_a_line_that_is_looked_at_as_a_whole_is_what_it_would_be_value_by_value(
    parts: list[str],
) -> None:
    text = "".join(parts)
    formatter = JsonFormatter(Redactor([SECRET]), exception_texts=False)
    record = logging.LogRecord("a", logging.INFO, "", 0, "request", (), None)
    record.penstock_facts = {"fact": text}

    assert json.loads(formatter.format(record))["fact"] == formatter._clean(text)


@pytest.mark.parametrize("json_lines", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        "psk_abcdefghijklmnop",
        "sk-proj-abcdefghij",
        "sk-ant-api03-abcdefghij",
        "Authorization: Bearer abcdefghijkl",
        "authorization: bearer abcdefghijkl",
        "x-api-key: abcdefghijkl",
        "AIzaSyAbcdefghij",
        "xai-abcdefghij",
    ],
)
def test_secrets_and_what_looks_like_one_never_leave(text: str, json_lines: bool) -> None:
    secret = text.rsplit(maxsplit=1)[-1]
    for line in (
        logged("key %s of a caller", text, json_lines=json_lines),
        logged("request", json_lines=json_lines, tenant=text),
    ):
        assert secret not in line
        assert REDACTED in line


def test_ordinary_words_stay() -> None:
    redact = Redactor(["dev", ""])
    for text in ("the dev key", "task-list", "risk-free", "asking", "Bearer", "desk-1 is open"):
        assert redact(text) == text


def test_a_secret_within_another_is_taken_out_with_it() -> None:
    assert Redactor(["secret", "secret-longer"])("a secret-longer b") == f"a {REDACTED} b"


def test_facts_stand_beside_the_message() -> None:
    line = json.loads(logged("request", status=200, tenant="acme", wait_ms=1.5))
    assert line["message"] == "request"
    assert (line["status"], line["tenant"], line["wait_ms"]) == (200, "acme", 1.5)
    assert line["time"].endswith("+00:00")
    assert "request status=200 tenant=acme" in logged(
        "request", json_lines=False, status=200, tenant="acme"
    )


def fail() -> None:
    try:
        {}["the prompt of a tenant"]
    except KeyError:
        raise ExceptionGroup("outer", [ValueError(f"inner {SECRET}")]) from None


def failing(level: str, *, json_lines: bool) -> str:
    stream = io.StringIO()
    configure(level, stream, json=json_lines, secrets=[SECRET])
    try:
        fail()
    except ExceptionGroup:
        logging.getLogger("penstock.test").exception("it failed")
    return stream.getvalue()


@pytest.mark.parametrize("json_lines", [True, False])
def test_an_error_is_logged_by_type_and_place_without_its_text(json_lines: bool) -> None:
    line = failing("INFO", json_lines=json_lines)
    assert "prompt" not in line
    assert "inner" not in line
    assert "builtins.ValueError" in line
    assert "test_logs.py" in line
    assert "in fail" in line


def test_at_debug_the_text_is_there_but_never_the_secret() -> None:
    line = failing("DEBUG", json_lines=True)
    assert "inner" in line
    assert SECRET not in line


def test_what_an_event_loop_reports_is_logged_without_texts_and_arguments() -> None:
    async def fail_unseen() -> None:
        asyncio.get_running_loop().set_exception_handler(log_unhandled)
        asyncio.get_running_loop().call_soon(int, "a prompt")
        task = asyncio.create_task(_fail())
        await asyncio.wait({task})
        del task
        gc.collect()

    async def _fail() -> None:
        raise ValueError("a prompt")

    stream = io.StringIO()
    configure("INFO", stream, json=True)
    asyncio.run(fail_unseen())

    text = stream.getvalue()
    assert text.count("builtins.ValueError") == 2
    assert "never retrieved" in text
    assert "prompt" not in text


def test_configuring_again_replaces_what_was() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("INFO", first, json=True)
    configure("WARNING", second, json=True)
    logging.getLogger("penstock.test").info("quiet")
    logging.getLogger("penstock.test").warning("loud")
    assert not first.getvalue()
    assert second.getvalue().count("\n") == 1
