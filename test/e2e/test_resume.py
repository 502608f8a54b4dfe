# SPDX-License-Identifier: Apache-2.0
"""Connections die, streams live: cuts, stalls and returns, as visitors see them."""

import hashlib
import json
import os
import re
import threading
import time

import pytest

from harness import HANG, eventually, wire, ws
from harness.net import Listener, Truncated, dial
from harness.proxy import Hole, Relay
from harness.stack import app_bytes, sha256
from harness.wire import ATTACHED, attach, proof

GONE, AUTH_FAILED, DENIED, PROTOCOL = 25, 19, 20, 17


class Cutter(threading.Thread):
    """Cuts the relay's connections over and over while a test runs."""

    def __init__(self, relay, every):
        super().__init__(daemon=True)
        self.relay, self.every, self.cuts = relay, every, 0
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(self.every):
            if self.relay.conns:
                self.relay.drop_all()
                self.cuts += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        self.join()


@pytest.fixture(name="cut")
def _cut(start, app):
    """A tunnel to the Node app whose link goes through a relay."""
    server = start.server("--grace", "20", "--verbose")
    relay = start.keep(Relay(server.port))
    client = start.client(server, app, "--quiet", link=f"ws://127.0.0.1:{relay.port}")
    server.relay, server.client = relay, client
    return server


def slowly(conn, size, pause):
    """Reads size bytes in pieces, with pauses, so that cuts fall into the transfer."""
    digest, got = hashlib.sha256(), 0
    while got < size:
        piece = conn.read_exactly(min(size - got, 512 * 1024))
        digest.update(piece)
        got += len(piece)
        time.sleep(pause)
    return digest.hexdigest()


def test_a_download_lives_through_cuts(cut):
    size = 24 << 20
    with cut.dial() as conn, Cutter(cut.relay, 0.4) as cutter:
        conn.request("GET", f"/bytes?n={size}", cut.name("demo"))
        head = conn.read_head()
        assert head.status == 200
        got = slowly(conn, size, 0.05)
        eventually(lambda: cutter.cuts >= 2, "cuts")
    assert got == sha256(app_bytes(size))
    assert "go on" in cut.client.proc.text("err")


def test_an_upload_lives_through_cuts(cut, app):
    size = 24 << 20
    body = app_bytes(size)
    with cut.dial() as conn, Cutter(cut.relay, 0.4) as cutter:
        conn.send(f"POST /echo HTTP/1.1\r\nHost: {cut.name('demo')}\r\n"
                  f"Content-Length: {size}\r\n\r\n")
        for at in range(0, size, 512 * 1024):
            conn.send(body[at:at + 512 * 1024])
            time.sleep(0.04)
        got = conn.read_response()
        eventually(lambda: cutter.cuts >= 2, "cuts")
    assert got.status == 200
    assert app.stats()["requests"] > 0


@pytest.mark.parametrize("pause", [0, 0.002])
def test_bytes_both_ways_through_cuts(start, pause):
    """A TCP tunnel to an echo: every byte comes back, in order, whatever happens to the link."""
    def echo(conn):
        while piece := conn.sock.recv(65536):
            conn.sock.sendall(piece)
    upstream = start.keep(Listener(echo))
    server = start.server("--grace", "20")
    relay = start.keep(Relay(server.port))
    client = start.tcp(server, upstream.port, link=f"ws://127.0.0.1:{relay.port}")
    sent = os.urandom(8 << 20)
    with dial("127.0.0.1", client.port) as conn, Cutter(relay, 0.15) as cutter:
        def write():
            for at in range(0, len(sent), 40000):
                conn.sock.sendall(sent[at:at + 40000])
                time.sleep(pause)
            conn.half_close()
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        got = conn.read_all()
        writer.join(HANG)
        assert pause == 0 or cutter.cuts >= 2
    assert got == sent


def test_a_websocket_lives_through_a_cut(start):
    def serve(conn):
        head = conn.read_head()
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                  "Connection: Upgrade\r\n\r\n")
        assert head.get("upgrade") == "websocket"
        while piece := conn.sock.recv(65536):
            conn.sock.sendall(piece.swapcase())
    upstream = start.keep(Listener(serve))
    server = start.server()
    relay = start.keep(Relay(server.port))
    client = start.client(server, upstream.port, link=f"ws://127.0.0.1:{relay.port}")
    with server.dial() as conn:
        conn.send(ws.upgrade_head(server.name("demo"), path="/chat"))
        assert conn.read_head().status == 101
        for turn in range(3):
            conn.send(b"before")
            assert conn.read_exactly(6) == b"BEFORE"
            relay.drop_all()
            conn.send(b"during")
            assert conn.read_exactly(6) == b"DURING"
            eventually(lambda n=turn + 1: client.proc.text("err").count("go on") >= n, "return")
    assert upstream.accepted == 1


