# SPDX-License-Identifier: Apache-2.0
"""Two raw ends of one upgraded connection, driven by one thread, so that every byte and every end
is the test's own. A conversation is held directly or through a tunnel; what each end saw is its
transcript."""

import random
import select
import socket
import struct
import time

from . import HANG
from .net import Conn, dial

CHUNK = 1 << 18


def mask_bytes(payload, key):
    """The payload masked with the four bytes of key (RFC 6455 section 5.3)."""
    size = len(payload)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


def frame(opcode, payload=b"", *, fin=True, rsv=0, key=None, form=None, claim=None):
    """One frame. key: masked with it; form: 7, 16 or 64, the length's (else the shortest);
    claim: another length than the payload has."""
    size = len(payload) if claim is None else claim
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if key is not None else 0
    short = size if form == 7 else 126 if form == 16 else 127
    head = bytes([first, bit | short])
    if form != 7:
        head += struct.pack("!H" if form == 16 else "!Q", size)
    if key is None:
        return head + payload
    return head + key + mask_bytes(payload, key)


class End:
    """One end: what it said, what it heard, how it ended."""

    def __init__(self, name, conn):
        self.name = name
        self.conn = conn
        self.sock = conn.sock
        self.sock.setblocking(False)
        self.key = random.Random(name).randbytes
        self.out = bytearray()
        self.words = bytearray()  # all it was to say
        self.said = 0        # how much of it the socket took
        self.heard = bytearray(conn.buffer)
        self.end = None      # of the other's direction: "fin", "reset"
        self.own_end = None  # "fin" once shut down, "reset", "closed"
        self.deaf = False    # reads nothing

    def say(self, data):
        self.out += data
        self.words += data

    def frame(self, opcode, payload=b"", **how):
        """Says one frame, masked if this is the visitor and nothing else was asked for."""
        if "key" not in how and self.name == "visitor":
            how["key"] = self.key(4)
        self.say(frame(opcode, payload, **how))

    def fin(self):
        assert not self.out
        self.sock.shutdown(socket.SHUT_WR)
        self.own_end = "fin"

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()
        self.own_end = "reset"

    def close(self):
        self.sock.close()
        self.own_end = self.own_end or "closed"

    def events(self):
        if self.sock.fileno() < 0:
            return 0
        reads = not self.end and not self.deaf
        return (select.POLLIN if reads else 0) | (select.POLLOUT if self.out else 0)

    def move(self, ready):
        """Reads and writes what goes."""
        if ready & ~select.POLLOUT and not self.end and not self.deaf:
            try:
                data = self.sock.recv(CHUNK)
                self.heard += data
                if not data:
                    self.end = "fin"
            except BlockingIOError:
                pass
            except ConnectionError:
                self.end = "reset"
        if self.out and self.end != "reset":
            try:
                done = self.sock.send(memoryview(self.out)[:CHUNK])
                del self.out[:done]
                self.said += done
            except BlockingIOError:
                pass
            except ConnectionError:
                # What came before the reset is still there to be read.
                self.out.clear()


class Duet:
    """A visitor and an upstream with a connection between them."""

    def __init__(self, visitor, upstream):
        self.visitor = End("visitor", visitor)
        self.upstream = End("upstream", upstream)
        self.ends = [self.visitor, self.upstream]

    def turn(self, wait=0.05):
        poll = select.poll()
        live = {}
        for end in self.ends:
            mask = end.events()
            if mask:
                poll.register(end.sock, mask)
                live[end.sock.fileno()] = end
        if not live:
            time.sleep(wait)
            return False
        ready = poll.poll(wait * 1000)
        for fd, mask in ready:
            live[fd].move(mask)
        return bool(ready)

    def until(self, condition, what="condition"):
        deadline = time.monotonic() + HANG
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what}: {self!r}"
            self.turn()

    def settle(self):
        """Until everything said was heard, both ways."""
        def level():
            return all(not a.out and len(b.heard) >= len(a.words)
                       for a, b in (self.ends, self.ends[::-1]))
        self.until(level, "all arrived")

    def ended(self, end, how):
        """Until that end sees the other's direction end, and so."""
        self.until(lambda: end.end, f"the end at the {end.name}")
        assert end.end == how, f"{end.name}: {end.end}, not {how}"

    def transcript(self):
        for end, other in (self.ends, self.ends[::-1]):
            assert end.heard == other.words[:len(end.heard)], f"the {end.name} heard other bytes"
        return [(end.name, bytes(end.heard), end.end) for end in self.ends]

    def close(self):
        for end in self.ends:
            end.close()

    def __repr__(self):
        return "; ".join(f"{e.name} said {e.said} of {len(e.words)}, heard {len(e.heard)}, "
                         f"sees {e.end}" for e in self.ends)


class Stage:
    """Where duets are held: an upstream's listener, and ways for a visitor to reach it."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.settimeout(HANG)
        self.port = self.listener.getsockname()[1]
        self.where = str(self.port)
        self.edge = None
        self.watched = []  # the programs in between
        self.label = None

    def through(self, edge, label):
        self.edge, self.label = edge, label

    def dial(self, way, **kw):
        return dial("127.0.0.1", self.port, **kw) if way == "direct" else self.edge.dial(**kw)

    def host(self, way):
        return f"127.0.0.1:{self.port}" if way == "direct" else self.edge.name(self.label)

    def accept(self):
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(HANG)
        return Conn(sock)

    def close(self):
        self.listener.close()


ASK = ("GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n"
       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
SWITCH = ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n"
          "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


def begin(stage, way, *, token="websocket", early=b"", prompt=b"", **kw):
    """A duet whose 101 came. early: what the visitor says in the segment of its head, prompt: what
    the upstream says in that of its own."""
    visitor = stage.dial(way, **kw)
    visitor.send(ASK.format(host=stage.host(way), token=token).encode() + early)
    upstream = stage.accept()
    head = upstream.read_head()
    assert head.get("Upgrade") == token and head.get("Connection").lower() == "upgrade"
    upstream.send(SWITCH.format(token=token).encode() + prompt)
    answer = visitor.read_head()
    assert answer.status == 101 and answer.get("Upgrade") == token
    duet = Duet(visitor, upstream)
    duet.visitor.words += early
    duet.upstream.words += prompt
    return duet


def compare(stage, play, **kw):
    """Holds the conversation play(duet) directly and through the tunnel: the same for both ends.
    Returns the transcript."""
    seen = {}
    for way in ("direct", "tunnel"):
        duet = begin(stage, way, **kw)
        try:
            play(duet)
            seen[way] = duet.transcript()
        finally:
            duet.close()
    for (name, direct, end), (_, tunnel, other) in zip(seen["direct"], seen["tunnel"]):
        assert direct == tunnel, f"the {name} heard other bytes ({len(direct)}, {len(tunnel)})"
        assert end == other, f"the {name} saw {end} and {other}"
    return seen["tunnel"]
