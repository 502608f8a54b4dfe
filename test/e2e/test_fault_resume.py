# SPDX-License-Identifier: Apache-2.0
"""Who comes back, by hand: bad proofs, and peers that lie after a good one. The session that was aimed
at does not notice, and each refusal is counted."""

import contextlib
import os
import struct

import pytest

from harness import eventually, wire
from harness.wire import ATTACHED, LanePeer, Peer, attach, proof
from test_counters import counts

OK, TIMEOUT, PROTOCOL, AUTH_FAILED, DENIED, REPLACED, GONE = 0, 9, 17, 19, 20, 23, 25


def u64(*numbers):
    return b"".join(struct.pack("!Q", number) for number in numbers)


@pytest.fixture(name="server")
def _server(start):
    return start.server("--token", "other", "--verbose", "--link-timeout", "60",
                        "--drain-timeout", "0")


class Session:
    """A session by hand with a name, and a visitor in the middle of an answer."""

    def __init__(self, server, name="raw", instance=None, token=None):
        self.server, self.name = server, name
        self.peer = Peer(server, token)
        self.welcome = self.peer.greet(instance=instance or os.urandom(16))
        self.peer.publish(name)
        self.links = 0
        self.visitor = server.dial()
        self.visitor.request("GET", "/", server.name(name))
        self.stream, head = self.peer.await_open()
        self.asked = len(head)
        self.said = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"
        self.peer.send(wire.data(self.stream, 0, self.said + b"01234"))
        assert self.visitor.read_head().status == 200
        assert self.visitor.read_exactly(5) == b"01234"

    def lose(self):
        """Its link is gone and the server knows."""
        before = self.server.proc.text("err").count("lost its connection")
        self.peer.conn.abort()
        eventually(lambda: self.server.proc.text("err").count("lost its connection") > before,
                   "the server noticed")

    def attach(self, kind=Peer):
        self.links += 1
        again = kind(self.server)
        message, nonce = attach(self.welcome, self.links)
        again.send(message)
        code, _, payload = again.read_frame()
        assert code == ATTACHED, (code, payload)
        assert wire.unpack(payload)[0]["mac"] == proof(self.welcome, b"S", self.links, nonce)
        return again

    def resume(self):
        self.peer = self.attach()

    def unharmed(self):
        """The rest of the answer arrives, and another visitor is served."""
        self.peer.send(wire.data(self.stream, len(self.said) + 5, b"56789"))
        assert self.visitor.read_exactly(5) == b"56789"
        with self.server.dial() as another:
            another.request("GET", "/", self.server.name(self.name))
            assert b"GET / " in self.peer.await_open()[1]

    def close(self):
        self.visitor.close()
        self.peer.conn.close()


@pytest.fixture(name="session")
def _session(server):
    session = Session(server)
    yield session
    session.close()


def refused(server, session, code, change=None, *, number=1, kind=Peer, token=None):
    with kind(server, token) as liar:
        liar.send(attach(session.welcome, number, change)[0])
        assert liar.closed() == code


@pytest.mark.parametrize("parked", [False, True], ids=["live", "parked"])
@pytest.mark.parametrize("kind", [Peer, LanePeer])
def test_bad_proofs(server, session, kind, parked):
    """Of a session that is there and of one that is away, over links of both kinds."""
    other = Session(server, "victim")
    if parked:
        session.lose()
    welcome = session.welcome
    tries = [
        (GONE, {"session": os.urandom(16)}, None),
        (GONE, {"generation": welcome["generation"] + 1}, None),
        (GONE, {"generation": welcome["generation"] - 1}, None),
        (GONE, {}, "other"),
        (AUTH_FAILED, {"mac": bytes(32)}, None),
        (AUTH_FAILED, {"mac": proof(welcome, b"S", 1, b"n" * 16), "nonce": b"n" * 16}, None),
        (AUTH_FAILED, {"mac": proof(welcome, b"C", 2, b"n" * 16), "nonce": b"n" * 16}, None),
        # Another session of the same account, with the proof of one's own.
        (GONE, {"session": other.welcome["session"]}, None),
        (AUTH_FAILED, {"session": other.welcome["session"],
                       "generation": other.welcome["generation"]}, None),
    ]
    for code, change, token in tries:
        refused(server, session, code, change, kind=kind, token=token)
    if parked:
        session.resume()
    session.unharmed()
    other.unharmed()
    other.close()
    got = counts(server)
    assert got["refused attaches"] == len(tries)
    assert got["sessions"] == 2


