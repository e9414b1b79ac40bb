"""What callers say of their runs is noted in bounds, and what is malformed is as if unsaid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.named_runs import (
    CHAINS_MAX,
    CHARACTERS_MAX,
    MEMBERS_MAX,
    NamedRun,
    NamedRuns,
    read_baggage,
)
from penstock.http.auth import Principal

PRINCIPAL = Principal("key", "web", "standard", "interactive")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def named(baggage: str, continuation_id: str = "", principal: Principal = PRINCIPAL):
    return NamedRuns().read({"baggage": baggage, **TRACED}, continuation_id, principal)


@pytest.mark.parametrize(
    ("baggage", "expected"),
    [
        ("penstock.run=r-7", NamedRun("r-7")),
        (
            "user=ada , penstock.run = r-7;ttl=3\t, penstock.chain=support,penstock.step=12",
            NamedRun("r-7", "support", 12),
        ),
        ("penstock.run=r%2D7,penstock.chain=a%2Fb", NamedRun("r-7", "a/b")),
        ("penstock.run=first,penstock.run=second", NamedRun("first")),
        ("penstock.run=r,penstock.step=-1,penstock.chain=%3Dcmd", NamedRun("r")),
        ("penstock.run=r,penstock.step=1e3,penstock.chain=%ff", NamedRun("r")),
        ("penstock.run=r,penstock.step=١٢", NamedRun("r")),
    ],
)
def test_baggage_names_a_run(baggage: str, expected: NamedRun) -> None:
    assert expected == named(baggage)


@pytest.mark.parametrize(
    "baggage",
    [
        "",
        "penstock.run",
        "penstock.run=",
        "penstock.run=a b",
        "penstock.run=a%0Ab",
        "penstock.run=%",
        "penstock.run=" + "a" * 129,
        "penstock.run=é",
        "Penstock.Run=a",
        "penstock.chain=support",
        "a=" + "b" * CHARACTERS_MAX + ",penstock.run=r",
        "a=b," * MEMBERS_MAX + "penstock.run=r",
    ],
)
def test_what_names_none_leaves_the_trace(baggage: str) -> None:
    assert NamedRun(TRACE, is_trace=True) == named(baggage)


def test_a_continuation_stands_above_baggage() -> None:
    assert NamedRun("c-1") == named("penstock.run=r", continuation_id="c-1")


def test_a_chain_that_the_key_may_not_call_is_not_noted() -> None:
    narrow = Principal("key", "web", "standard", "interactive", chains=frozenset({"support"}))

    assert NamedRun("r", "support") == named("penstock.run=r,penstock.chain=support", "", narrow)
    assert NamedRun("r") == named("penstock.run=r,penstock.chain=payroll", "", narrow)


def test_no_tenant_fills_the_sums_with_names() -> None:
    runs = NamedRuns()
    other = Principal("key", "other", "standard", "interactive")

    def chain(number: int, principal: Principal) -> str:
        baggage = f"penstock.run=r,penstock.chain=c{number}"
        found = runs.read({"baggage": baggage}, "", principal)
        assert found is not None
        return found.chain

    noted = [chain(number, PRINCIPAL) for number in range(CHAINS_MAX + 5)]
    assert noted[-6:] == [f"c{CHAINS_MAX - 1}", "", "", "", "", ""]
    assert chain(3, PRINCIPAL) == "c3"
    assert chain(CHAINS_MAX + 1, other) == f"c{CHAINS_MAX + 1}"


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert isinstance(read_baggage("penstock.run=" + text), dict)
    found = named(text)
    assert found is not None
    assert found.run_id.isascii()
