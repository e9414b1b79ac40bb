"""A chain's request body is bounded before anything is made of it."""

from __future__ import annotations

import pytest

from penstock.chains.worker.faults import InvalidInput
from penstock.chains.worker.request_body import LONG_EXPONENTS_MAX, NODES_MAX, parse


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b'{"input":[' + b"4.9e-324," * 900_000 + b"1]}", "values"),
        (b'{"input":[' + b"1e300," * (LONG_EXPONENTS_MAX + 1) + b"1]}", "exponents"),
        (b'{"input":[' + b"[]," * 2_700_000 + b"1]}", "values"),
        (b'{"input":' + b"[" * 8_000_000, "values"),
    ],
    ids=["slow numbers", "fewer of them", "arrays", "open"],
)
@pytest.mark.timeout(5)  # decoding the first takes 8 s
def test_what_is_slow_to_decode_is_refused_before(body: bytes, rule: str) -> None:
    with pytest.raises(InvalidInput, match=rule):
        parse(body)


def test_what_stands_in_a_text_is_not_counted() -> None:
    text = "1e300, [ { " * NODES_MAX

    assert parse(b'{"input":"' + text.encode() + b'"}') == {"input": text}


def test_a_vector_of_as_many_values_as_the_bound_allows_passes() -> None:
    vector = [1.5e-5] * (NODES_MAX - 2)  # the body and the list count, too

    assert parse(b'{"input":' + repr(vector).encode() + b"}") == {"input": vector}
    with pytest.raises(InvalidInput, match="values"):
        parse(b'{"input":' + repr([*vector, 1]).encode() + b"}")
