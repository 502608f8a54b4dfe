# SPDX-License-Identifier: Apache-2.0
"""Bodies both ways in every framing, and the answers that are not just a head and a body."""

import json
import os

import pytest

from harness import eventually, ws
from harness.net import Truncated, tls_trusting
from harness.stack import app_bytes, sha256

pytestmark = pytest.mark.usefixtures("tunnel")

SIZES = [0, 1, 16383, 16384, 65536, 1000003]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["bytes", "chunked", "close"])
def test_downloads(edge, path, size):
    with edge.dial() as conn:
        got = conn.fetch("GET", f"/{path}?n={size}", edge.name("demo"))
        assert got.status == 200 and got.body == app_bytes(size)
        if path == "bytes":
            assert got.framing == "length"
        if got.framing != "close":
            # The end was told by the framing, so the connection goes on.
            assert conn.fetch("GET", "/hello", edge.name("demo")).body == b"hello\n"


@pytest.mark.parametrize("size", SIZES)
def test_uploads_with_length(edge, size):
    body = os.urandom(size)
    with edge.dial() as conn:
        for _ in range(2):
            got = json.loads(conn.fetch("POST", "/echo", edge.name("demo"), body=body).body)
            assert (got["bytes"], got["sha256"]) == (size, sha256(body))


@pytest.mark.parametrize("step", [1, 7, 4096, 100000])
def test_uploads_in_chunks(edge, step):
    body = os.urandom(step * 50)
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (step, body[i:i + step])
                      for i in range(0, len(body), step))
    with edge.dial() as conn:
        for _ in range(2):
            conn.request("PUT", "/echo", edge.name("demo"), [("Transfer-Encoding", "chunked")])
            conn.send(chunks + b"0\r\n\r\n")
            got = json.loads(conn.read_response().body)
            assert (got["bytes"], got["sha256"]) == (len(body), sha256(body))
            assert "content-length" not in {h.lower() for h in got["headers"][::2]}


def test_a_body_split_at_every_byte(edge):
    raw = (f"POST /echo HTTP/1.1\r\nHost: {edge.name('demo')}\r\nTransfer-Encoding: chunked\r\n"
           "\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: v\r\n\r\n").encode()
    with edge.dial() as conn:
        for byte in raw:
            conn.send(bytes([byte]))
        got = json.loads(conn.read_response().body)
        assert got["sha256"] == sha256(b"hello world")


def test_get_with_a_body_and_post_without(edge):
    with edge.dial() as conn:
        got = json.loads(conn.fetch("GET", "/echo", edge.name("demo"), body=b"in a get").body)
        assert got["bytes"] == 8
        conn.request("POST", "/echo", edge.name("demo"))  # no framing: no body
        assert json.loads(conn.read_response().body)["bytes"] == 0
        got = json.loads(conn.fetch("DELETE", "/echo", edge.name("demo"), body=b"x").body)
        assert (got["method"], got["bytes"]) == ("DELETE", 1)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT"])
def test_methods(edge, method):
    assert json.loads(edge.get("/echo", method=method, body=b"x").body)["method"] == method


def test_head(edge):
    with edge.dial() as conn:
        for target, length in (("/bytes?n=5000", "5000"), ("/hello", "6"), ("/chunked?n=10", None)):
            got = conn.fetch("HEAD", target, edge.name("demo"))
            assert got.status == 200 and got.body == b""
            assert got.get("content-length") == length
        assert conn.fetch("GET", "/hello", edge.name("demo")).body == b"hello\n"


def test_answers_without_a_body(edge):
    with edge.dial() as conn:
        got = conn.fetch("GET", "/status?code=204", edge.name("demo"))
        assert got.status == 204 and got.get("x-answer") == "status"
        assert not got.get("transfer-encoding")
        got = conn.fetch("GET", "/notmodified", edge.name("demo"))
        assert got.status == 304 and got.get("etag") == '"e2e"'
        assert got.get("content-length") in (None, "12345")
        got = conn.fetch("GET", "/status?code=205", edge.name("demo"))
        assert got.status == 205
        assert conn.fetch("GET", "/hello", edge.name("demo")).body == b"hello\n"


def test_early_hints(edge):
    with edge.dial() as conn:
        for _ in range(2):
            got = conn.fetch("GET", "/hints", edge.name("demo"))
            assert [m.status for m in got.interim] == [103]
            assert got.interim[0].get("link") == "</style.css>; rel=preload; as=style"
            assert (got.status, got.body) == (200, b"hello\n")


def test_early_hints_are_not_for_http_1_0(edge):
    with edge.dial() as conn:
        conn.request("GET", "/hints", edge.name("demo"), version="HTTP/1.0")
        got = conn.read_response()
        assert got.interim == [] and got.body == b"hello\n"


def test_expect_100_continue(edge):
    with edge.dial() as conn:
        conn.request("POST", "/echo", edge.name("demo"),
                     [("Expect", "100-continue"), ("Content-Length", "11")])
        assert conn.read_head().status == 100  # before a byte of the body was sent
        conn.send(b"hello world")
        got = conn.read_response("POST")
        assert json.loads(got.body)["sha256"] == sha256(b"hello world")
        assert conn.fetch("GET", "/hello", edge.name("demo")).status == 200


