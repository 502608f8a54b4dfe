# SPDX-License-Identifier: Apache-2.0
"""How soon bytes flow again after the network was away: streams over a path that is cut."""

import re
import select
import struct
import time

from harness.cases import spread
from harness.path import FarTunnel
from harness.proc import BenchError

DELAY_MS, RATE_MBIT = 10, 50
QUIET_S = 0.2
LIMIT_S = 60
# seconds that the network is away: from a hiccup to longer than a link's life
CUTS = (1, 2, 4, 7, 12)
QUICK_CUTS = (2, 7)


class Stream:
    """A download that never ends."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.sendall(b"d" + struct.pack(">Q", 1 << 50))
        self.sock.setblocking(False)
        self.first = None  # the time of the first bytes since mark()

    def mark(self):
        self.first = None

    def take(self):
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError as error:
            raise BenchError(f"a stream did not live through a cut: {error}") from error
        if not data:
            raise BenchError("a stream did not live through a cut: it has ended")
        if self.first is None:
            self.first = time.monotonic()


class Streams:
    """All of them, read as fast as they come."""

    def __init__(self, far):
        self.all = [Stream(far.dial(port)) for port in far.ports]
        self.by_socket = {stream.sock: stream for stream in self.all}

    def close(self):
        for stream in self.all:
            stream.sock.close()

    def read(self, seconds):
        """Reads what comes within so many seconds at most; whether anything came."""
        ready = select.select(list(self.by_socket), [], [], max(seconds, 0))[0]
        for sock in ready:
            self.by_socket[sock].take()
        return bool(ready)

    def read_for(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def await_all(self, since):
        """Seconds since then until each got its first bytes."""
        while any(stream.first is None for stream in self.all):
            if time.monotonic() > since + LIMIT_S:
                raise BenchError(f"no byte within {LIMIT_S} s after the network was back")
            self.read(0.05)
        return [stream.first - since for stream in self.all]

    def mark(self):
        for stream in self.all:
            stream.mark()


class Notices:
    """When the clients say that a link was lost: their output, looked at in between."""

    def __init__(self, clients):
        self.logs = {client: len(client.output()) for client in clients}

    def look(self, since, found):
        for client, seen in self.logs.items():
            if client not in found and re.search("nothing heard", client.output()[seen:]):
                found[client] = time.monotonic() - since


def _blackhole(far, streams, seconds, noticed):
    """Cuts the path for so long. Seconds of each stream from the healing to its first byte."""
    notices = Notices(far.clients)
    found = {}
    far.wan.tell("cut")
    start = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0:
        streams.read(min(left, 0.02))
        notices.look(start, found)
    noticed += found.values()
    streams.read_for(0.02)
    streams.mark()
    healed = time.monotonic()
    far.wan.tell("heal")
    return streams.await_all(healed)


def _reset(far, streams):
    """Resets every connection; seconds of each stream until bytes that came after it."""
    far.wan.tell("reset 100")
    streams.read_for(0.1 + DELAY_MS / 500)
    streams.mark()
    return streams.await_all(time.monotonic())


def _summary(samples):
    ordered = sorted(samples)
    rank = lambda share: ordered[min(len(ordered) - 1, int(len(ordered) * share))]  # noqa: E731
    return {"count": len(ordered), "p50": rank(0.5), "p99": rank(0.99), "max": ordered[-1]}


def measure_recovery(directory, tools, settings, say):
    cuts = QUICK_CUTS if settings["quick"] else CUTS
    commands = [f"delay {DELAY_MS}", f"rate {RATE_MBIT}", "buffer 256"]
    blackholes, resets, noticed, by_cut = [], [], [], {}
    with FarTunnel(directory, tools, *commands, count=settings["cut_clients"]) as far:
        streams = Streams(far)
        try:
            streams.read_for(3)
            for _ in range(settings["cuts"]):
                resets += _reset(far, streams)
                streams.read_for(2)
            say(f"recovery: reset {_summary(resets)}")
            for seconds in cuts:
                by_cut[seconds] = _blackhole(far, streams, seconds, noticed)
                blackholes += by_cut[seconds]
                say(f"recovery: {seconds} s away: {_summary(by_cut[seconds])}")
                streams.read_for(3)
        finally:
            streams.close()
        far.server.check_alive()
    return {
        "reset": _summary(resets),
        "blackhole": _summary(blackholes),
        "by_seconds_away": {seconds: _summary(samples) for seconds, samples in by_cut.items()},
        "noticed_s": spread(noticed) if noticed else None,
        "samples": {"reset": resets, "blackhole": by_cut, "noticed": noticed},
    }
