# SPDX-License-Identifier: Apache-2.0
"""Asking for another protocol: it is HTTP until a 101, judged by the upstream, routed and refused
as any other request."""

import contextlib
import signal
import socket
import ssl
import time

import pytest

from harness import HANG, duet as duets
from harness.duet import ASK, SWITCH, frame
from harness.stack import trust
from harness.ws import TEXT


@pytest.fixture(name="stage", scope="module")
def _stage(session_start, edge):
    stage = session_start.keep(duets.Stage())
    session_start.client(edge, stage, "--quiet", subdomain="ask")
    stage.through(edge, "ask")
    return stage


def ask(stage, *fields, method="GET", path="/chat", version="1.1", drop=(), body=b""):
    """The lines of an upgrade request as the visitor sends them."""
    usual = [("Host", stage.host("tunnel")), ("Connection", "Upgrade"), ("Upgrade", "websocket"),
             ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")]
    lines = [f"{method} {path} HTTP/{version}"]
    lines += [f"{n}: {v}" for n, v in usual if n not in drop]
    lines += [f"{n}: {v}" for n, v in fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def is_open(visitor, upstream):
    """Bytes go both ways."""
    visitor.send(b"ping")
    assert upstream.read_exactly(4) == b"ping"
    upstream.send(b"pong")
    assert visitor.read_exactly(4) == b"pong"


# -- what the edge does not judge ------------------------------------------------------------------

@pytest.mark.parametrize("fields", [
    [("Sec-WebSocket-Key", "short"), ("Sec-WebSocket-Version", "13")],
    [("Sec-WebSocket-Key", "")], [],
    [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "8")],
    [("Sec-WebSocket-Key", "a"), ("Sec-WebSocket-Key", "b"), ("Sec-WebSocket-Version", "13, 8, 7"),
     ("Sec-WebSocket-Version", "99")],
    [("Sec-WebSocket-Protocol", "chat, superchat"), ("Sec-WebSocket-Protocol", "v2.x y")],
    [("Sec-WebSocket-Extensions", 'permessage-deflate; client_max_window_bits, x; y="z,"'),
     ("Sec-WebSocket-Extensions", "foo")],
    [("Origin", "null"), ("Cookie", "a=b; c=d"), ("Authorization", "Bearer x"),
     ("Sec-WebSocket-Accept", "of a request?")]])
def test_what_the_handshake_says_is_for_the_ends(stage, fields):
    """Keys, versions, subprotocols, extensions: passed as they came, in order, both ways."""
    answer = [("Sec-WebSocket-Accept", "not at all"), ("Sec-WebSocket-Protocol", "one, two"),
              ("Sec-WebSocket-Protocol", "three"), ("Sec-WebSocket-Extensions", "never-offered"),
              ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"), ("X-Other", "stays")]
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage, *fields, drop=("Sec-WebSocket-Key", "Sec-WebSocket-Version")))
        with stage.accept() as upstream:
            head = upstream.read_head()
            names = [n for n, _ in fields]
            assert [f for f in head.headers if f[0] in names] == fields
            assert not [n for n, _ in head.headers if n not in names and n.startswith("Sec-")]
            lines = "".join(f"{n}: {v}\r\n" for n, v in answer)
            upstream.send(SWITCH.format(token="websocket").split("Sec-")[0] + lines + "\r\n")
            got = visitor.read_head()
            assert got.status == 101
            assert [f for f in got.headers if f in answer] == answer
            is_open(visitor, upstream)


@pytest.mark.parametrize("token", ["tcp", "SPDY/3.1", "websocket, foo", "IRC/6.9", "TLS/1.2", "h2"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PATCH"])
def test_other_protocols_and_methods(stage, token, method):
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage, ("Upgrade", token), method=method, drop=("Upgrade",)))
        with stage.accept() as upstream:
            head = upstream.read_head()
            assert head.method == method and head.all("Upgrade") == [token]
            upstream.send(SWITCH.format(token=token))
            assert visitor.read_head().all("Upgrade") == [token]
            is_open(visitor, upstream)


