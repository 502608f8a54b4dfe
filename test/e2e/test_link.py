# SPDX-License-Identifier: Apache-2.0
"""The link's own door: what is not a client is turned away alone, and nobody else suffers."""

import base64
import contextlib
import hashlib
import json
import os
import random
import struct

import pytest

from harness import SANITIZED, eventually, wire, ws

pytestmark = pytest.mark.usefixtures("tunnel")


@pytest.fixture(name="others_unhurt", autouse=True)
def _others_unhurt(edge, tunnel):
    """Around every test here: a visitor in the middle of a download notices nothing."""
    with edge.dial() as kept:
        kept.request("GET", "/bytes?n=9000000", edge.name("demo"))
        head = kept.read_head()
        kept.read_exactly(1000000)
        yield
        kept.read_exactly(8000000)
        assert head.status == 200
        assert kept.fetch("GET", "/hello", edge.name("demo")).status == 200
    assert edge.status("/hello") == 200
    assert edge.proc.alive() and tunnel.proc.alive()
    assert not any("public:" in line for line in tunnel.proc.out()[1:])


def linked(edge):
    """A WebSocket on the link's path with a good token, and not a word of the protocol yet."""
    peer = wire.Peer(edge)
    got = peer.answer
    assert got.status == 101, got
    assert got.get("upgrade", "").lower() == "websocket"
    assert got.get("sec-websocket-accept")
    assert got.get("sec-websocket-protocol") == ws.LINK_PROTOCOL
    assert got.get("sec-websocket-extensions") is None
    return peer.conn


def turned_away(conn, code=None):
    """The server ends the connection, by a close frame (with this code) or by ending it."""
    said = None
    with conn, contextlib.suppress(*wire.GONE):
        while said is None:
            opcode, payload = ws.read_frame(conn)
            if opcode == ws.CLOSE:
                said = payload
    if code:
        assert said is not None and said[:2] == struct.pack("!H", code), said


def send_quietly(conn, data):
    """Sends what the peer may already refuse to take."""
    with contextlib.suppress(OSError):
        conn.send(data)


# -- before the upgrade ---------------------------------------------------------------------------

@pytest.mark.parametrize("value", [None, "Bearer wrong", "Bearer ", "Bearer", "Basic YTpi", "",
                                   "Bearer " + "x" * 6000])
def test_no_link_without_the_token(edge, value):
    with edge.dial() as conn:
        conn.send(ws.upgrade_head(f"127.0.0.1:{edge.port}", protocol=ws.LINK_PROTOCOL,
                                  extra=[] if value is None else [("Authorization", value)]))
        got = conn.read_response()
        assert got.status == 401 and got.get("www-authenticate") == "Bearer", got
        assert json.loads(got.body)["error"] == "AUTH_FAILED"


def test_a_part_of_the_token_is_not_the_token(edge):
    for token in (edge.token[:-1], edge.token + "x", edge.token.upper(), edge.token[1:]):
        with wire.Peer(edge, token=token) as peer:
            assert peer.answer.status == 401


# -- WebSocket frames ------------------------------------------------------------------------------

@pytest.mark.parametrize("payload", [b"hello", b"", b"{\"a\": 1}", b"x" * 100000, b"\xff\xfe"])
def test_text_frame(edge, payload):
    conn = linked(edge)
    send_quietly(conn, ws.frame(ws.TEXT, payload))
    turned_away(conn, 1003 if 0 < len(payload) < 1000 else None)