def test_replays(server, session):
    """What opened a link once opens none again: not the same, not an old number, not elsewhere."""
    session.lose()
    first, _ = attach(session.welcome, 1)
    session.links = 1
    session.peer = Peer(server)
    session.peer.send(first)
    assert session.peer.read_frame()[0] == ATTACHED
    for kind in (Peer, LanePeer):
        with kind(server) as replay:
            replay.send(first)
            assert replay.closed() == DENIED
        refused(server, session, DENIED, number=1, kind=kind)
    session.links = 99
    session.resume()
    refused(server, session, DENIED, number=35)
    session.unharmed()
    assert counts(server)["refused attaches"] == 5


def test_an_answer_of_the_server_opens_nothing(server, session):
    """Its proof is of the other role: sent back to it, it proves nothing."""
    session.lose()
    again = Peer(server)
    message, nonce = attach(session.welcome, 1)
    again.send(message)
    mac = wire.unpack(again.read_frame()[2])[0]["mac"]
    refused(server, session, AUTH_FAILED, {"nonce": nonce, "mac": mac, "link": 2})
    session.links, session.peer = 1, again
    session.unharmed()


def test_a_session_that_was_replaced_is_over(server):
    """The same instance began anew: the old session's proof is worth nothing, also while parked."""
    instance = os.urandom(16)
    old = Session(server, instance=instance)
    old.lose()
    new = Session(server, instance=instance)
    assert new.welcome["generation"] > old.welcome["generation"]
    refused(server, old, GONE)
    refused(server, old, GONE, {"generation": new.welcome["generation"]})
    new.unharmed()
    assert not old.visitor.read_all()
    old.close()
    new.close()
    assert counts(server)["refused attaches"] == 2


def test_another_servers_session(start, session):
    """As after a restart: it knows nothing of it, whatever the proof."""
    another = start.server("--verbose", "--drain-timeout", "0", token=session.server.token)
    refused(another, session, GONE)
    session.unharmed()
    assert counts(another)["refused attaches"] == 1


def test_a_return_takes_the_place_of_a_link_that_seems_alive(session):
    """Half open: the server hears nothing and knows nothing of it. The old connection is reset, the
    streams go on over the new one."""
    old = session.peer
    session.resume()
    again = b""
    while len(again) < session.asked:  # the request was not acknowledged, so it comes again
        kind, stream, payload = session.peer.read_frame()
        if kind == wire.DATA and stream == session.stream:
            assert payload[:8] == u64(len(again))
            again += payload[8:]
    assert again.startswith(b"GET / ")
    # Not closed politely: that takes time, in which nothing would move.
    with pytest.raises(ConnectionResetError):
        while True:
            old.read_frame()
    old.conn.close()
    session.unharmed()


@pytest.mark.parametrize("change", [
    b"HELLO", b"no proof", b"a map that is none", b"a longer mac", b"a stream frame first"])
def test_bad_lanes(server, session, change):
    """A lane joins a session, or it is nothing."""
    value = wire.unpack(attach(session.welcome, 1)[0][12:])[0]
    frames = {
        b"HELLO": wire.hello(),
        b"no proof": wire.frame(wire.ATTACH, 0, wire.pack({k: v for k, v in value.items()
                                                         if k != "mac"})),
        b"a map that is none": wire.frame(wire.ATTACH, 0, b"\x93\x01\x02\x03"),
        b"a longer mac": wire.frame(wire.ATTACH, 0, wire.pack({**value, "mac": bytes(33)})),
        b"a stream frame first": wire.data(session.stream, 0, b"x"),
    }[change]
    with LanePeer(server) as lane:
        lane.send(frames)
        assert lane.closed() == PROTOCOL
    session.unharmed()