@pytest.mark.parametrize("framing", ["length", "empty", "chunked"])
def test_an_upgrade_behind_a_body(stage, framing):
    """As container engines do it: the new protocol begins behind the request's body."""
    body, field = {"length": (b"{}", ("Content-Length", "2")),
                   "empty": (b"", ("Content-Length", "0")),
                   "chunked": (b"2\r\n{}\r\n0\r\n\r\n", ("Transfer-Encoding", "chunked"))}[framing]
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage, field, method="POST", body=body + b"early"))
        with stage.accept() as upstream:
            message = upstream.read_request()
            assert message.body == (b"" if framing == "empty" else b"{}")
            assert upstream.is_quiet(0.1)
            upstream.send(SWITCH.format(token="websocket") + "prompt")
            assert visitor.read_head().status == 101
            assert visitor.read_exactly(6) == b"prompt"
            assert upstream.read_exactly(5) == b"early"
            is_open(visitor, upstream)


def test_a_head_in_single_bytes(stage):
    with stage.edge.dial() as visitor:
        for byte in ask(stage) + b"early":
            visitor.send(bytes([byte]))
        with stage.accept() as upstream:
            upstream.read_head()
            for byte in (SWITCH.format(token="websocket") + "prompt").encode():
                upstream.send(bytes([byte]))
            assert visitor.read_head().status == 101
            assert visitor.read_exactly(6) == b"prompt"
            assert upstream.read_exactly(5) == b"early"
            is_open(visitor, upstream)


def test_hints_before_the_101(stage):
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage))
        with stage.accept() as upstream:
            upstream.read_head()
            upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
                          + SWITCH.format(token="websocket"))
            assert visitor.read_head().status == 103
            assert visitor.read_head().status == 101
            is_open(visitor, upstream)


def test_a_visitor_that_ends_with_its_request(stage):
    """Head, bytes and end in one go; the 101 and all that follows still come."""
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage) + b"all of it")
        visitor.half_close()
        with stage.accept() as upstream:
            upstream.read_head()
            assert upstream.is_quiet(0.1), "the end came before the 101"
            upstream.send(SWITCH.format(token="websocket"))
            assert upstream.read_all() == b"all of it"
            upstream.send(b"thanks")
        assert visitor.read_head().status == 101
        assert visitor.read_all() == b"thanks"


# -- under TLS -------------------------------------------------------------------------------------

@pytest.fixture(name="secured")
def _secured(stage, authority):
    """A visitor by wss://, upgraded, and the upstream's connection."""
    visitor = stage.edge.dial(tls=trust(authority), sni="demo.localhost")
    visitor.send(ASK.format(host=stage.host("tunnel"), token="websocket").encode() + b"early")
    upstream = stage.accept()
    head = upstream.read_head()
    assert head.get("X-Forwarded-Proto") == "https"
    upstream.send(SWITCH.format(token="websocket") + "prompt")
    assert visitor.read_head().status == 101
    assert visitor.read_exactly(6) == b"prompt" and upstream.read_exactly(5) == b"early"
    yield visitor, upstream
    upstream.close()
    visitor.close()


def say_goodbye(visitor):
    """TLS's end of the visitor's direction; what comes is still read."""
    visitor.sock.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):
        visitor.sock.unwrap()
    visitor.sock.settimeout(HANG)


def test_half_close_of_the_visitor_under_tls(secured):
    visitor, upstream = secured
    visitor.send(b"x" * 300000)
    say_goodbye(visitor)
    assert len(upstream.read_all()) == 300000
    upstream.send(b"y" * 300000)
    upstream.half_close()
    assert len(visitor.read_exactly(300000)) == 300000
    with pytest.raises(ssl.SSLZeroReturnError):  # a proper end, as both have said goodbye now
        visitor.sock.recv(1)


def test_half_close_of_the_upstream_under_tls(secured):
    visitor, upstream = secured
    upstream.send(b"y" * 300000)
    upstream.half_close()
    assert len(visitor.read_exactly(300000)) == 300000
    visitor.sock.suppress_ragged_eofs = False
    assert visitor.sock.recv(1) == b""
    visitor.send(b"x" * 300000)
    assert len(upstream.read_exactly(300000)) == 300000
    say_goodbye(visitor)
    assert upstream.sock.recv(1) == b""