def test_expect_refused(edge):
    with edge.dial() as conn:
        conn.request("POST", "/expect/refuse", edge.name("demo"),
                     [("Expect", "100-continue"), ("Content-Length", "1000000")])
        got = conn.read_response("POST")
        assert (got.status, got.body, got.interim) == (417, b"refused", [])
        # The body was never sent: the connection cannot be used for another request.
        assert conn.at_end()
    assert edge.status("/hello") == 200


def test_expect_something_else(edge):
    with edge.dial() as conn:
        conn.request("POST", "/echo", edge.name("demo"), [("Expect", "200-ok")], body=b"x")
        assert conn.read_response("POST").status in (200, 400, 417)


def test_response_trailers(edge):
    with edge.dial() as conn:
        got = conn.fetch("GET", "/trailers", edge.name("demo"), [("TE", "trailers")])
        assert got.body == b"body with trailers"
        assert [(n.lower(), v) for n, v in got.trailers] == [("x-checksum", "abc123")]
        assert conn.fetch("GET", "/hello", edge.name("demo")).status == 200


def test_request_trailers(edge):
    with edge.dial() as conn:
        conn.request("POST", "/echo", edge.name("demo"),
                     [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
        conn.send(b"3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n")
        got = json.loads(conn.read_response().body)
        assert got["sha256"] == sha256(b"abc")
        assert [t.lower() for t in got["trailers"]] == ["x-sum", "42"]


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Host", "X-Forwarded-For",
                                  "Connection"])
def test_trailers_cannot_bring_what_a_head_may_not(edge, name):
    with edge.dial() as conn:
        conn.request("POST", "/echo", edge.name("demo"), [("Transfer-Encoding", "chunked")])
        conn.send(f"3\r\nabc\r\n0\r\n{name}: 6.6.6.6\r\n\r\n")
        got = conn.read_response()
        if got.status == 200:
            assert "6.6.6.6" not in json.loads(got.body)["trailers"]
        else:
            assert got.status == 400


def test_early_answer_to_an_upload(edge):
    """The app answers 413 with most of the body unsent, and hangs up: the visitor reads it."""
    size = 64 << 20
    with edge.dial() as conn:
        conn.request("POST", "/early", edge.name("demo"), [("Content-Length", str(size))])
        conn.send(b"x" * 65536)
        got = conn.read_response()
        assert (got.status, got.body) == (413, b"too large")
        conn.read_all()  # and the connection ends, since the rest of the body cannot be told apart
    assert edge.status("/hello") == 200


def test_early_answer_to_an_eager_upload(edge, folder):
    """curl goes on sending while the answer comes."""
    (folder / "big").write_bytes(b"x" * (32 << 20))
    got = edge.curl("/early", "-H", "Expect:", "-H", "Content-Type: application/octet-stream",
                    "--data-binary", f"@{folder / 'big'}", "-w", "%{http_code}")
    assert got.stdout == b"too large413", got.stderr


def test_early_answer_with_the_upload_read(edge):
    body = b"x" * (4 << 20)
    with edge.dial() as conn:
        conn.request("POST", "/early-keep", edge.name("demo"),
                     [("Content-Length", str(len(body)))])
        assert conn.read_response().status == 403
        try:
            conn.send(body)
            again = conn.fetch("GET", "/hello", edge.name("demo"))
        except (OSError, Truncated):
            return  # closing after an early answer is as good
        assert again.body == b"hello\n"


def test_early_answer_is_complete_while_the_visitor_is_still_silent(edge):
    with edge.dial() as conn:
        conn.request("POST", "/early-keep", edge.name("demo"), [("Content-Length", "5")])
        assert conn.read_response().body == b"denied"


def test_server_sent_events_arrive_as_they_are_sent(edge, app):
    with edge.dial() as conn:
        conn.request("GET", "/sse?id=sse-live", edge.name("demo"))
        head = conn.read_head()
        assert head.get("content-type") == "text/event-stream"
        conn.read_until(b": hi\n\n")
        for n in range(50):  # the next one is sent only after this one arrived
            app.control("emit", id="sse-live", data=f"event-{n}")
            conn.read_until(f"data: event-{n}\n\n".encode())
        app.control("finish", id="sse-live")
        assert conn.read_until(b"0\r\n\r\n")


def test_upload_arrives_as_it_is_sent(edge, app):
    with edge.dial() as conn:
        conn.request("POST", "/sink?id=sink-live", edge.name("demo"),
                     [("Transfer-Encoding", "chunked")])
        for n in range(1, 30):
            conn.send(b"1\r\nx\r\n")
            app.await_visit("sink-live", "bytes", n)
        conn.send(b"0\r\n\r\n")
        assert json.loads(conn.read_response().body) == {"bytes": 29}


def test_head_of_the_answer_arrives_before_its_body(edge):
    with edge.dial() as conn:
        conn.request("GET", "/stall?id=stall-head", edge.name("demo"))
        assert conn.read_head().get("content-length") == "1000000"
        assert conn.read_exactly(4) == b"some"
        assert conn.is_quiet()


