# SPDX-License-Identifier: Apache-2.0
"""Which tunnel answers: by exact Host, per request, never another one's."""

import threading

import pytest

from harness import HANG
from harness.net import dial
from harness.stack import curl


@pytest.fixture(name="two", scope="session")
def _two(session_start):
    """A server with the tunnels a and b, each with an app of its own that says who it is."""
    server = session_start.server()
    folders = {}
    for label in ("a", "b"):
        folders[label] = session_start.folder_for("site")
        (folders[label] / "who").write_text(label)
        (folders[label] / "index.html").write_text(label)
        session_start.client(server, session_start.python(folders[label]), "--quiet",
                             subdomain=label)
    return server


def who(server, host):
    got = server.get("/who", host=host)
    return got.body.decode() if got.status == 200 else got.status


def test_exact_host(two):
    assert who(two, f"a.localhost:{two.port}") == "a"
    assert who(two, f"b.localhost:{two.port}") == "b"


@pytest.mark.parametrize("form", ["a.localhost", "A.LocalHost", "a.localhost.", "A.LOCALHOST.:80",
                                  "a.localhost:1", "a.localhost:65535"])
def test_port_case_and_one_trailing_dot_do_not_count(two, form):
    assert who(two, form) == "a"


@pytest.mark.parametrize("host", [
    "localhost", "nobody.localhost", "xa.localhost", "ax.localhost", "a.a.localhost",
    "x.a.localhost", "a.localhost.example.com", "a-localhost", "alocalhost", "a", "b.",
    "example.com", "a.example.com", "127.0.0.1", "[::1]", "a.localhos", "a.localhosts",
    "a.localhost.localhost"])
def test_unknown_hosts_get_404(two, host):
    assert who(two, host) == 404
    assert who(two, f"{host}:{two.port}") == 404


@pytest.mark.parametrize("host", ["a.localhost..", "a..localhost", ".a.localhost", ".localhost",
                                  "a.localhost:x", "a.localhost:99999",
                                  "a.localhost:80:80", "a.localhost/", "a.localhost/x",
                                  "x@a.localhost", "a.localhost ,b.localhost", "a.localhost b",
                                  "a%2elocalhost", "a.localhost?x", "a\\.localhost", "a.localhost#",
                                  "a_b.localhost:1x", "[a.localhost]", "a.localhost:-1"])
def test_odd_hosts_reach_nobody(two, host):
    got = two.get("/who", host=host)
    assert got.status in (400, 404), got


def test_host_is_looked_at_for_every_request(two):
    with two.dial() as conn:
        for label in ("a", "b", "b", "a", "nobody", "b", "@", "a"):
            got = conn.fetch("GET", "/who", two.name(label))
            if label in ("a", "b"):
                assert (got.status, got.body) == (200, label.encode())
            else:
                assert got.status == 404


def test_pipelined_requests_to_two_names(two):
    with two.dial() as conn:
        order = ["a", "b", "nobody", "b", "a"]
        conn.send("".join(f"GET /who HTTP/1.1\r\nHost: {label}.localhost\r\n\r\n"
                          for label in order))
        for label in order:
            got = conn.read_response()
            if label == "nobody":
                assert got.status == 404
            else:
                assert got.body == label.encode()


def test_curl_two_names_on_one_connection(two):
    got = curl("-w", " %{num_connects}\n", "-H", "Host: a.localhost",
               f"http://127.0.0.1:{two.port}/who", "--next", "-w", " %{num_connects}\n",
               "-H", "Host: b.localhost", f"http://127.0.0.1:{two.port}/who")
    assert got.stdout.decode().split() == ["a", "1", "b", "0"], got.stderr


def test_absolute_form(two):
    """RFC 9112 section 3.2.2: the target's host counts; another Host beside it is ambiguous."""
    with two.dial() as conn:
        conn.request("GET", "http://a.localhost/who", "a.localhost")
        got = conn.read_response()
        assert (got.status, got.body) == (200, b"a")
    with two.dial() as conn:
        conn.request("GET", "http://a.localhost/who", "b.localhost")
        got = conn.read_response()
        assert got.status == 400 or (got.status, got.body) == (200, b"a")
    with two.dial() as conn:
        conn.request("GET", "http://nobody.localhost/who", "b.localhost")
        assert conn.read_response().status in (400, 404)


