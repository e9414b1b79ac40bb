"""Which call goes next: admission, order, fairness, headroom. Pure and deterministic.

One entry, ``Scheduler.tick(now, events)``: events in, decisions out. It never reads a clock,
sleeps, logs or opens anything, so the same object runs live and in virtual time.
"""
