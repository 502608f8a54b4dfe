# SPDX-License-Identifier: Apache-2.0
"""Heads and bodies that are ambiguous or malformed: 400, close, and never a byte to the app."""

import threading

import pytest

from harness import eventually
from harness.net import Listener

H = b"Host: demo.localhost\r\n"


@pytest.fixture(name="watched", scope="session")
def _watched(session_start):
    """A server with a tunnel whose upstream records everything it gets."""
    seen, lock = [], threading.Lock()

    def serve(conn):
        while True:
            head = conn.read_head()
            with lock:
                seen.append(head)
            conn.read_body(head)
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    listener = session_start.keep(Listener(serve))
    server = session_start.server()
    session_start.client(server, listener.port, "--quiet")
    session_start.client(server, listener.port, "--quiet", "--host-header", "h" * 200,
                         subdomain="rewritten")
    server.seen = seen
    return server


HEADS = {
    # Host
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + H + H + b"\r\n",
    "two different hosts": b"GET / HTTP/1.1\r\n" + H + b"Host: other.localhost\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "host with a space": b"GET / HTTP/1.1\r\nHost: demo .localhost\r\n\r\n",
    "host with a user": b"GET / HTTP/1.1\r\nHost: x@demo.localhost\r\n\r\n",
    "host with a path": b"GET / HTTP/1.1\r\nHost: demo.localhost/x\r\n\r\n",
    "host list": b"GET / HTTP/1.1\r\nHost: demo.localhost, demo.localhost\r\n\r\n",
    "host with a tab inside": b"GET / HTTP/1.1\r\nHost: demo\t.localhost\r\n\r\n",
    "host with a bad port": b"GET / HTTP/1.1\r\nHost: demo.localhost:http\r\n\r\n",
    # framing
    "length and chunked": b"POST / HTTP/1.1\r\n" + H +
                          b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"POST / HTTP/1.1\r\n" + H +
                          b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n" + H +
                   b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list of lengths": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5, 6\r\n\r\nhello!",
    "length with a plus": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +5\r\n\r\nhello",
    "negative length": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -5\r\n\r\nhello",
    "hex length": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0x5\r\n\r\nhello",
    "length with a letter": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5a\r\n\r\nhello",
    "length with a space": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5 5\r\n\r\nhello",
    "empty length": b"POST / HTTP/1.1\r\n" + H + b"Content-Length:\r\n\r\n",
    "length past 64 bits": b"POST / HTTP/1.1\r\n" + H +
                           b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "length that wraps": b"POST / HTTP/1.1\r\n" + H +
                         b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "unknown coding": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity coding": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked not last": b"POST / HTTP/1.1\r\n" + H +
                        b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\n" + H +
                     b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two lines": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n"
                            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked then identity": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n"
                             b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked with junk": b"POST / HTTP/1.1\r\n" + H +
                         b"Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "quoted chunked": b"POST / HTTP/1.1\r\n" + H +
                      b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "empty coding": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\n" + H +
                           b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    # fields
    "space before the colon": b"GET / HTTP/1.1\r\n" + H + b"X-A : b\r\n\r\n",
    "space in the coding's name": b"POST / HTTP/1.1\r\n" + H +
                                  b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "tab before the colon": b"POST / HTTP/1.1\r\n" + H + b"Content-Length\t: 5\r\n\r\nhello",
    "folded line": b"GET / HTTP/1.1\r\n" + H + b"X-A: b\r\n c\r\n\r\n",
    "folded first line": b"GET / HTTP/1.1\r\n X-A: b\r\n" + H + b"\r\n",
    "no colon": b"GET / HTTP/1.1\r\n" + H + b"nonsense\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\n" + H + b": value\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\n" + H + b"X-A: a\x00b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\n" + H + b"X-\x00A: b\r\n\r\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\n" + H + b"X-A: a\rX-B: b\r\n\r\n",
    "control in a value": b"GET / HTTP/1.1\r\n" + H + b"X-A: a\x01b\r\n\r\n",
    "DEL in a value": b"GET / HTTP/1.1\r\n" + H + b"X-A: a\x7fb\r\n\r\n",
    "space in a name": b"GET / HTTP/1.1\r\n" + H + b"X A: b\r\n\r\n",
    "latin-1 in a name": b"GET / HTTP/1.1\r\n" + H + b"X-\xe9: b\r\n\r\n",
    "quote in a name": b"GET / HTTP/1.1\r\n" + H + b"X\"A: b\r\n\r\n",
    "bracket in a name": b"GET / HTTP/1.1\r\n" + H + b"X[A]: b\r\n\r\n",
    # line ends
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: demo.localhost\n\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nHost: demo.localhost\nX-A: b\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\n" + H + b"\n",
    "bare CR at the end": b"GET / HTTP/1.1\r\n" + H + b"\r\rGET /x HTTP/1.1\r\n\r\n",
    "CR CR LF": b"GET / HTTP/1.1\r\r\n" + H + b"\r\n",
    # request line
    "no version": b"GET /\r\n" + H + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + H + b"\r\n",
    "empty target": b"GET  HTTP/1.1\r\n" + H + b"\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n" + H + b"\r\n",
    "space at the end": b"GET / HTTP/1.1 \r\n" + H + b"\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n" + H + b"\r\n",
    "tab in the line": b"GET\t/\tHTTP/1.1\r\n" + H + b"\r\n",
    "relative target": b"GET index.html HTTP/1.1\r\n" + H + b"\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n" + H + b"\r\n",
    "control in the target": b"GET /\x1b[31m HTTP/1.1\r\n" + H + b"\r\n",
    "lower case method": b"get / HTTP/1.1\r\n" + H + b"\r\n",
    "lower case version": b"GET / http/1.1\r\n" + H + b"\r\n",
    "version with junk": b"GET / HTTP/1.1x\r\n" + H + b"\r\n",
    "version 1.10": b"GET / HTTP/1.10\r\n" + H + b"\r\n",
    "other protocol": b"GET / ICAP/1.0\r\n" + H + b"\r\n",
    "asterisk for GET": b"GET * HTTP/1.1\r\n" + H + b"\r\n",
    "a response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "binary": b"\x80\x81\x82\x83 / HTTP/1.1\r\n" + H + b"\r\n",
    "spaces before": b"  GET / HTTP/1.1\r\n" + H + b"\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
}

