"""Durable state behind small ports: one SQLite file.

``writer`` is the way in for everything that the service writes, ``reader`` that for what it asks;
``ledger`` is the record of every call, ``keys`` the API keys that operators create. ``database``
and ``schema`` are the file below them, and ``pepper`` the secret under which keys are digested.
"""
