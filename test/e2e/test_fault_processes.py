# SPDX-License-Identifier: Apache-2.0
"""Processes that stop, go on, die and come back, under traffic of all kinds at once."""

import contextlib
import signal
import time

import pytest

from harness import eventually
from harness.stack import need
from harness.traffic import BothWays, Download, Echo, Flow, Quiet, Rig, Traffic, Upload, begin

BREAKABLE = (Download, Upload, BothWays, Echo, Quiet)
SURVIVORS = (*BREAKABLE, Flow)


def stopped(proc, seconds):
    proc.deliver(signal.SIGSTOP)
    time.sleep(seconds)
    proc.deliver(signal.SIGCONT)


@pytest.mark.parametrize("which", ["server", "client", "upstream"])
def test_stopped_for_a_while(start, record_property, which):
    """For less than the silence that the others bear, and for more: a pause, and nothing else."""
    rig = Rig(start, "--link-timeout", "2", client_args=["--link-timeout", "2"])
    before = rig.resources()
    with Traffic(rig, record_property) as traffic:
        proc = getattr(rig, which).proc
        for seconds in (0.8, 3.5):
            stopped(proc, seconds)
            traffic.flows(f"{which} stopped for {seconds} s")
        assert all(flow.went_on() for flow in traffic.of(Flow))
        assert which != "upstream" or rig.lost() == rig.returns() == 0
    rig.back_to(before)


@pytest.mark.parametrize("which", ["server", "client"])
def test_stopped_for_longer_than_the_grace(start, record_property, which):
    """The other one gives the session up: streams end visibly, and all of it begins anew."""
    rig = Rig(start, "--link-timeout", "1", "--grace", "2", client_args=["--link-timeout", "1"])
    before = rig.resources()
    streams = begin(rig, *BREAKABLE)
    stopped(getattr(rig, which).proc, 5)
    for stream in streams:
        stream.broken()
    rig.await_served()
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        traffic.flows("anew")
    rig.back_to(before)


def test_a_killed_client(start, record_property):
    """Another process of the same instance takes its place at once, with its name and ports."""
    rig = Rig(start)
    before = rig.resources()
    for turn in range(2):
        streams = begin(rig, *BREAKABLE)
        rig.client.proc.kill()
        rig.client = rig.run_client()
        rig.await_served()
        for stream in streams:
            stream.broken()
        with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
            traffic.flows(f"another client {turn}")
    rig.back_to(before)


def test_a_killed_server(start, record_property):
    """Another one in its place: the client comes back by itself, with its name and ports."""
    rig = Rig(start)
    before = rig.resources()
    streams = begin(rig, *BREAKABLE)
    rig.server.proc.kill()
    for stream in streams:
        stream.broken()
    rig.server = rig.run_server()
    begun = time.monotonic()
    rig.await_served()
    record_property("served_again_ms", round((time.monotonic() - begun) * 1000))
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        traffic.flows("another server")
    assert rig.client.proc.alive()
    rig.back_to(before)


def test_a_killed_upstream(start, record_property):
    """Visitors of the dead one see that what they have is cut short, new ones get 502; no link is lost."""
    rig = Rig(start)
    before = rig.resources()
    streams = begin(rig, *BREAKABLE)
    rig.upstream.proc.kill()
    for stream in streams:
        stream.broken()
    got = rig.get("/small?key=nobody")
    assert got.status == 502 and b"refused" in got.body
    with contextlib.suppress(ConnectionResetError), rig.dial(rig.tcp_port) as conn:
        assert conn.at_end()
    rig.run_upstream()
    with Traffic(rig, record_property) as traffic:
        traffic.flows("another upstream")
    assert rig.lost() == rig.returns() == 0
    rig.back_to(before)


def test_killed_visitors(start):
    """They are processes of their own that vanish in the middle; what they had open goes with them."""
    rig = Rig(start)
    before = rig.resources()
    url = f"http://127.0.0.1:{rig.http_port}/down?key=killed00&rate=4096"
    with Traffic(rig) as traffic:
        for turn in range(3):
            files = [start.folder / f"{turn}-{n}" for n in range(5)]
            visitors = [start.spawn([need("curl"), "-q", "-sS", "-N", "--noproxy", "*", "-o", path,
                                     "-H", f"Host: {rig.server.name('demo')}", url])
                        for path in files]
            eventually(lambda f=files: all(path.stat().st_size > 0 for path in f), "they read")
            traffic.flows("beside others")
            for visitor in visitors:
                visitor.kill()
        traffic.flows("without them")
    rig.back_to(before)
