# SPDX-License-Identifier: Apache-2.0
"""What happens at either end while the middle is broken: upstreams that finish, die or are not there,
visitors that vanish or do not read. And a path that stalls, and gives back late what it held."""

import concurrent.futures
import threading
import time

import pytest

from harness import HANG, eventually
from harness.net import Truncated
from harness.proxy import Relay, Stalling
from harness.stack import app_bytes
from harness.traffic import Flow, Rig, Traffic

BODY = app_bytes(300_000)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def test_stalls(start, record_property):
    """The path stops reading for a while, both ways or one way: shorter and longer than the silence."""
    rig = Rig(start, "--link-timeout", "2", between=Stalling, client_args=["--link-timeout", "2"])
    before = rig.resources()
    with Traffic(rig, record_property) as traffic:
        for ways, seconds in ((["up", "down"], 0.8), (["up", "down"], 3), (["up"], 3), (["down"], 3)):
            for way in ways:
                getattr(rig.relay, way).clear()
            time.sleep(seconds)
            rig.relay.flow()
            traffic.flows(f"{' and '.join(ways)} stalled for {seconds} s")
        eventually(lambda: rig.returns() >= 3, "the return")
        assert all(flow.went_on() for flow in traffic.of(Flow))
    rig.back_to(before)


class Gap:
    """A tunnel to a scripted upstream, whose link can be taken away."""

    def __init__(self, start, *server_args):
        self.server = start.server("--verbose", *server_args)
        self.relay = start.keep(Relay(self.server.port))
        self.start, self.client = start, None
        self.lost = 0

    def publish(self, upstream):
        self.client = self.start.client(self.server, upstream, "--quiet",
                                        link=f"ws://127.0.0.1:{self.relay.port}")

    def __enter__(self):
        self.relay.frozen = True
        self.relay.drop_all()
        self.lost += 1
        eventually(lambda: self.server.proc.text("err").count("lost its connection") >= self.lost,
                   "the server lost it")
        return self

    def __exit__(self, *exc):
        self.relay.frozen = False

    def ask(self, target="/"):
        conn = self.start.keep(self.server.dial())
        conn.request("GET", target, self.server.name("demo"))
        return conn


@pytest.fixture(name="gap")
def _gap(start):
    return Gap(start)


class Halfway:
    """Says half of an answer, and the rest as it is told."""

    def __init__(self, end):
        self.end = end
        self.half, self.go, self.done = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, conn):
        conn.read_request()
        conn.send(HEAD + BODY[:100_000])
        self.half.set()
        assert self.go.wait(HANG)
        self.end(conn)
        self.done.set()


def test_an_upstream_that_finishes_in_the_gap(gap, script):
    """Answered and gone before the link is back: the visitor gets all of it."""
    part = Halfway(lambda conn: (conn.send(BODY[100_000:]), conn.close()))
    gap.publish(script(part))
    visitor = gap.ask()
    assert part.half.wait(HANG)
    with gap:
        part.go.set()
        assert part.done.wait(HANG)
    assert visitor.read_response().body == BODY


@pytest.mark.parametrize("how", ["reset", "end"])
def test_an_upstream_that_dies_in_the_gap(gap, script, how):
    """What was cut short is seen as cut short: what came before it arrives, nothing after it."""
    part = Halfway(lambda conn: conn.abort() if how == "reset" else conn.close())
    gap.publish(script(part))
    visitor = gap.ask()
    assert part.half.wait(HANG)
    with gap:
        part.go.set()
        assert part.done.wait(HANG)
    got = b""
    with pytest.raises((Truncated, ConnectionError)) as cut:
        assert visitor.read_head().status == 200
        visitor.read_exactly(len(BODY))
    if isinstance(cut.value, Truncated):
        got = cut.value.partial
    assert BODY.startswith(got) and len(got) <= 100_000


def test_an_upstream_that_is_not_there(gap, start, app, script):
    """Refused before, in and after a gap: 502 with the reason; and served once it listens."""
    listener = script(lambda conn: None)
    gap.publish(listener)
    listener.close()
    for _ in range(2):
        got = gap.ask().read_response()
        assert got.status == 502 and b"refused" in got.body
        with gap, concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(gap.ask().read_response)
            time.sleep(0.2)
            gap.relay.frozen = False
            got = waiting.result()
        assert got.status == 502 and b"refused" in got.body
    start.client(gap.server, app, "--quiet", "--force")
    assert gap.server.status("/hello") == 200


def test_an_upstream_that_hangs_over_a_gap(start, script):
    gap = Gap(start, "--answer-timeout", "2")
    asked, over = threading.Event(), threading.Event()

    def hang(conn):
        conn.read_request()
        asked.set()
        conn.at_end()
        over.set()
    gap.publish(script(hang))
    visitor = gap.ask()
    assert asked.wait(HANG)
    with gap:
        time.sleep(0.5)
    assert visitor.read_response().status == 504
    assert over.wait(HANG), "the upstream is told that nobody waits any more"


@pytest.mark.parametrize("how", ["reset", "end"])
def test_visitors_that_vanish_in_the_gap(gap, script, how):
    """Downloads whose visitors go while there is no link: the upstream hears of it after the return."""
    ended = threading.Semaphore(0)

    def pour(conn):
        conn.read_request()
        try:
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                conn.send(b"400\r\n" + bytes(0x400) + b"\r\n")
                time.sleep(0.01)
        finally:
            ended.release()
    gap.publish(script(pour))
    gap.server.status("/__tunnel__/health/live")
    before = gap.server.proc.descriptors(), gap.client.proc.descriptors()
    visitors = [gap.ask() for _ in range(6)]
    for visitor in visitors:
        assert visitor.read_head().status == 200
    with gap:
        for visitor in visitors:
            if how == "reset":
                visitor.abort()
            else:
                visitor.close()
    for _ in visitors:
        assert ended.acquire(timeout=HANG)
    eventually(lambda: gap.server.proc.descriptors() <= before[0] + 2
               and gap.client.proc.descriptors() <= before[1] + 2, "descriptors as before")


def test_a_visitor_that_does_not_read(gap, script):
    """Stalled through several gaps, with all windows full; then he reads, and it is whole."""
    data = app_bytes(12 << 20)
    gap.publish(script(lambda conn: (conn.read_request(), conn.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data))))
    visitor = gap.start.keep(gap.server.dial(receive_buffer=8192))
    visitor.request("GET", "/", gap.server.name("demo"))
    assert visitor.read_head().status == 200
    for turn in range(3):
        with gap:
            pass
        eventually(lambda n=turn + 1: gap.client.proc.text("err").count("streams go on") >= n,
                   "the return")
        assert visitor.read_exactly(1 << 20) == data[turn << 20:turn + 1 << 20]
    assert visitor.read_exactly(9 << 20) == data[3 << 20:]