def test_connect_is_not_for_tunnels(two):
    with two.dial() as conn:
        conn.send("CONNECT a.localhost:80 HTTP/1.1\r\nHost: a.localhost:80\r\n\r\n")
        assert 400 <= conn.read_head().status < 600


@pytest.mark.usefixtures("tunnel")
def test_upstream_connections_are_reused(edge, app):
    """A new visitor each time, and still the app sees next to no new connections."""
    edge.status("/hello")
    before = app.stats()["connections"]
    for _ in range(30):
        assert edge.status("/hello") == 200
    assert app.stats()["connections"] - before <= 3


def test_upstream_connections_that_went_away_cost_no_visitor_an_error(edge, start, script):
    """The upstream closes each connection right after its answer without saying so before."""
    def serve(conn):
        while True:
            request = conn.read_request()
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            if request.target.startswith("/once"):
                return
    upstream = script(serve)
    label = start.client(edge, upstream, subdomain=None).label()
    with edge.dial() as conn:
        for n in range(40):
            assert conn.fetch("GET", f"/once/{n}", edge.name(label)).status == 200
            assert conn.fetch("POST", f"/once/{n}", edge.name(label), body=b"x").status == 200
    assert not upstream.failures


def test_posts_take_a_fresh_connection(edge, start, script):
    """What may not be repeated never rides on a kept connection that may be closing."""
    numbers = []

    def serve(conn):
        used = 0
        while True:
            request = conn.read_request()
            numbers.append((request.method, used))
            used += 1
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    label = start.client(edge, script(serve), subdomain=None).label()
    with edge.dial() as conn:
        for _ in range(5):
            assert conn.fetch("GET", "/", edge.name(label)).status == 200
            assert conn.fetch("POST", "/", edge.name(label), body=b"x").status == 200
    assert all(used == 0 for method, used in numbers if method == "POST")
    assert any(used > 0 for method, used in numbers if method == "GET")


def test_extra_bytes_after_an_answer_reach_nobody(edge, start, script):
    """An upstream that sends two answers for one request must not answer the next request: its
    connection is not used again."""
    reused = []

    def serve(conn):
        conn.read_request()
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                  "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        reused.append(conn.read_request().start)
    label = start.client(edge, script(serve), subdomain=None).label()
    other = start.client(edge, start.node(), subdomain=None).label()
    for _ in range(10):
        with edge.dial() as conn:
            assert conn.fetch("GET", "/", edge.name(label)).body == b"ok"
            got = conn.fetch("GET", "/hello", edge.name(other))
            assert (got.status, got.body) == (200, b"hello\n")
            assert conn.fetch("GET", "/", edge.name(label)).body == b"ok"
    assert reused == []


def test_bytes_on_an_idle_upstream_connection_retire_it(edge, start, script):
    speak, ended = threading.Event(), threading.Event()

    def serve(conn):
        conn.read_request()
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if speak.wait(HANG):
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        conn.read_all()
        ended.set()
    label = start.client(edge, script(serve), subdomain=None).label()
    assert edge.get("/", label).body == b"ok"
    speak.set()
    assert ended.wait(HANG), "the connection that spoke out of turn was kept"
    assert edge.get("/", label).body == b"ok"


@pytest.mark.parametrize("label", ["a", "b"])
def test_many_visitors_are_never_mixed_up(two, label):
    conns = [dial("127.0.0.1", two.port) for _ in range(60)]
    try:
        for n, conn in enumerate(conns):
            conn.request("GET", "/who", two.name("ab"[n % 2]))
        for n, conn in enumerate(conns):
            assert conn.read_response().body == b"ab"[n % 2:n % 2 + 1]
    finally:
        for conn in conns:
            conn.close()
    assert who(two, two.name(label)) == label


def test_the_target_arrives_as_sent(edge, start, script):
    """No decoding, no merging of slashes, no resolving of dots: that is the app's business."""
    seen = []

    def serve(conn):
        while True:
            seen.append(conn.read_request().target)
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    label = start.client(edge, script(serve), subdomain=None).label()
    targets = ["/", "/?", "/a?b=c&d=%20e+f", "/a?x=%2F..%2f%00", "//a", "/a/../b", "/./a",
               "/%65cho", "/a//b/", "/a;b=c", "/~a/:b/@c/$d", "/" + "long/" * 800]
    for target in targets:
        assert edge.get(target, label).status == 200, target
    assert seen == targets
