"""The bound on connections in a whole service: who is refused is counted, and a reload moves it."""

from __future__ import annotations

import http.client
import signal
from contextlib import closing
from pathlib import Path

CONFIG = "[server]\nconnections_max = 2\n[workers]\ncount = 0\n[store]\npath = '{store}'\n"


def test_over_the_bound_callers_are_told_and_counted_until_a_reload_raises_it(
    tmp_path: Path, running, poll
) -> None:
    file = tmp_path / "penstock.toml"
    config = CONFIG.format(store=tmp_path / "store")
    file.write_text(config)
    service = running("serve", "--config", str(file), "--port", "0")
    host = service.url.removeprefix("http://")
    with (
        closing(http.client.HTTPConnection(host)) as one,
        closing(http.client.HTTPConnection(host)) as two,
    ):

        def asked(connection: http.client.HTTPConnection, path: str) -> bytes:
            connection.request("GET", path)
            return connection.getresponse().read()

        poll(lambda: asked(one, "/healthz") == b'{"status":"ok"}')
        asked(two, "/healthz")
        status, problem = service.get("/healthz")
        assert (status, problem["error"]["code"]) == (503, "too_many_connections")
        assert "There are 2 open connections" in problem["detail"]
        counted = b'penstock_connections_refused_total{bound="all"} 1.0'
        assert counted in asked(two, "/metrics")

        file.write_text(config.replace("connections_max = 2", "connections_max = 20"))
        service.process.send_signal(signal.SIGHUP)
        poll(lambda: service.get("/healthz")[0] == 200)
