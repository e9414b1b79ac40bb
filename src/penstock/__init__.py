"""Penstock: chains and LLM calls through one scheduler.

The package is read from the street inwards; ARCHITECTURE.md names every room.
"""

__version__ = "0.1.0"
