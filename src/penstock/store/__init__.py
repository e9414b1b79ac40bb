"""Durable state behind small ports.

``keys`` is the port to the API keys that operators create; ``database`` and ``schema`` are the
SQLite file below it, and ``pepper`` the secret under which keys are digested. SQLAlchemy costs
0.6 s of CPU to import, so it is imported when there is a database to open, not before.
"""
