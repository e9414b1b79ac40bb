"""Which call is failed."""

from __future__ import annotations

import pytest

from penstock.sandbox.faults import FaultRate, Faults, parse_rate


def test_a_header_goes_before_the_plan_and_the_plan_before_chance():
    faults = Faults([FaultRate("503", 1.0)])
    faults.plan(["500", None])

    assert ["529", "500", None, "503"] == [
        faults.next("529"),
        faults.next(None),
        faults.next(None),
        faults.next(None),
    ]
    assert faults.injected == {"529": 1, "500": 1, "503": 1}


def test_a_plan_is_repeated_to_fill_its_calls_and_replaced_by_the_next():
    faults = Faults()
    faults.plan(["500", "503"], calls=3)
    assert list(faults.planned) == ["500", "503", "500"]

    faults.plan([])
    assert faults.next(None) is None


def test_chance_repeats_with_its_seed():
    def drawn(seed: int) -> list[str | None]:
        faults = Faults([FaultRate("500", 0.5)], seed)
        return [faults.next(None) for _ in range(64)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("text", "expected"), [("500", FaultRate("500", 1.0)), ("stall:0.25", FaultRate("stall", 0.25))]
)
def test_a_rate_is_read(text, expected):
    assert expected == parse_rate(text)


@pytest.mark.parametrize("text", ["", "nothing", "500:", "500:x", "500:1.1", "500:-1", "500:nan"])
def test_a_rate_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"known are|between 0 and 1"):
        parse_rate(text)


def test_a_plan_without_end_is_refused():
    with pytest.raises(ValueError, match="can be planned"):
        Faults().plan(["500"], calls=10**9)