@pytest.mark.parametrize("claim", [65537, 1 << 24, 1 << 32, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_oversized_frame(edge, claim):
    """Whoever sends more than a message may have is told so before all of it has come."""
    before = edge.proc.rss()
    conn = linked(edge)
    send_quietly(conn, ws.frame(ws.BINARY, os.urandom(65536 + 1), claim=claim))
    turned_away(conn, 1009 if claim < 1 << 63 else None)
    assert SANITIZED or edge.proc.rss() - before < 4 << 20


def test_oversized_message_in_fragments(edge):
    conn = linked(edge)
    send_quietly(conn, ws.frame(ws.BINARY, b"\0" * 40000, fin=False))
    send_quietly(conn, ws.frame(ws.CONTINUATION, b"\0" * 40000, fin=False))
    turned_away(conn, 1009)


def test_link_that_sends_without_an_end(edge):
    """It was told to go and goes on: the server neither keeps what comes nor stays with it."""
    before = edge.proc.rss()
    conn = linked(edge)
    block = ws.frame(ws.TEXT, b"x" * 60000)
    with pytest.raises(OSError):
        while True:
            conn.send(block)
    conn.close()
    assert SANITIZED or edge.proc.rss() - before < 4 << 20


def test_links_that_never_say_a_sensible_hello(edge):
    """Silent ones, half frames, random bytes: whatever they mean, in the end each is gone."""
    rng = random.Random(20240229)
    conns = [linked(edge) for _ in range(5)]
    for size in [1, 3, 11, 12, 16, 500, 60000] * 6:
        conns.append(linked(edge))
        send_quietly(conns[-1], ws.frame(ws.BINARY, rng.randbytes(size)))
    for cut in (1, 2, 5, 13):
        conns.append(linked(edge))
        conns[-1].send(ws.frame(ws.BINARY, b"x" * 100)[:cut])
    for conn in conns:
        turned_away(conn)


@pytest.mark.parametrize("name, raw", [
    ("not masked", ws.frame(ws.BINARY, b"x" * 20, masked=False)),
    ("reserved bits", ws.frame(ws.BINARY, b"x" * 20, rsv=7)),
    ("unknown opcode", ws.frame(5, b"x")),
    ("unknown control", ws.frame(0xB, b"x")),
    ("long ping", ws.frame(ws.PING, b"x" * 200)),
    ("ping in parts", ws.frame(ws.PING, b"x", fin=False)),
    ("continuation of nothing", ws.frame(ws.CONTINUATION, b"x")),
    ("plain http after the upgrade", b"GET / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n"),
    ("noise", bytes(range(256)) * 20)])
def test_broken_websocket(edge, name, raw):
    conn = linked(edge)
    send_quietly(conn, raw)
    turned_away(conn)
    assert name


def test_half_a_frame_and_gone(edge):
    for cut in (1, 2, 5, 13):
        conn = linked(edge)
        conn.send(ws.frame(ws.BINARY, b"x" * 100)[:cut])
        conn.abort()


def test_close_frame_is_answered(edge):
    conn = linked(edge)
    conn.send(ws.frame(ws.CLOSE, b"\x03\xe8"))
    turned_away(conn, 1000)


def test_websocket_ping_is_answered(edge):
    with linked(edge) as conn:
        conn.send(ws.frame(ws.PING, b"abc"))
        assert ws.read_frame(conn) == (ws.PONG, b"abc")


def test_many_silent_links_do_not_keep_others_out(edge, start, app):
    held = [linked(edge) for _ in range(60)]
    try:
        client = start.client(edge, app, subdomain=None)
        assert edge.status("/hello", client.label()) == 200
    finally:
        for conn in held:
            conn.abort()


def upgrade_head(edge, *extra):
    return ws.upgrade_head(f"127.0.0.1:{edge.port}", protocol=ws.LINK_PROTOCOL, extra=[
        ("Authorization", f"Bearer {edge.token}"), *extra])


@pytest.mark.parametrize("extra, statuses", [
    ({"drop": "Upgrade"}, range(400, 500)),
    ({"drop": "Sec-WebSocket-Key"}, range(400, 500)),
    ({"drop": "Sec-WebSocket-Protocol"}, [400]),
    ({"swap": (b"tunnel.v1", b"tunnel.v99")}, [400]),
    ({"swap": (b"tunnel.v1", b"chat, tunnel.v10")}, [400]),
    ({"swap": (b"Authorization: Bearer", b"X-Authorization: Bearer")}, [401]),
    ({"drop": "Sec-WebSocket-Version"}, range(400, 500)),
    ({"swap": (b"Version: 13", b"Version: 7")}, range(400, 500)),
    ({"swap": (b"GET ", b"POST ")}, range(400, 500)),
    ({"swap": (b"Upgrade: websocket", b"Upgrade: h2c")}, range(400, 500)),
    ({"swap": (b"Connection: Upgrade", b"Connection: close")}, range(400, 500)),
    ({"swap": (b"Host: ", b"Host: x\r\nHost: ")}, [400]),
])
def test_bad_upgrade(edge, extra, statuses):
    raw = upgrade_head(edge)
    if "drop" in extra:
        lines = raw.split(b"\r\n")
        raw = b"\r\n".join(x for x in lines if not x.startswith(extra["drop"].encode() + b":"))
    else:
        raw = raw.replace(*extra["swap"])
    with edge.dial() as conn:
        conn.send(raw)
        assert conn.read_head().status in statuses


def test_upgrade_with_100_kb_headers(edge):
    raw = upgrade_head(edge, ("X-Big", "x" * 100_000))
    with edge.dial() as conn:
        send_quietly(conn, raw)
        assert conn.read_head().status in (400, 431)


def test_upgrade_split_into_bytes(edge):
    with edge.dial() as conn:
        for byte in upgrade_head(edge):
            conn.send(bytes([byte]))
        assert conn.read_head().status == 101


def test_upgrade_with_frames_right_behind(edge):
    """Bytes that came with the head are not lost on the way to the link's own reader."""
    with edge.dial() as conn:
        conn.send(upgrade_head(edge) + ws.frame(ws.BINARY, wire.hello()))
        assert conn.read_head().status == 101
        opcode, message = ws.read_frame(conn)
        assert (opcode, message[0]) == (ws.BINARY, wire.WELCOME)
    conn = edge.dial()
    conn.send(upgrade_head(edge) + ws.frame(ws.TEXT, b"early"))
    assert conn.read_head().status == 101
    turned_away(conn, 1003)


def test_turned_away_links_leave_no_descriptors(edge):
    edge.status("/hello")
    base = edge.proc.descriptors()
    for n in range(120):
        conn = linked(edge)
        if n % 3 == 0:
            conn.abort()
        elif n % 3 == 1:
            conn.close()
        else:
            send_quietly(conn, ws.frame(ws.TEXT, b"x"))
            turned_away(conn)
    eventually(lambda: edge.proc.descriptors() <= base + 3, "the server's descriptors")


def test_client_survives_a_hostile_server(start, app, script):
    """The other way round: a server that is none, in several ways, costs the client its link."""
    counter = [0]

    def serve(conn):
        head = conn.read_head()
        counter[0] += 1
        n = counter[0] % 6
        if n == 0:
            conn.send(os.urandom(500))
            return
        key = head.get("Sec-WebSocket-Key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        if n == 1:
            accept = "wrong"
        answer = ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                  f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n")
        if head.get("Sec-WebSocket-Protocol"):
            answer += f"Sec-WebSocket-Protocol: {head.get('Sec-WebSocket-Protocol')}\r\n"
        conn.send(answer + "\r\n")
        frames = [b"", ws.frame(ws.TEXT, b"x", masked=False),
                  ws.frame(ws.BINARY, os.urandom(3000), masked=False),
                  ws.frame(ws.BINARY, b"", masked=False, claim=1 << 50),
                  bytes(range(256))]
        conn.send(frames[n - 1] if n > 1 else b"")
        conn.read_all()
    liar = script(serve)
    shape = start.server()
    client = start.client(shape, app, link=f"ws://127.0.0.1:{liar.port}", wait=False)
    eventually(lambda: counter[0] >= 3 or not client.proc.alive(), "some tries")
    client.gets_nowhere()


# -- inside a session -----------------------------------------------------------------------------

NO_HELLO = {
    "data first": wire.data(0, 0, b"x" * 20),
    "welcome first": wire.frame(wire.WELCOME, 0, wire.pack({"version": 1})),
    "attach to nothing": wire.frame(wire.ATTACH, 0, wire.pack(
        {"session": b"s" * 16, "generation": 1, "link": 1, "nonce": b"n" * 16, "mac": b"m" * 32})),
    "hello on a stream": wire.frame(wire.HELLO, 7, wire.hello()[12:]),
    "hello longer than allowed": wire.frame(wire.HELLO, 0, claim=1 << 20),
    "hello without keys": wire.frame(wire.HELLO, 0, wire.pack({})),
    "hello with a list": wire.frame(wire.HELLO, 0, wire.pack([1, 2])),
    "hello with a wrong type": wire.hello(version_min="one"),
    "hello with a short instance": wire.hello(instance=b"short"),
    "hello with bytes behind": wire.frame(wire.HELLO, 0, wire.hello()[12:] + b"x"),
    "hello cut short": wire.frame(wire.HELLO, 0, wire.hello()[12:-3]),
    "hello with a key twice": wire.frame(wire.HELLO, 0, b"\x82" + wire.pack("force") + b"\xc3" +
                                         wire.pack("force") + b"\xc3"),
    "hello that claims a million keys": wire.frame(wire.HELLO, 0, b"\xdf\x00\x0f\x42\x40"),
    "hello nested deeply": wire.frame(wire.HELLO, 0, b"\x81\xa1x" * 2000 + b"\x80"),
    "hello with a control in a string": wire.hello(agent="a\nb"),
    "hello of another version": wire.hello(version_min=77, version_max=99),
    "hello without sense in its limits": wire.hello(
        limits={"max_frame": 1, "max_streams": 1 << 31, "window": 0}),
}


@pytest.mark.parametrize("name", NO_HELLO)
def test_bad_start(edge, name):
    code = {"attach to nothing": wire.GONE_AWAY,
            "hello of another version": wire.VERSION}.get(name, wire.PROTOCOL)
    with wire.Peer(edge) as peer:
        assert peer.answer.status == 101
        with contextlib.suppress(OSError):
            peer.send(NO_HELLO[name])
        assert peer.closed() == code


def u64(*numbers):
    return b"".join(struct.pack("!Q", n) for n in numbers)


HOSTILE = {
    "a second hello": wire.hello(),
    "an unknown frame that must be understood": wire.frame(0xFE, 0, b"x"),
    "data longer than agreed": wire.data(0, 0, b"x" * 100, claim=(1 << 24) - 1),
    "data without its offset": wire.frame(wire.DATA, 0, b"x"),
    "a ping of three bytes": wire.frame(wire.PING, 0, b"abc"),
    "a ping on a stream": wire.frame(wire.PING, 9, u64(1)),
    "an acknowledgement of nothing sent": wire.frame(wire.ACK, 0, u64(1 << 40, 1 << 41)),
    "an acknowledgement cut short": wire.frame(wire.ACK, 0, u64(1)),
    "control data past the credit": wire.data(0, 1 << 40, b"x"),
    "control data at the end of numbers": wire.data(0, (1 << 64) - 1, b"xx"),
    "an end of the control stream": wire.frame(wire.FIN, 0, u64(0)),
    "an unknown message that must be understood": wire.data(0, 0, b"\xfe\x00\x00\x01\x80"),
    "a message longer than allowed": wire.data(0, 0, b"\x81\xff\xff\xff" + b"x" * 1000),
    "a message that is no map": wire.data(0, 0, b"\x81\x00\x00\x01\x01"),
    "a stream with the server's parity": wire.frame(wire.OPEN, 2, wire.pack({"tunnel": 1})),
    "a stream far ahead of the others": wire.frame(wire.OPEN, 1 << 40 | 1,
                                                   wire.pack({"tunnel": 1})),
    "data for a stream that never was": wire.data(4, 0, b"x"),
    "welcome from a client": wire.frame(wire.WELCOME, 0, wire.pack({"version": 1})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frame_in_a_session(edge, name):
    with wire.Peer(edge) as peer:
        peer.greet()
        label = f"hostile-{list(HOSTILE).index(name)}"
        if "control" not in name and "message" not in name:  # those start at offset 0
            peer.publish(label)
        with contextlib.suppress(OSError):
            peer.send(HOSTILE[name])
        assert peer.closed() == (wire.UNSUPPORTED if "must be" in name else wire.PROTOCOL)
    # What a violator published is not served, and not kept for it either.
    eventually(lambda: edge.status("/hello", label) in (404, 503), "its name is gone")


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"no http at all\r\n\r\n", b"\x00" * 500])
def test_hostile_answer_of_a_client(edge, answer):
    with wire.Peer(edge) as peer:
        peer.greet()
        label = f"liar-{len(answer)}"
        peer.publish(label)
        with edge.dial() as visitor:
            visitor.request("GET", "/", edge.name(label))
            stream, request = peer.await_open()
            assert request.startswith(b"GET / HTTP/1.1\r\n")
            peer.send(wire.data(stream, 0, answer))
            assert visitor.read_response().status == 502


def test_honest_answer_by_hand(edge):
    """The same by the book: what makes the hostile ones mean something."""
    with wire.Peer(edge) as peer:
        welcome = peer.greet()
        assert welcome["version"] == 1 and len(welcome["secret"]) == 32
        assert peer.publish("by-hand")["url"] == edge.url("", "by-hand", tls=True)
        with edge.dial() as visitor:
            visitor.request("GET", "/", edge.name("by-hand"))
            stream, _ = peer.await_open()
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
            peer.send(wire.data(stream, 0, answer))
            assert visitor.read_response().body == b"hello"


@pytest.mark.parametrize("frames", [
    "data past the credit", "a final offset below the data", "data behind the end",
    "data for a stream that never was", "a reset twice", "credit taken back",
    "an unknown frame that may be skipped"])
def test_odd_frames_on_a_stream(edge, frames):
    """Some of these are violations, some are to be ignored; the visitor gets an end to it."""
    with wire.Peer(edge) as peer:
        peer.greet()
        label = "odd-" + str(abs(len(frames) * 7))
        peer.publish(label)
        with edge.dial() as visitor:
            visitor.request("GET", "/", edge.name(label))
            stream, _ = peer.await_open()
            whole = wire.data(stream, 0, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
            sent = {
                "data past the credit": wire.data(stream, 1 << 50, b"x"),
                "a final offset below the data": whole + wire.frame(wire.FIN, stream, u64(3)),
                "data behind the end": wire.frame(wire.FIN, stream, u64(0)) + whole,
                "data for a stream that never was": wire.data(stream + 1000, 0, b"x") + whole,
                "a reset twice": wire.frame(wire.RESET, stream, u64(0) + b"\0\0\0\1") * 2,
                "credit taken back": wire.frame(wire.ACK, stream, u64(0, 0)) + whole,
                "an unknown frame that may be skipped": wire.frame(0x70, stream, b"?") + whole,
            }[frames]
            with contextlib.suppress(OSError):
                peer.send(sent)
            got = visitor.read_response()
            assert got.status in (200, 502, 503)
            if "skipped" in frames:
                assert got.status == 200


def test_a_client_may_open_no_streams(edge):
    """max_streams 0 in the server's limits: such an OPEN is reset, the session goes on."""
    with wire.Peer(edge) as peer:
        assert peer.greet()["limits"]["max_streams"] == 0
        peer.send(wire.frame(wire.OPEN, 1, wire.pack({"tunnel": 1})))
        while True:
            kind, stream, _ = peer.read_frame()
            if kind == wire.RESET:
                break
        assert stream == 1
        peer.publish("opens-none")
        assert edge.name("opens-none")


def test_frames_may_be_cut_anywhere(edge):
    """A message's boundaries mean nothing: byte by byte it is the same session."""
    with wire.Peer(edge) as peer:
        for byte in wire.hello():
            peer.send(bytes([byte]))
        assert peer.read_frame()[0] == wire.WELCOME
        peer.publish("byte-by-byte")


def test_too_many_names_for_one_session(edge):
    """A bound on what a session may publish: the first refusal leaves the rest working."""
    with wire.Peer(edge) as peer:
        peer.greet()
        answers = []
        try:
            for number in range(1, 3000):
                peer.control(wire.PUBLISH, {"tunnel": number, "kind": "http",
                                            "name": f"many-{number}"})
                answers.append(peer.read_control()[0])
                if answers[-1] != wire.PUBLISHED:
                    break
        except wire.GONE:
            return
        assert wire.PUBLISH_FAILED in answers, "3000 names for one session"


@pytest.mark.parametrize("name", ["UPPER CASE", "-x", "a.b", "x" * 64, "a_b", "\u00e9", "a\0b",
                                  "*"])
def test_bad_names_are_refused_by_the_server_too(edge, name):
    with wire.Peer(edge) as peer:
        peer.greet()
        try:
            peer.control(wire.PUBLISH, {"tunnel": 1, "kind": "http", "name": name})
            assert peer.read_control()[0] == wire.PUBLISH_FAILED
        except wire.GONE:
            pass  # ending the session over it is as good
