# SPDX-License-Identifier: Apache-2.0
"""The least of the protocol (docs/protocol.md) that a peer needs in order to misbehave in it."""

import hashlib
import hmac
import os
import struct

from . import ws
from .net import Truncated

OPEN, DATA, FIN, RESET, ACK = 0x81, 0x82, 0x83, 0x84, 0x85
HELLO, WELCOME, ATTACH, ATTACHED, CLOSE = 0x90, 0x91, 0x92, 0x93, 0x94
PING, PONG, EVENT = 0x15, 0x16, 0x17
PUBLISH, PUBLISHED, PUBLISH_FAILED = 0x81, 0x82, 0x83
TIMEOUT, PROTOCOL, VERSION, GONE_AWAY, UNSUPPORTED = 9, 17, 18, 25, 29  # codes in CLOSE

GONE = (OSError, Truncated)  # how a peer notices that it was turned away


def pack(value):
    """msgpack, of what the messages are made of."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        for limit, head in ((1 << 7, b""), (1 << 8, b"\xcc"), (1 << 16, b"\xcd"),
                            (1 << 32, b"\xce"), (1 << 64, b"\xcf")):
            if value < limit:
                size = {b"": 1, b"\xcc": 1, b"\xcd": 2, b"\xce": 4, b"\xcf": 8}[head]
                return head + value.to_bytes(size, "big")
    if isinstance(value, bytes):
        assert len(value) < 1 << 16
        return (b"\xc4" + bytes([len(value)]) if len(value) < 256 else
                b"\xc5" + struct.pack("!H", len(value))) + value
    if isinstance(value, str):
        raw = value.encode()
        head = (bytes([0xA0 | len(raw)]) if len(raw) < 32 else b"\xd9" + bytes([len(raw)])
                if len(raw) < 256 else b"\xda" + struct.pack("!H", len(raw)))
        return head + raw
    if isinstance(value, list):
        return (bytes([0x90 | len(value)]) if len(value) < 16
                else b"\xdc" + struct.pack("!H", len(value))) + b"".join(map(pack, value))
    assert isinstance(value, dict)
    return (bytes([0x80 | len(value)]) if len(value) < 16
            else b"\xde" + struct.pack("!H", len(value))) + b"".join(
                pack(k) + pack(v) for k, v in value.items())


def unpack(data):
    """The value at the start of data, and what follows it."""
    first, rest = data[0], data[1:]
    if first < 0x80:
        return first, rest
    if 0xCC <= first <= 0xCF:
        size = 1 << (first - 0xCC)
        return int.from_bytes(rest[:size], "big"), rest[size:]
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], rest
    if first in (0xC4, 0xC5, 0xD9, 0xDA):
        size = 1 if first in (0xC4, 0xD9) else 2
        end = size + int.from_bytes(rest[:size], "big")
        raw = rest[size:end]
        return (raw if first < 0xC6 else raw.decode()), rest[end:]
    if 0xA0 <= first < 0xC0:
        return rest[:first & 31].decode(), rest[first & 31:]
    if 0x80 <= first < 0x90:
        out = {}
        for _ in range(first & 15):
            key, rest = unpack(rest)
            out[key], rest = unpack(rest)
        return out, rest
    raise AssertionError(f"msgpack {first:#x}")


def frame(kind, stream=0, payload=b"", claim=None):
    """One frame; claim states another length than the payload has."""
    size = len(payload) if claim is None else claim
    return struct.pack("!BBHQ", kind, size >> 16, size & 0xFFFF, stream) + payload


def data(stream, offset, payload, claim=None):
    return frame(DATA, stream, struct.pack("!Q", offset) + payload, claim)


def hello(**changes):
    value = {"version_min": 1, "version_max": 1, "instance": os.urandom(16), "agent": "e2e",
             "limits": {"max_frame": 16384, "max_streams": 100, "window": 65536}}
    value.update(changes)
    return frame(HELLO, 0, pack({k: v for k, v in value.items() if v is not None}))


class Peer:
    """A session by hand, as a client of the server; everything it sends may be nonsense."""

    def __init__(self, server, token=None):
        self._begin(server.dial())
        self.answer = ws.upgrade(
            self.conn, f"127.0.0.1:{server.port}", protocol=ws.LINK_PROTOCOL,
            extra=[("Authorization", f"Bearer {token or server.token}")])

    def _begin(self, conn):
        self.conn = conn
        self._pending = b""
        self._records = b""
        self._control_sent = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.conn.close()

    def send(self, frames):
        self.conn.send(ws.frame(ws.BINARY, frames))

    def read_frame(self):
        """(type, stream, payload), pongs given on the way."""
        while True:
            while len(self._pending) >= 12:
                kind, high, low, stream = struct.unpack("!BBHQ", self._pending[:12])
                size = (high << 16) | low
                if len(self._pending) < 12 + size:
                    break
                payload = self._pending[12:12 + size]
                self._pending = self._pending[12 + size:]
                if kind == PING:
                    self.send(frame(PONG, 0, payload))
                    continue
                return kind, stream, payload
            self._pending += self._more()

    def _more(self):
        opcode, message = ws.read_frame(self.conn)
        return message if opcode in (ws.BINARY, ws.CONTINUATION) else b""

    def greet(self, **changes):
        self.send(hello(**changes))
        kind, _, payload = self.read_frame()
        assert kind == WELCOME, (kind, payload)
        return unpack(payload)[0]

    def closed(self):
        """The code of the CLOSE with which the server ends it."""
        while True:
            kind, _, payload = self.read_frame()
            if kind == CLOSE:
                break
        self.conn.close()
        return int.from_bytes(payload[:4], "big")

    def control(self, kind, value):
        raw = pack(value) if not isinstance(value, bytes) else value
        record = bytes([kind]) + len(raw).to_bytes(3, "big") + raw
        self.send(data(0, self._control_sent, record))
        self._control_sent += len(record)

    def read_control(self):
        """The next control message: (type, map)."""
        while True:
            if len(self._records) >= 4:
                size = int.from_bytes(self._records[1:4], "big")
                if len(self._records) >= 4 + size:
                    kind, raw = self._records[0], self._records[4:4 + size]
                    self._records = self._records[4 + size:]
                    return kind, unpack(raw)[0]
            kind, stream, payload = self.read_frame()
            if kind == DATA and stream == 0:
                self._records += payload[8:]

    def publish(self, name, tunnel=1):
        self.control(PUBLISH, {"tunnel": tunnel, "kind": "http", "name": name})
        kind, value = self.read_control()
        assert kind == PUBLISHED, value
        return value

    def await_open(self):
        """The id of the next stream, once a whole request head came on it."""
        stream, seen = None, b""
        while b"\r\n\r\n" not in seen:
            kind, number, payload = self.read_frame()
            if kind == OPEN:
                stream = number
            elif kind == DATA and number == stream and stream is not None:
                seen += payload[8:]
        return stream, seen


class LanePeer(Peer):
    """The same over a lane: frames as they are, behind an upgrade of HTTP."""

    def __init__(self, server, token=None):  # pylint: disable=super-init-not-called
        self._begin(server.dial())
        self.conn.request("GET", "/__tunnel__/lane", f"127.0.0.1:{server.port}", [
            ("Upgrade", "tunnel-lane.v1"), ("Connection", "Upgrade"),
            ("Authorization", f"Bearer {token or server.token}")])
        self.answer = self.conn.read_head()

    def send(self, frames):
        self.conn.send(frames)

    def _more(self):
        if not self.conn.buffer and not self.conn.more():
            raise Truncated()
        got, self.conn.buffer = self.conn.buffer, b""
        return got


def proof(welcome, role, link, nonce):
    """What ATTACH (role C) and ATTACHED (role S) prove to know the session's secret with."""
    return hmac.new(welcome["secret"], b"tunnel v1 attach" + role + welcome["session"]
                    + struct.pack("!QQ", welcome["generation"], link) + nonce,
                    hashlib.sha256).digest()


def attach(welcome, number, change=None):
    """An ATTACH for that session, and its nonce."""
    nonce = os.urandom(16)
    value = {"session": welcome["session"], "generation": welcome["generation"], "link": number,
             "nonce": nonce, "mac": proof(welcome, b"C", number, nonce)}
    value.update(change or {})
    return frame(ATTACH, 0, pack(value)), nonce
