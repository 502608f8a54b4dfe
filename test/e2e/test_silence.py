# SPDX-License-Identifier: Apache-2.0
"""An upstream that takes the request and says nothing: 504, and the tunnel goes on."""

import pytest

from harness import eventually


@pytest.fixture(name="impatient", scope="session")
def _impatient(session_start):
    """A server that waits a second for an answer, in front of the Node app."""
    server = session_start.server(env={"TUNNEL_ANSWER_TIMEOUT": "1"})
    app = session_start.node()
    session_start.client(server, app, "--quiet")
    return server, app


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_silent_upstream_is_504(impatient, method):
    server, app = impatient
    name = f"silent-{method}"
    with server.dial() as conn:
        conn.request(method, f"/hang?id={name}", server.name("demo"),
                     body=b"x" * 100 if method == "POST" else None)
        got = conn.read_response(method)
        assert got.status == 504
        assert method == "HEAD" or b"504" in got.body or b"answer" in got.body
    app.await_visit(name, "closed")  # nobody waits for it any more
    assert server.status("/hello") == 200


def test_upstream_that_sends_half_a_head_is_504(impatient, start, script):
    def serve(conn):
        conn.read_request()
        conn.send("HTTP/1.1 200 OK\r\nContent-Le")
        conn.read_all()
    server, _ = impatient
    start.client(server, script(serve), subdomain="half")
    assert server.status("/", "half") == 504


def test_slow_bodies_are_not_cut(impatient):
    """The limit is for the answer's head: events and slow downloads live on."""
    server, app = impatient
    with server.dial() as conn, server.dial() as late:
        conn.request("GET", "/sse?id=patient", server.name("demo"))
        assert conn.read_head().status == 200
        conn.read_until(b": hi\n\n")
        late.request("GET", "/hang?id=meanwhile", server.name("demo"))
        assert late.read_response().status == 504  # so much for the limit: it has passed
        app.control("emit", id="patient", data="still there")
        conn.read_until(b"data: still there\n\n")


def test_slow_uploads_are_not_cut(impatient):
    """The app cannot answer before it has the request: while that goes on, nothing runs out."""
    server, app = impatient
    with server.dial() as conn, server.dial() as late:
        conn.request("POST", "/sink?id=slow-sink", server.name("demo"), [("Content-Length", "5")])
        conn.send(b"ab")
        app.await_visit("slow-sink", "bytes", 2)
        late.request("GET", "/hang?id=meanwhile-2", server.name("demo"))
        assert late.read_response().status == 504
        conn.send(b"c")
        app.await_visit("slow-sink", "bytes", 3)
        conn.send(b"de")
        assert conn.read_response().status == 200
    eventually(lambda: server.status("/hello") == 200, "goes on")


def test_many_silent_answers_leave_nothing(impatient):
    server, _ = impatient
    server.status("/hello")
    base = server.proc.descriptors()
    conns = [server.dial() for _ in range(50)]
    for conn in conns:
        conn.request("GET", "/hang?id=many-silent", server.name("demo"))
    for conn in conns:
        assert conn.read_response().status == 504
        conn.close()
    eventually(lambda: server.proc.descriptors() <= base + 3, "the server's descriptors")
