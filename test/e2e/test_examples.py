# SPDX-License-Identifier: Apache-2.0
"""The programs in examples/: an address that is forwarded to, and services inside the program."""

import concurrent.futures
import os

import pytest

from harness import BIN_DIR, MIB, SANITIZED, eventually
from harness.net import dial
from harness.stack import Client

EXAMPLES = BIN_DIR.parent / "examples"
LINE = b"All work and no play makes a dull byte. 0123456789 abcdefghijkl\n"
BULK = (8 if SANITIZED else 64) * MIB


@pytest.fixture(name="example")
def _example(start):
    """Starts one and, in the end, asks it to stop."""
    running = []

    def make(name, server, *args):
        proc = start.program(EXAMPLES / name, [server.link, server.token, *args])
        running.append(proc)
        client = Client(proc)
        client.public()
        return client
    yield make
    for proc in running:
        if proc.alive():
            assert proc.stop() == 0, proc.transcript()


# -- expose ---------------------------------------------------------------------------------------

def test_expose(start, app):
    server = start.server()
    client = start.program(EXAMPLES / "expose", [server.link, server.token, app.where])
    label = Client(client).label()
    assert server.status("/hello", label) == 200
    assert client.stop(2) == 0, client.transcript()


@pytest.mark.parametrize("name", ["expose", "expose_http", "expose_tcp"])
def test_usage_and_refusals(start, edge, name):
    last = ["3000"] if name == "expose" else []
    usage = start.program(EXAMPLES / name, [])
    assert usage.wait() == 2
    assert usage.text("err").startswith("usage: ")
    token = start.program(EXAMPLES / name, [edge.link, "wrong", *last])
    assert token.wait() == 1
    assert name in token.text("err")
    address = start.program(EXAMPLES / name, ["nowhere", "secret", *last])
    assert address.wait() == 1
    assert "wss://" in address.text("err")


# -- expose_http ----------------------------------------------------------------------------------

@pytest.fixture(name="web", scope="module")
def _web(session_start, edge):
    proc = session_start.program(EXAMPLES / "expose_http", [edge.link, edge.token, "inside"])
    Client(proc).public()
    yield edge
    assert proc.stop() == 0, proc.transcript()


def test_pages(web):
    assert web.get("/", "inside").body == b"Hello from inside the program.\n"
    assert web.status("/nothing", "inside") == 404
    assert web.status("/bytes/x", "inside") == 404
    assert web.get("/bytes/100", "inside").body == (LINE * 2)[-100:]
    assert web.curl("/", "-I", "-f", label="inside").stdout.startswith(b"HTTP/1.1 200")


def test_many_requests_on_one_connection(web):
    with web.dial() as conn:
        for n in (1, 64, 100_000, 3):
            for target, size in ((f"/bytes/{n}", n), ("/nothing", 38), ("/", 31)):
                conn.request("GET", target, web.name("inside"))
                assert len(conn.read_response().body) == size
        conn.request("POST", "/count", web.name("inside"), body=b"x" * 100_000)
        assert conn.read_response().body == b"100000 bytes\n"


@pytest.mark.parametrize("size", [0, 1, 100, 3 * MIB])
def test_bodies(web, size, folder):
    body = folder / "body"
    body.write_bytes(os.urandom(size))
    got = web.curl("/count", "-X", "POST", "--data-binary", f"@{body}", label="inside")
    assert got.stdout == b"%d bytes\n" % size, got.stderr


def test_a_body_of_unknown_length(web):
    got = web.curl("/count", "-H", "Transfer-Encoding: chunked", "-d", "abc", "-w",
                   "%{http_code}", label="inside")
    assert got.stdout == b"Send a Content-Length.\n411"


def test_much_to_many(web):
    def fetch(_n):
        return web.get(f"/bytes/{BULK // 8}", "inside").body
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for body in pool.map(fetch, range(8)):
            assert len(body) == BULK // 8
            assert body == LINE * (len(body) // len(LINE))


def test_a_slow_reader(web):
    """Who reads nothing is not sent to, and others are served meanwhile; then all arrives."""
    with dial("127.0.0.1", web.port, receive_buffer=4096) as conn:
        conn.request("GET", f"/bytes/{BULK}", web.name("inside"))
        assert web.status("/", "inside") == 200
        body = conn.read_response().body
    assert len(body) == BULK and body.endswith(LINE)


def test_visitors_that_leave(web):
    for _ in range(20):
        conn = web.dial()
        conn.request("GET", f"/bytes/{BULK}", web.name("inside"))
        conn.read_exactly(1000)
        conn.abort()
    assert web.status("/", "inside") == 200


# -- expose_tcp -----------------------------------------------------------------------------------

def test_lines(port_edge, example):
    service = example("expose_tcp", port_edge)

    def come():
        conn = dial("127.0.0.1", service.port)
        assert conn.read_until(b"\n") == b"Welcome.\n"
        return conn
    with come() as one, come() as two:
        one.send(b"hello\r\n" + b"wo")
        assert one.read_until(b"\n") == b"hello\n"
        one.send(b"rld\nwho\n")
        assert one.read_until(b"\n") == b"world\n"
        here = {one.read_until(b"\n"), one.read_until(b"\n")}
        names = ["%s:%d" % c.sock.getsockname() for c in (one, two)]
        assert here == {f"{names[0]} (you)\n".encode(), f"{names[1]}\n".encode()}
        two.send(b"say it\n")
        for conn in (one, two):
            assert conn.read_until(b"\n") == f"{names[1]}: it\n".encode()
        two.send(b"quit\n")
        assert two.read_until(b"\n") == b"Good bye.\n"
        assert two.at_end()
        # An end of one direction gets all the answers, and then the other end.
        one.send(b"a\n" * 1000)
        one.half_close()
        assert one.read_all() == b"a\n" * 1000
    eventually(lambda: "left" in service.proc.text("err"), "the visitors left")


def test_a_line_without_an_end(port_edge, example):
    service = example("expose_tcp", port_edge)
    with dial("127.0.0.1", service.port) as conn:
        conn.read_until(b"\n")
        conn.send(b"x" * 5000)
        with pytest.raises(ConnectionResetError):
            while conn.sock.recv(100):
                pass
    service.proc.wait_line("too long a line", kind="err")
