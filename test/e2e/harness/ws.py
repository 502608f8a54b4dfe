# SPDX-License-Identifier: Apache-2.0
"""A WebSocket client that can misbehave (RFC 6455), on a Conn."""

import base64
import os
import struct

LINK_PATH = "/__tunnel__/link"
LINK_PROTOCOL = "tunnel.v1"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def upgrade_head(host, path=LINK_PATH, protocol=None, extra=()):
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
             f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    if protocol:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    lines += [f"{n}: {v}" for n, v in extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def upgrade(conn, host, path=LINK_PATH, protocol=None, extra=()):
    """Asks for the link; returns the response's head (101 when it was accepted)."""
    conn.send(upgrade_head(host, path, protocol, extra))
    return conn.read_head()


def frame(opcode, payload=b"", *, fin=True, masked=True, claim=None, rsv=0):
    """One frame; claim states another length than the payload has."""
    size = len(payload) if claim is None else claim
    head = bytes([(0x80 if fin else 0) | (rsv << 4) | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(b ^ mask[i & 3] for i, b in enumerate(payload))


def read_frame(conn):
    """(opcode, payload) of the next frame from the server."""
    first, second = conn.read_exactly(2)
    size = second & 0x7F
    if size == 126:
        size, = struct.unpack("!H", conn.read_exactly(2))
    elif size == 127:
        size, = struct.unpack("!Q", conn.read_exactly(8))
    assert not second & 0x80, "a server masked its frame"
    return first & 0x0F, conn.read_exactly(size)