def test_the_visitor_dies_under_tls(secured):
    """Also when TCP ends without a word of TLS: anyone may have done that."""
    visitor, upstream = secured
    visitor.send(b"last words")
    socket.socket.shutdown(visitor.sock, socket.SHUT_WR)
    assert upstream.read_exactly(10) == b"last words"
    with pytest.raises(ConnectionResetError):
        upstream.sock.recv(1)


def test_the_upstream_dies_under_tls(secured):
    visitor, upstream = secured
    upstream.send(b"last words")
    upstream.abort()
    assert visitor.read_exactly(10) == b"last words"
    visitor.sock.suppress_ragged_eofs = False
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
        visitor.sock.recv(1)


# -- what it refuses -------------------------------------------------------------------------------

@pytest.mark.parametrize("fields", [
    [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")],
    [("Connection", "Upgrade"), ("Upgrade", "websocket, h2c")],
    [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Upgrade", "H2C")],
    [("Connection", "keep-alive"), ("Upgrade", "websocket")], [("Connection", "Upgrade")]])
def test_upgrades_that_stay_http(stage, fields):
    """Cleartext HTTP/2 would go past all the edge does; and what nobody nominated is none."""
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage, *fields, drop=("Connection", "Upgrade")))
        with stage.accept() as upstream:
            head = upstream.read_head()
            assert not head.all("Upgrade") and head.get("Connection") == "keep-alive"
            assert not head.all("HTTP2-Settings")
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert visitor.read_response().body == b"ok"


def test_an_upgrade_in_http_1_0(stage):
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage, version="1.0"))
        with stage.accept() as upstream:
            assert not upstream.read_head().all("Upgrade")
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert visitor.read_response().body == b"ok"


@pytest.mark.parametrize("answer", [
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Content-Length: 5\r\n\r\nhello",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Transfer-Encoding: chunked\r\n\r\n"])
def test_a_101_that_is_none(stage, answer):
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage))
        with stage.accept() as upstream:
            upstream.read_head()
            upstream.send(answer)
            assert visitor.read_response().status == 502
            assert upstream.at_end()


# -- a refused upgrade is an answer ----------------------------------------------------------------

@pytest.mark.parametrize("status, fields, body", [
    (200, [("Content-Length", "4")], b"page"),
    (302, [("Location", "/login"), ("Content-Length", "0")], b""),
    (400, [("Sec-WebSocket-Version", "13, 8"), ("Content-Length", "3")], b"no\n"),
    (401, [("WWW-Authenticate", "Basic"), ("Content-Length", "0")], b""),
    (403, [("Transfer-Encoding", "chunked")], b"4\r\nnope\r\n0\r\n\r\n"),
    (404, [("Content-Length", "0")], b""),
    (426, [("Connection", "Upgrade"), ("Upgrade", "IRC/6.9"), ("Content-Length", "0")], b""),
    (503, [("Retry-After", "1"), ("Content-Length", "0")], b"")])
def test_a_refused_upgrade_stays_http(stage, status, fields, body):
    """The answer is as any other; afterwards the connection serves a request, then an upgrade."""
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage))
        upstream = stage.accept()
        upstream.read_head()
        lines = "".join(f"{n}: {v}\r\n" for n, v in fields)
        upstream.send(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)
        got = visitor.read_response()
        assert got.status == status and got.body in (body, b"nope")
        for name, value in fields:
            assert value in got.all(name)
        visitor.request("POST", "/next", stage.host("tunnel"), body=b"data")
        upstream.close()
        with stage.accept() as upstream:
            assert upstream.read_request().body == b"data"
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert visitor.read_response().body == b"ok"
            visitor.send(ask(stage) + b"now")
            with stage.accept() as other:
                other.read_head()
                other.send(SWITCH.format(token="websocket"))
                assert visitor.read_head().status == 101
                assert other.read_exactly(3) == b"now"
                is_open(visitor, other)


