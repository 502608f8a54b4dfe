# SPDX-License-Identifier: Apache-2.0
"""Whoever misbehaves is counted; `--verbose` tells the counts at the end."""
import re


def counts(server):
    assert server.proc.stop() == 0
    line = [line for line in server.proc.err() if line.startswith("counted: ")][-1]
    return {name: int(n) for n, name in re.findall(r"(\d+) ([^,]+)", line)}


def test_misbehaviour_is_counted(start):
    server = start.server("--verbose")
    for garbage in (b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        with server.dial() as conn:
            conn.send(garbage)
            assert conn.read_response().status == 400
    with server.dial() as conn:
        conn.request("GET", "/__tunnel__/link", "localhost")
        assert conn.read_response().status == 401
    with server.dial() as conn:
        conn.request("GET", "/__tunnel__/health/live", "localhost")
        assert conn.read_response().status == 200
    got = counts(server)
    assert got["bad requests"] == 2
    assert got["refused links"] == 1
    assert got["requests"] == 2
    assert got["sessions"] == 0 and got["broken links"] == 0
