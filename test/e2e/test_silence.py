"""An upstream that takes the request and says nothing: 504, and the tunnel goes on."""

import threading

import pytest

from harness import HANG
from harness.net import Listener

PATIENCE = 5 * HANG - 20  # the server's own limit is far below this


@pytest.fixture(name="silent_visits", scope="session", autouse=True)
def _silent_visits(request, session_start):
    """The visits start with the session, so that their waiting costs the run nothing."""
    if not any(item.get_closest_marker("last") for item in request.session.items):
        yield None
        return
    answers = {}

    def mute(conn):
        conn.read_head()
        conn.read_all()

    listener = session_start.keep(Listener(mute))
    server = session_start.server()
    session_start.client(server, listener.port, "--quiet")
    session_start.client(server, session_start.node(), "--quiet", subdomain="lively")

    def visit(method, body):
        try:
            with server.dial() as conn:
                conn.sock.settimeout(PATIENCE)
                conn.request(method, "/", server.name("demo"), body=body)
                answers[method] = conn.read_response(method)
        except Exception as error:  # pylint: disable=broad-except
            answers[method] = error
    threads = [threading.Thread(target=visit, args=a, daemon=True)
               for a in (("GET", None), ("POST", b"x" * 100), ("HEAD", None))]
    for thread in threads:
        thread.start()
    yield server, threads, answers


@pytest.mark.last
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_silent_upstream_is_504(silent_visits, method):
    server, threads, answers = silent_visits
    for thread in threads:
        thread.join(PATIENCE)
    got = answers.get(method)
    assert not isinstance(got, Exception) and got is not None, got
    assert got.status == 504
    if method != "HEAD":
        assert b"504" in got.body or b"answer" in got.body or b"respon" in got.body
    assert server.status("/hello", "lively") == 200
