"""The scheduler in real time: one task owns it, calls wait for their grants and are sent.

``dispatcher`` owns the scheduler, ``upstream`` is the HTTP client, ``calls`` carries one call
from its submission to its settlement.
"""
