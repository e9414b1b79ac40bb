"""The rules for Dockerfiles of Python projects, as a table.

Only what concerns Python is here: wheels and libc, the order of layers, caches, bytecode, locks.
General rules of Dockerfiles are hadolint's; run it beside this. Each is explained in
docs/image.md under its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from penstock.image.dockerfile import rules_lock, rules_text
from penstock.image.dockerfile.findings import Finding, Severity
from penstock.image.dockerfile.view import View


class Rule(msgspec.Struct, frozen=True):
    """A rule with its id, what it is called, and the function that looks."""

    id: str
    title: str
    severity: Severity
    look: Callable[[View], Iterator[Finding]]


RULES: Final = (
    Rule("PSI001", "no wheel for this base", Severity.WARNING, rules_lock.compiles),
    Rule("PSI002", "compilers that nothing needs", Severity.WARNING, rules_lock.needless_compilers),
    Rule("PSI003", "a wheel that fits and fails", Severity.ERROR, rules_lock.traps),
    Rule("PSI004", "another Python than the lock's", Severity.ERROR, rules_lock.wrong_python),
    Rule("PSI005", "sources before dependencies", Severity.WARNING, rules_text.sources_first),
    Rule("PSI006", "not from a lock file", Severity.WARNING, rules_text.unlocked),
    Rule("PSI007", "no cache for the installer", Severity.NOTE, rules_text.no_cache),
    Rule("PSI008", "no bytecode", Severity.NOTE, rules_text.no_bytecode),
    Rule("PSI009", "runs as root", Severity.WARNING, rules_text.root),
    Rule("PSI010", "no .dockerignore", Severity.WARNING, rules_text.no_ignore),
    Rule("PSI011", "stages that do not fit together", Severity.ERROR, rules_text.mixed_stages),
    Rule("PSI012", "a password in the history", Severity.ERROR, rules_text.credentials),
    Rule("PSI013", "certificates not checked", Severity.ERROR, rules_text.no_tls),
    Rule("PSI014", "the full base", Severity.NOTE, rules_lock.full_base),
)
