"""Where a limit is known from."""

from __future__ import annotations

import pytest

from penstock.limits.pool import LimitsPlan, Pool
from penstock.units import LimitName, LimitReading

TPM = LimitName.TPM


def source(pool: Pool) -> str:
    return pool.buckets[TPM].source


@pytest.mark.parametrize("algorithm", ["bucket", "window"])
def test_a_limit_is_known_from_where_its_plan_has_it(algorithm) -> None:
    ours = LimitsPlan({TPM: 6_000.0}, algorithm=algorithm)
    published = LimitsPlan({TPM: 6_000.0}, algorithm=algorithm, source="catalogue")
    pool = Pool(ours, 0.0)

    assert source(pool) == "configured"
    assert source(Pool(published, 0.0)) == "catalogue"
    pool.replan(published, 1.0)
    assert source(pool) == "catalogue"
    pool.replan(ours, 2.0)
    assert source(pool) == "configured"


@pytest.mark.parametrize("algorithm", ["bucket", "window"])
def test_a_header_that_says_less_or_says_it_first_is_the_source(algorithm) -> None:
    for rates in ({TPM: 6_000.0}, {}):
        pool = Pool(LimitsPlan(rates, algorithm=algorithm), 0.0)
        pool.observe(LimitReading(TPM, capacity=600.0, remaining=500.0), sent_at=1.0, now=1.1)

        assert source(pool) == "header"


def test_a_429_while_there_was_room_is_the_source_of_the_smaller_bucket() -> None:
    pool = Pool(LimitsPlan({TPM: 6_000.0}), 0.0)
    capacity = pool.buckets[TPM].capacity
    pool.pause(TPM, 2.0, 1.0)

    assert source(pool) == "429"
    assert pool.buckets[TPM].capacity < capacity


def test_a_429_that_was_expected_teaches_nothing() -> None:
    pool = Pool(LimitsPlan({TPM: 6_000.0}), 0.0)
    pool.reserve({TPM: pool.buckets[TPM].level}, 0.0)
    pool.pause(TPM, 2.0, 0.0)

    assert source(pool) == "configured"


def test_a_limit_taken_out_of_the_configuration_goes_however_it_was_learnt_since() -> None:
    pool = Pool(LimitsPlan({TPM: 6_000.0}), 0.0)
    pool.pause(TPM, 2.0, 1.0)
    pool.replan(LimitsPlan({}), 3.0)

    assert TPM not in pool.buckets
