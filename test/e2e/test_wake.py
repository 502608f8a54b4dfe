# SPDX-License-Identifier: Apache-2.0
"""A machine that was asleep: the client looks at once whether its connection is still there."""

import time

import pytest

from harness import eventually
from harness.proxy import Hole


def resume():
    """What the kernel does when a machine wakes up: the clock is set, here to what it is."""
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())
    except PermissionError:
        pytest.skip("not permitted to set the clock here, and nothing else looks like a wake")


def test_a_dead_link_is_found_at_once(start, app):
    server = start.server("--link-timeout", "600")
    hole = start.keep(Hole(server.port))
    client = start.client(server, app, "--link-timeout", "600", "--verbose",
                          link=f"ws://127.0.0.1:{hole.port}")
    with server.dial() as conn:
        conn.request("GET", "/sse?id=asleep", server.name("demo"))
        assert conn.read_head().status == 200
        hole.swallows.update(hole.conns)
        app.control("emit", id="asleep", data="good morning")
        resume()
        while b"good morning" not in conn.read_chunk():
            pass
    eventually(lambda: "go on" in client.proc.text("err"), "it is back")


def test_a_living_link_stays(start, app):
    server = start.server()
    client = start.client(server, app)
    for _ in range(3):
        resume()
        time.sleep(1.1)
        assert server.status("/hello") == 200
    assert "trying again" not in client.proc.text("err")