VERSIONS = {
    "version 2.0": b"GET / HTTP/2.0\r\n" + H + b"\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\n" + H + b"\r\n",
    "version 9.9": b"GET / HTTP/9.9\r\n" + H + b"\r\n",
    "version 0.9": b"GET / HTTP/0.9\r\n" + H + b"\r\n",
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


def refused(server, raw, statuses=(400,)):
    """Sends raw with a smuggled request behind it: one error page, an end, nothing upstream."""
    before = len(server.seen)
    with server.dial() as conn:
        conn.send(raw + b"GET /smuggled HTTP/1.1\r\nHost: demo.localhost\r\n\r\n")
        got = conn.read_response()
        assert got.status in statuses, got
        assert "close" in got.get("connection", "").lower()
        assert conn.read_all() == b"", "something after the error page"
    assert len(server.seen) == before, server.seen[before:]


@pytest.mark.parametrize("name", HEADS)
def test_bad_head(watched, name):
    # RFC 9110 15.6.2 and RFC 9112 6.1 have 501 for methods and codings nobody knows.
    unknown = name in ("unknown coding", "identity coding", "lower case method")
    refused(watched, HEADS[name], (400, 501) if unknown else (400,))


@pytest.mark.parametrize("name", VERSIONS)
def test_bad_version(watched, name):
    refused(watched, VERSIONS[name], (400, 505))


def test_bad_head_after_good_ones(watched):
    with watched.dial() as conn:
        for _ in range(3):
            assert conn.fetch("GET", "/", "demo.localhost").body == b"ok"
        conn.send(HEADS["length and chunked"])
        assert conn.read_response().status == 400
        assert conn.at_end()


def test_bad_head_split_into_bytes(watched):
    with watched.dial() as conn:
        for byte in HEADS["two hosts"]:
            conn.send(bytes([byte]))
        assert conn.read_response().status == 400
        assert conn.at_end()


BODIES = {
    "size is no number": b"xyz\r\nhello\r\n0\r\n\r\n",
    "negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "size past 64 bits": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "size that wraps": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "no CRLF after the data": b"5\r\nhello0\r\n\r\n",
    "data longer than said": b"5\r\nhello world\r\n0\r\n\r\n",
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    "bad trailer": b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    "bare LF after trailers": b"5\r\nhello\r\n0\r\nX-A: b\n\r\n",
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_chunks(watched, name):
    """The head may be on its way already; the body never completes and nothing is smuggled."""
    with watched.dial() as conn:
        conn.send(b"POST /chunks HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n" +
                  BODIES[name] + b"GET /smuggled HTTP/1.1\r\n" + H + b"\r\n")
        answer = conn.read_all()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not any("smuggled" in head.start for head in watched.seen)
    assert watched.status("/") == 200


def test_huge_heads_are_431(watched):
    before = len(watched.seen)
    for raw in (b"GET / HTTP/1.1\r\n" + H + b"X-Big: " + b"x" * 100_000 + b"\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + H + b"X-Many: 1\r\n" * 9000 + b"\r\n",
                b"GET / HTTP/1.1\r\n" + H + b"x" * 100_000 + b": v\r\n\r\n"):
        with watched.dial() as conn:
            conn.send(raw)
            got = conn.read_response()
            assert got.status in (400, 431), got
            assert conn.at_end()
    with watched.dial() as conn:
        conn.send(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n" + H + b"\r\n")
        assert conn.read_response().status in (414, 431, 400)
        assert conn.at_end()
    assert len(watched.seen) == before
    assert watched.status("/") == 200


def test_endless_head_is_bounded(watched):
    """A head that never ends is cut off at the limit, however slowly it comes."""
    with watched.dial() as conn:
        conn.send(b"GET / HTTP/1.1\r\n" + H)
        sent = 0
        try:
            while sent < 16 << 20:
                conn.send(b"X-More: " + b"x" * 990 + b"\r\n")
                sent += 1000
        except ConnectionError:
            pass
        assert sent < 16 << 20, "took 16 MiB of head"
    assert watched.status("/") == 200


def test_reasonable_big_heads_pass(watched):
    """Big cookies are a fact of life: 8 KiB in one field, some dozens of fields."""
    headers = [("Cookie", "c" * 8000)] + [(f"X-{n}", "v" * 50) for n in range(50)]
    before = len(watched.seen)
    assert watched.get("/", headers=headers).body == b"ok"
    assert watched.seen[before].get("cookie") == "c" * 8000


@pytest.mark.parametrize("host", ["demo.localhost", "rewritten.localhost"])
def test_heads_around_the_limit(watched, host):
    """On both sides of every limit there is an answer: it passes, or it is 431."""
    seen = set()
    for size in [*range(1000, 70000, 3000), *range(8000, 8400, 40), *range(16200, 16500, 25),
                 *range(32500, 32900, 40), *range(64800, 65700, 15)]:
        with watched.dial() as conn:
            fields = [(f"X-{n}", "v" * 4000) for n in range(size // 4009)]
            conn.request("GET", "/", host, [*fields, ("X-Rest", "v" * (size % 4009))])
            seen.add(conn.read_response().status)
    assert seen == {200, 431}


def test_endless_trailers_are_bounded(watched):
    with watched.dial() as conn:
        conn.send(b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        sent = 0
        try:
            while sent < 16 << 20:
                conn.send(b"X-More: " + b"x" * 990 + b"\r\n")
                sent += 1000
        except ConnectionError:
            pass
        assert sent < 16 << 20
    assert watched.status("/") == 200


def test_empty_line_before_a_request(watched):
    """RFC 9112 section 2.2 asks servers to overlook one; nothing worse may come of it."""
    with watched.dial() as conn:
        conn.send(b"\r\nGET / HTTP/1.1\r\n" + H + b"\r\n")
        assert conn.read_response().status in (200, 400)


def test_half_a_head_and_silence(watched):
    held = [watched.dial() for _ in range(50)]
    try:
        for n, conn in enumerate(held):
            conn.send((b"GET / HTTP/1.1\r\n" + H)[:n])
        assert watched.status("/") == 200
        for conn in held:
            conn.half_close()
        for conn in held:
            conn.read_all()  # ends, whatever it says
    finally:
        for conn in held:
            conn.close()
    assert watched.status("/") == 200


def test_many_garbage_connections_leave_nothing(watched):
    watched.status("/")
    base = watched.proc.descriptors()
    for n in range(300):
        with watched.dial() as conn:
            conn.send(bytes((n * i) & 255 for i in range(1, 200)))
            if n % 2:
                conn.abort()
    eventually(lambda: watched.proc.descriptors() <= base + 3, "the server's descriptors")
    assert watched.status("/") == 200