def test_pipelined_behind_a_refused_upgrade(stage):
    """What was sent behind it in the same segment is the next request then, and no frame."""
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage) + b"GET /next HTTP/1.1\r\nHost: " + stage.host("tunnel").encode()
                     + b"\r\n\r\n")
        with stage.accept() as upstream:
            assert upstream.read_head().target == "/chat"
            assert upstream.is_quiet(0.1)
            upstream.send("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
            assert visitor.read_response().status == 403
            assert upstream.read_head().target == "/next"
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert visitor.read_response().body == b"ok"


def test_frames_behind_a_refused_upgrade(stage):
    """To HTTP they are nothing: 400, and the upstream never sees them."""
    with stage.edge.dial() as visitor:
        visitor.send(ask(stage) + frame(TEXT, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", key=b"abcd"))
        with stage.accept() as upstream:
            upstream.read_head()
            upstream.send("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
            assert visitor.read_response().status == 403
            assert visitor.read_response().status == 400
            assert visitor.at_end()
            assert upstream.is_quiet(0.1)


# -- routed and answered as any other --------------------------------------------------------------

def test_an_upgrade_to_a_name_that_is_not_there(stage):
    with stage.edge.dial() as visitor:
        host = stage.edge.name("nobody")
        visitor.send(ASK.format(host=host, token="websocket"))
        got = visitor.read_response()
        assert got.status == 404 and b"nobody" in got.body
        # The connection goes on, to a name that is.
        visitor.send(ask(stage))
        with stage.accept() as upstream:
            upstream.read_head()
            upstream.send(SWITCH.format(token="websocket"))
            assert visitor.read_head().status == 101
            is_open(visitor, upstream)


def test_an_upgrade_routed_by_path(start):
    server = start.server("--path-routing")
    stage = start.keep(duets.Stage())
    start.client(server, stage, "--quiet", subdomain="chat")
    with server.dial() as visitor:
        visitor.send(ASK.replace("/chat", "/chat/room%2F1?x=1")
                     .format(host=server.name("@"), token="websocket") + "early")
        with stage.accept() as upstream:
            head = upstream.read_head()
            assert head.target == "/room%2F1?x=1" and head.get("Upgrade") == "websocket"
            assert head.get("X-Forwarded-Prefix") == "/chat"
            upstream.send(SWITCH.format(token="websocket"))
            assert visitor.read_head().status == 101
            assert upstream.read_exactly(5) == b"early"
            is_open(visitor, upstream)


def test_an_upgrade_to_an_upstream_that_is_down(start, edge):
    stage = duets.Stage()
    start.client(edge, stage, "--quiet", subdomain="down")
    stage.close()
    with edge.dial() as visitor:
        visitor.send(ASK.format(host=edge.name("down"), token="websocket"))
        got = visitor.read_response()
        assert got.status == 502 and b"refused" in got.body


def test_the_health_page_is_no_upgrade(edge):
    with edge.dial() as visitor:
        visitor.send(ASK.replace("/chat", "/__tunnel__/health/live")
                     .format(host=f"127.0.0.1:{edge.port}", token="websocket"))
        assert visitor.read_response().status == 200


def test_silence_for_longer_than_an_answer_may_take(start):
    """Nothing ends a connection that is merely silent."""
    server = start.server("--answer-timeout", "1", "--link-timeout", "1")
    stage = start.keep(duets.Stage())
    start.client(server, stage, "--quiet", "--link-timeout", "1", subdomain="quiet")
    stage.through(server, "quiet")
    duet = duets.begin(stage, "tunnel")
    time.sleep(2)
    assert duet.visitor.end is None and duet.upstream.end is None
    for end in duet.ends:
        end.frame(TEXT, b"still here")
    duet.settle()
    duet.close()


@pytest.mark.parametrize("which", ["client", "server"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_tunnel_dies(start, which, number):
    """Both ends learn that it is no proper end: no FIN as if all had been said."""
    server = start.server()
    stage = start.keep(duets.Stage())
    client = start.client(server, stage, "--quiet", subdomain="gone")
    stage.through(server, "gone")
    duet = duets.begin(stage, "tunnel")
    for end in duet.ends:
        end.frame(TEXT, b"hello")
    duet.settle()
    victim, far = ((client, duet.visitor) if which == "client" else (server, duet.upstream))
    victim.proc.deliver(number)
    # The far end hears it of the process that lives, the near one of the kernel.
    duet.ended(far, "reset")
    duet.until(lambda: all(end.end for end in duet.ends), "both ends")
    victim.proc.wait()
    duet.close()
