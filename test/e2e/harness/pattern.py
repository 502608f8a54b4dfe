# SPDX-License-Identifier: Apache-2.0
"""Streams of bytes that say whose they are and where they belong: each block begins with its stream's
key and its number, and the rest is of that key alone. A byte on a wrong stream or at a wrong place
is told as that."""

import functools
import random
import struct

BLOCK = 16384
KEY = 8
END = b"THE-END!"


@functools.lru_cache(maxsize=256)
def _filling(key):
    return random.Random(key).randbytes(BLOCK - KEY - 8)


def block(key, number):
    return key + struct.pack("!Q", number) + _filling(key)


def other_way(key):
    """The key of a stream's other direction."""
    return bytes(byte ^ 0x5A for byte in key)


class Checker:
    """Takes a stream in pieces; what is not its own raises ValueError."""

    def __init__(self, key):
        self.key = key
        self.count = 0
        self._rest = b""

    def feed(self, data):
        self.count += len(data)
        self._rest += data
        while len(self._rest) >= BLOCK:
            self._compare(self._rest[:BLOCK])
            self._rest = self._rest[BLOCK:]

    def finish(self):
        """The end: what is left of a block is the beginning of the right one."""
        self._compare(self._rest)
        self._rest = b""

    def _compare(self, got):
        number = (self.count - len(self._rest)) // BLOCK
        want = block(self.key, number)[:len(got)]
        if got == want:
            return
        at = next(i for i, (a, b) in enumerate(zip(got, want)) if a != b)
        raise ValueError(f"stream {self.key!r}, block {number}: other bytes from {at} on: "
                         f"{got[at:at + 32]!r}, in a block that begins {got[:16]!r}")