def test_a_link_that_stalls_is_replaced(start, app):
    """Nothing is reset, nothing arrives: both ends notice it by the silence."""
    server = start.server("--link-timeout", "1")
    hole = start.keep(Hole(server.port))
    client = start.client(server, app, "--link-timeout", "1",
                          link=f"ws://127.0.0.1:{hole.port}")
    with server.dial() as conn:
        conn.request("GET", "/sse?id=stall", server.name("demo"))
        assert conn.read_head().status == 200
        for turn, word in enumerate((b"one", b"two", b"three")):
            app.control("emit", id="stall", data=word.decode())
            while word not in conn.read_chunk():
                pass
            hole.swallows.update(hole.conns)
            app.control("emit", id="stall", data=f"in the hole {turn}")
            assert b"in the hole" in conn.read_chunk()
            # A lane that was opened meanwhile may have brought it before the other link returned.
            eventually(lambda n=turn + 1: client.proc.text("err").count("go on") == n, "the return")


def test_visitors_of_the_gap_wait(cut):
    cut.relay.frozen = True
    cut.relay.drop_all()
    eventually(lambda: "lost its connection" in cut.proc.text("err"), "the server noticed")
    answers = []
    visitors = [threading.Thread(target=lambda: answers.append(cut.get("/hello").status),
                                 daemon=True) for _ in range(5)]
    for visitor in visitors:
        visitor.start()
    time.sleep(0.5)
    assert not answers
    cut.relay.frozen = False
    for visitor in visitors:
        visitor.join(HANG)
    assert answers == [200] * 5


def test_visitors_of_a_long_gap_are_told(cut):
    cut.relay.frozen = True
    cut.relay.drop_all()
    eventually(lambda: "lost its connection" in cut.proc.text("err"), "the server noticed")
    got = cut.get("/hello")
    assert got.status == 503
    assert b"connection was lost" in got.body
    cut.relay.frozen = False
    eventually(lambda: cut.status("/hello") == 200, "the return")


def test_past_the_grace_streams_end_and_the_name_comes_back(start, app):
    server = start.server("--grace", "1", "--verbose")
    relay = start.keep(Relay(server.port))
    client = start.client(server, app, "--quiet", link=f"ws://127.0.0.1:{relay.port}")
    size = 32 << 20
    with server.dial(receive_buffer=65536) as conn:
        conn.request("GET", f"/bytes?n={size}", server.name("demo"))
        assert conn.read_head().status == 200
        relay.frozen = True
        relay.drop_all()
        with pytest.raises((Truncated, ConnectionResetError)):
            conn.read_exactly(size)
    eventually(lambda: re.search("left: no connection for 1 s", server.proc.text("err")),
               "the end of the grace")
    relay.frozen = False
    eventually(lambda: server.status("/hello") == 200, "the name again")
    assert "public:" in client.proc.text("out")


def test_no_grace_ends_streams_at_once(start, app):
    server = start.server("--grace", "0")
    relay = start.keep(Relay(server.port))
    start.client(server, app, "--quiet", link=f"ws://127.0.0.1:{relay.port}")
    with server.dial(receive_buffer=65536) as conn:
        conn.request("GET", "/pour?id=nograce", server.name("demo"))
        assert conn.read_head().status == 200
        relay.drop_all()
        with pytest.raises((Truncated, ConnectionResetError)):
            while True:
                conn.read_exactly(1 << 20)


def test_a_server_that_restarted_knows_no_session(start, app):
    server = start.server()
    relay = start.keep(Relay(server.port))
    client = start.client(server, app, "--quiet", link=f"ws://127.0.0.1:{relay.port}")
    server.proc.kill()
    again = start.server(port=server.port, token=server.token)
    eventually(lambda: again.status("/hello") == 200, "the name at the new server")
    assert client.proc.alive()


def test_a_parked_holder_gives_way_to_its_account(start, app):
    server = start.server()
    relay = start.keep(Relay(server.port))
    client = start.client(server, app, "--quiet", link=f"ws://127.0.0.1:{relay.port}")
    relay.frozen = True
    relay.drop_all()
    start.client(server, app, "--quiet")
    assert server.status("/hello") == 200
    relay.frozen = False
    # It comes back to its session, and hears that the name is another one's now.
    eventually(lambda: "REPLACED" in client.proc.text("err"), "the word")
    assert server.status("/hello") == 200


