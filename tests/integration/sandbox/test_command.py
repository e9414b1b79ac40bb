"""``penstock sandbox`` as another process sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest

CODE = "from penstock.cli.sandbox import sandbox; sandbox(prog_name='penstock sandbox')"


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", CODE, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=5)


def test_it_says_where_it_listens_and_answers_there(command):
    process = command("--port", "0", "--json", "--rpm", "600")
    told = json.loads(process.stdout.readline())

    with urllib.request.urlopen(f"{told['url']}/healthz", timeout=5) as answer:  # noqa: S310 - own
        assert answer.status == 200
    assert told["url"].endswith(f":{told['port']}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_two_seconds_even_in_the_middle_of_a_call(command, number):
    process = command("--port", "0", "--latency-ms", "60000")
    url = process.stdout.readline().split()[-1]
    request = urllib.request.Request(  # noqa: S310 - own
        f"{url}/v1/chat/completions",
        data=b'{"model":"sandbox","messages":[{"role":"user","content":"x"}]}',
        headers={"authorization": "Bearer x"},
    )
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(request, timeout=0.3)  # noqa: S310 - own
    process.send_signal(number)

    assert process.wait(timeout=2) == 0
    assert process.stderr.read() == ""


def test_it_leaves_with_its_parent_if_told_to(command):
    process = command("--port", "0", "--exit-with-parent")
    process.stdout.readline()
    process.stdin.close()
    process.stdin = None

    assert process.wait(timeout=5) == 0


def test_a_port_that_is_taken_is_named_with_the_way_out(command):
    first = command("--port", "0", "--json")
    port = json.loads(first.stdout.readline())["port"]
    second = command("--port", str(port))
    _, error = second.communicate(timeout=10)

    assert second.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in error
    assert "Choose another --port" in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fault", "earthquake"), "is no fault; known are:"),
        (("--fault", "500:2"), "a probability is between 0 and 1"),
        (("--rpm", "0"), "--rpm"),
        (("--port", "70000"), "--port"),
    ],
)
def test_a_mistaken_option_is_refused(command, arguments, told):
    process = command(*arguments)
    output, error = process.communicate(timeout=10)

    assert process.returncode == 2
    assert told in error
    assert output == ""
