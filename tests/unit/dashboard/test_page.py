"""The live page's files obey their own policy, and its numbers are plain data."""

from __future__ import annotations

import re
from importlib import resources

import msgspec

from penstock.config.model import ServerTable
from penstock.dashboard.page import routes
from penstock.dashboard.snapshot import ClassView, LiveSnapshot, Totals
from penstock.http.auth import Authenticator
from penstock.http.door import Access, Desk
from penstock.http.entrance import require_doors
from penstock.http.static_files import POLICY
from penstock.telemetry.metrics import Metrics

STATIC = resources.files("penstock.dashboard").joinpath("static")


def empty() -> LiveSnapshot:
    return LiveSnapshot(0.0, [], [], [], [], Totals())


def test_only_the_numbers_need_a_key_and_they_need_an_admins() -> None:
    desk = Desk(Authenticator({}, b"pepper"), ServerTable(), Metrics())
    access = {route.path: door.access for route, door in require_doors(routes(desk, empty))}
    assert access.pop("/admin/live") is Access.ADMIN
    assert set(access.values()) == {Access.PUBLIC}


def test_the_files_hold_nothing_that_the_policy_forbids() -> None:
    page = STATIC.joinpath("live.html").read_text()
    code = STATIC.joinpath("live.js").read_text()
    assert "style=" not in page
    assert "<style" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r"\son\w+=", page)
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in code
    for text in (page, code, STATIC.joinpath("live.css").read_text()):
        assert "http://" not in text
        assert "https://" not in text
    assert "unsafe" not in POLICY


def test_a_snapshot_comes_back_from_json_as_it_was() -> None:
    full = LiveSnapshot(1.5, [], [ClassView("batch", 2, 3, 4, 5.5)], [], [], Totals(1, 2, 3.5))
    assert msgspec.json.decode(msgspec.json.encode(full), type=LiveSnapshot) == full