def test_nobody_else_gets_a_parked_name(start, app):
    server = start.server("--token", "other")
    relay = start.keep(Relay(server.port))
    start.client(server, app, "--quiet", link=f"ws://127.0.0.1:{relay.port}")
    relay.frozen = True
    relay.drop_all()
    thief = start.client(server, app, "--force", token="other", wait=False)
    assert thief.proc.wait(HANG) == 1
    assert "NAME_TAKEN" in thief.proc.text("err")
    relay.frozen = False
    eventually(lambda: server.status("/hello") == 200, "the return")


# -- the proof ------------------------------------------------------------------------------------

@pytest.fixture(name="raw")
def _raw(start):
    """A session made by hand, with a name."""
    server = start.server("--token", "other")
    peer = wire.Peer(server)
    welcome = peer.greet()
    peer.publish("raw")
    yield server, peer, welcome
    peer.conn.close()


def test_a_right_proof_is_answered_with_one(raw):
    server, peer, welcome = raw
    peer.conn.close()
    with wire.Peer(server) as again:
        message, nonce = attach(welcome, 1)
        again.send(message)
        kind, _, payload = again.read_frame()
        assert kind == ATTACHED
        assert wire.unpack(payload)[0]["mac"] == proof(welcome, b"S", 1, nonce)
        with server.dial() as visitor:
            visitor.request("GET", "/", server.name("raw"))
            assert b"GET / " in again.await_open()[1]


@pytest.mark.parametrize("change, code", [
    ({"session": bytes(16)}, GONE), ({"generation": 1}, GONE), ({"mac": bytes(32)}, AUTH_FAILED),
    ({"nonce": bytes(16)}, AUTH_FAILED), ({"link": 7}, AUTH_FAILED),
    ({"mac": b"short"}, PROTOCOL), ({"link": 0}, PROTOCOL)])
def test_a_wrong_proof_changes_nothing(raw, change, code):
    server, peer, welcome = raw
    with wire.Peer(server) as liar:
        liar.send(attach(welcome, 1, change)[0])
        assert liar.closed() == code
    still_there(server, peer)


def still_there(server, peer):
    """The session that was aimed at did not notice."""
    with server.dial() as visitor:
        visitor.request("GET", "/", server.name("raw"))
        assert b"GET / " in peer.await_open()[1]


def test_a_number_is_used_once(raw):
    server, peer, welcome = raw
    peer.conn.close()
    message, _ = attach(welcome, 5)
    first = wire.Peer(server)
    first.send(message)
    assert first.read_frame()[0] == ATTACHED
    with wire.Peer(server) as replay:
        replay.send(message)
        assert replay.closed() == DENIED
    with wire.Peer(server) as old:
        old.send(attach(welcome, 0xFFFFFFFFFFFFFFFF)[0])
        assert old.read_frame()[0] == ATTACHED
        with wire.Peer(server) as late:
            late.send(attach(welcome, 6)[0])
            assert late.closed() == DENIED
        still_there(server, old)
    first.conn.close()


def test_another_account_cannot_attach(raw):
    server, peer, welcome = raw
    with wire.Peer(server, "other") as thief:
        thief.send(attach(welcome, 1)[0])
        assert thief.closed() == GONE
    still_there(server, peer)


def test_what_json_says_of_a_return(start, app):
    server = start.server("--log-format", "json", wait=False)
    server.proc.wait_line('"listening"', kind="out")
    relay = start.keep(Relay(server.port))
    client = start.client(server, app, "--log-format", "json", wait=False,
                          link=f"ws://127.0.0.1:{relay.port}")
    eventually(lambda: '"published"' in client.proc.text("out"), "published")
    relay.drop_all()
    eventually(lambda: '"resumed"' in client.proc.text("out"), "resumed")
    events = [json.loads(line) for line in client.proc.out()]
    assert any(e["event"] == "resumed" and e["away_ms"] >= 0 for e in events)
    eventually(lambda: '"client_resumed"' in server.proc.text("out"), "the server says so")
    events = {e["event"]: e for e in (json.loads(line) for line in server.proc.out())}
    assert all(re.fullmatch("[a-z_]+", name) for name in events)
    assert events["client_parked"]["kept_ms"] > 0 and events["client_resumed"]["away_ms"] >= 0
