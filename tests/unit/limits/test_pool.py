"""Several limits of one deployment together: what is kept of each for more urgent classes."""

from __future__ import annotations

from penstock.limits.pool import LimitsPlan, Pool
from penstock.units import Amounts, LimitName


def call(tokens: float) -> Amounts:
    return {LimitName.RPM: 1.0, LimitName.ITPM: tokens}


def pool_after(tokens: float, calls: int = 100, **plan: float) -> Pool:
    """Ten requests and 10,000 tokens a second, two seconds of burst; calls of one size went."""
    rates = {LimitName.RPM: 600.0, LimitName.ITPM: 600_000.0}
    pool = Pool(LimitsPlan(rates, burst_seconds=plan.get("burst_seconds", 2.0)), 0.0)
    for number in range(calls):
        pool.reserve(call(tokens), float(number))
    return pool


def test_a_limit_beside_the_one_that_binds_does_not_keep_that_one_s_refill_from_being_used():
    """Requests bind; a large call leaves half of the tokens, which are back before they matter."""
    pool, now = pool_after(tokens=200.0), 200.0
    pool.reserve(call(10_000.0), now)
    assert pool.fit(call(200.0), 1.0, now).ready_at == now
    pool.buckets[LimitName.ITPM].take(5_000.0, now)
    assert pool.fit(call(200.0), 1.0, now).ready_at > now, "what is left is for urgent work"


def test_of_the_limit_that_binds_all_but_the_slack_is_kept():
    pool, now = pool_after(tokens=2_000.0), 200.0
    pool.reserve(call(10_000.0), now)

    assert pool.fit(call(200.0), 1.0, now).ready_at - now > 0.7


def test_which_limit_binds_is_learnt_anew_when_the_work_changes():
    pool = pool_after(tokens=200.0)
    for number in range(200):
        pool.reserve(call(5_000.0), 100.0 + number)
    tokens, requests = pool.buckets[LimitName.ITPM], pool.buckets[LimitName.RPM]

    assert (tokens.is_binding, requests.is_binding) == (True, False)


def test_a_large_burst_is_kept_whole_on_every_limit():
    """Five percent of sixty seconds are more than the second that small bursts leave."""
    pool = pool_after(tokens=200.0, burst_seconds=60.0)
    tokens = pool.buckets[LimitName.ITPM]
    was_binding, tokens.is_binding = tokens.is_binding, True

    assert not was_binding
    kept = tokens.floor(0.0, 1.0)
    tokens.is_binding = False
    assert tokens.floor(0.0, 1.0) == kept