def test_too_many_lanes(server, session):
    lanes = [session.attach(LanePeer) for _ in range(8)]
    with LanePeer(server) as one_more:
        one_more.send(attach(session.welcome, 9)[0])
        assert one_more.closed() == 4  # LIMIT
    session.unharmed()
    for lane in lanes:
        lane.conn.close()
    session.peer.conn.close()


# -- who came back and lies -----------------------------------------------------------------------

LIES = {
    "beyond the window": lambda s: wire.data(s.stream, 1 << 30, b"x"),
    "at the end of numbers": lambda s: wire.data(s.stream, (1 << 62) - 1, b"xx"),
    "beyond the end of numbers": lambda s: wire.data(s.stream, (1 << 64) - 1, b"x"),
    "acknowledging what was never sent": lambda s: wire.frame(
        wire.ACK, s.stream, u64(s.asked + 1, 1 << 20)),
    "acknowledging an end that was not sent": lambda s: wire.frame(
        wire.ACK, s.stream, u64(s.asked + 2, 1 << 20)),
    "acknowledging all there can be": lambda s: wire.frame(
        wire.ACK, s.stream, u64((1 << 62) + 2, 1 << 62)),
    "acknowledging control that was not sent": lambda s: wire.frame(wire.ACK, 0, u64(1 << 20, 1 << 21)),
    "control beyond the window": lambda s: wire.data(0, 1 << 20, b"x"),
    "an end before what was said": lambda s: wire.frame(wire.FIN, s.stream, u64(3)),
    "an end beyond the window": lambda s: wire.frame(wire.FIN, s.stream, u64(1 << 30)),
    "two ends": lambda s: wire.frame(wire.FIN, s.stream, u64(60)) + wire.frame(
        wire.FIN, s.stream, u64(61)),
    "a stream that never was": lambda s: wire.data(s.stream + 2, 0, b"x"),
    "another hello": lambda s: wire.hello(),
    "another attach": lambda s: attach(s.welcome, 77)[0],
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_after_a_return(server, session, lie):
    """The violation ends the session of who did it, with a code, and nobody else's."""
    other = Session(server, "bystander")
    session.lose()
    session.resume()
    session.peer.send(LIES[lie](session))
    assert session.peer.closed() == PROTOCOL
    with contextlib.suppress(ConnectionError):
        assert session.visitor.read_all() == b""  # cut short, and nothing that was not sent
    other.unharmed()
    other.close()
    refused(server, session, GONE, number=2)
    got = counts(server)
    assert got["broken links"] >= 1 and got["refused attaches"] == 1


def test_bytes_sent_again_are_taken_once(session):
    """What the server has it does not take again, not even when other bytes stand there now; what
    overlaps is taken from where it is new."""
    session.lose()
    session.resume()
    lie = session.said + b"LIES!"
    session.peer.send(wire.data(session.stream, 0, lie) + wire.data(session.stream, 3, lie[3:]))
    session.peer.send(wire.data(session.stream, len(session.said), b"01234567"))
    session.peer.send(wire.data(session.stream, len(session.said) + 8, b"89"))
    assert session.visitor.read_exactly(5) == b"56789"
    assert session.visitor.is_quiet()


def test_acknowledgements_of_old(session):
    """Those that were overtaken take nothing back."""
    session.lose()
    session.resume()
    session.peer.send(wire.frame(wire.ACK, session.stream, u64(session.asked, 1 << 18)) + wire.frame(
        wire.ACK, session.stream, u64(0, 0)))
    session.unharmed()