@pytest.mark.parametrize("leave", ["close", "abort"])
@pytest.mark.parametrize("path", ["hang", "stall", "sse", "pour"])
def test_visitor_who_leaves_closes_the_upstream(edge, app, path, leave):
    name = f"leave-{path}-{leave}"
    conn = edge.dial()
    conn.request("GET", f"/{path}?id={name}", edge.name("demo"))
    app.await_visit(name, "seen")
    if path != "hang":
        assert conn.read_head().status == 200
        conn.read_exactly(1)
    assert app.visit(name)["closed"] == 0
    getattr(conn, leave)()
    app.await_visit(name, "closed")
    assert edge.status("/hello") == 200


@pytest.mark.parametrize("leave", ["close", "abort"])
def test_visitor_who_leaves_in_an_upload_closes_the_upstream(edge, app, leave):
    name = f"leave-upload-{leave}"
    conn = edge.dial()
    conn.request("POST", f"/sink?id={name}", edge.name("demo"), [("Content-Length", "1000000")])
    conn.send(b"x" * 5000)
    app.await_visit(name, "bytes", 5000)
    getattr(conn, leave)()
    app.await_visit(name, "closed")
    assert app.visit(name)["ended"] == 0  # half an upload never looks like a whole one


def test_visitor_over_tls_who_leaves(edge, app):
    conn = edge.dial(tls=tls_trusting(), sni="demo.localhost")
    conn.request("GET", "/pour?id=leave-tls", edge.name("demo", tls=True))
    assert conn.read_head().status == 200
    conn.close()
    app.await_visit("leave-tls", "closed")


def test_a_stopped_reader_stops_the_app(edge, app):
    """Backpressure reaches the app: it cannot pour into a visitor who does not read."""
    with edge.dial(receive_buffer=4096) as conn:
        conn.request("GET", "/pour?id=stopped", edge.name("demo"))
        assert conn.read_head().status == 200
        last = [-1]

        def settled():
            now = app.visit("stopped")["bytes"]
            same, last[0] = now == last[0], now
            return same
        eventually(settled, "the app stops", pause=1.0)
        assert last[0] < 64 << 20
        conn.read_exactly(8 << 20)
        app.await_visit("stopped", "bytes", last[0] + 1)  # and goes on when the visitor does


def truncated(script_answer):
    def serve(conn):
        conn.read_request()
        conn.send(script_answer)
    return serve


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfifty",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfifty\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nfifty",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfifty\r\n0\r\n"])
def test_a_cut_answer_never_looks_complete(start, edge, script, answer):
    label = start.client(edge, script(truncated(answer)), subdomain=None).label()
    with edge.dial() as conn:
        conn.request("GET", "/", edge.name(label))
        with pytest.raises((Truncated, ConnectionError)):
            conn.read_response()
    assert edge.status("/hello") == 200


@pytest.mark.parametrize("answer", [
    b"complete nonsense\r\n\r\n", b"\x00\x01\x02\x03", b"",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nBad Header: x\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/3.7 200 OK\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"])
def test_a_bad_answer_is_502(start, edge, script, answer):
    label = start.client(edge, script(truncated(answer)), subdomain=None).label()
    with edge.dial() as conn:
        got = conn.fetch("GET", "/", edge.name(label))
        assert got.status == 502 and got.body
    assert edge.status("/hello") == 200


def test_bad_chunks_from_the_app_cut_the_answer(start, edge, script):
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfifty\r\nzz\r\nmore\r\n"
    label = start.client(edge, script(truncated(answer)), subdomain=None).label()
    with edge.dial() as conn:
        conn.request("GET", "/", edge.name(label))
        try:
            assert conn.read_response().status == 502
        except (Truncated, ConnectionError):
            pass  # its head may have been on its way already


def test_endless_1xx_are_502(start, edge, script):
    """An app that only ever announces an answer is bounded, and so is what the visitor gets."""
    def serve(conn):
        conn.read_request()
        while True:
            conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100)
    label = start.client(edge, script(serve), subdomain=None).label()
    with edge.dial() as conn:
        got = conn.fetch("GET", "/", edge.name(label))
        assert got.status == 502 and len(got.interim) < 1000
    assert edge.status("/hello") == 200


def test_websockets_of_visitors(start, edge, script):
    """An upgrade both ends agree on is a byte stream from then on, in both directions."""
    def serve(conn):
        head = conn.read_head()
        assert head.get("upgrade") == "websocket" and "pgrade" in head.get("connection", "")
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                  "Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nfirst")
        while data := conn.sock.recv(4096):
            conn.send(data.upper())
    upstream = script(serve)
    label = start.client(edge, upstream, subdomain=None).label()
    with edge.dial() as conn:
        conn.send(ws.upgrade_head(edge.name(label), path="/chat"))
        assert conn.read_head().status == 101
        assert conn.read_exactly(5) == b"first"
        for n in range(20):
            conn.send(f"word{n}")
            assert conn.read_exactly(len(f"word{n}")) == f"WORD{n}".encode()
    assert not upstream.failures
    assert edge.status("/hello") == 200
