"""The wait before a restart grows with each failure in a row, to a bound."""

from penstock.chains.supervisor import BACKOFF_SECONDS_MAX, backoff_seconds


def test_backoff_doubles_to_its_bound():
    assert [0.0, 0.25, 0.5, 1.0] == [backoff_seconds(failures) for failures in range(4)]
    assert BACKOFF_SECONDS_MAX == backoff_seconds(1000)
