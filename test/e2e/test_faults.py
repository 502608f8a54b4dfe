# SPDX-License-Identifier: Apache-2.0
"""Faults of the network between client and server, under traffic of all kinds at once.

Server and client are on hosts of their own (harness/netns.py). After each fault every stream must move
on; at the end of each test both ends have checked every byte. How long it took to recover is a
property of the test, never judged here.
"""

import concurrent.futures
import time

import pytest

from harness import eventually
from harness.netns import make_net
from harness.pattern import BLOCK
from harness.traffic import (BothWays, Download, Echo, Flow, Quiet, Rig, Small, Traffic, Upload,
                             begin)

# What lives through a gap that is longer than a visitor who comes in it is made to wait.
SURVIVORS = (Download, Upload, BothWays, Echo, Quiet, Flow)


@pytest.fixture(name="net")
def _net(start):
    return start.keep(make_net())


@pytest.fixture(name="rig")
def _rig(start, net):
    """Server, client and upstream with the defaults of the programs."""
    return Rig(start, net=net)


@pytest.fixture(name="quick")
def _quick(start, net):
    """The same, but both ends take two seconds of silence for a loss."""
    return Rig(start, "--link-timeout", "2", net=net, client_args=["--link-timeout", "2"])


def test_resets(rig, net, record_property):
    """The kernel ends the connections, or a firewall answers for the other end."""
    before = rig.resources()
    with Traffic(rig, record_property) as traffic:
        for turn in range(3):
            net.reset(rig.link_port)
            eventually(lambda n=turn + 1: rig.returns() >= n, "the client is back")
            traffic.flows(f"reset {turn}")
        lost = rig.lost()
        net.reject()
        eventually(lambda: rig.lost() > lost, "the server lost it again")
        time.sleep(0.5)
        net.heal()
        traffic.flows("rejected")
        assert all(flow.went_on() for flow in traffic.of(Flow))
    rig.back_to(before)


def test_blackholes(rig, net, record_property):
    """Short ones are a pause and no more; in a long one both ends notice, and come together after."""
    before = rig.resources()
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        net.blackhole()
        time.sleep(1)
        net.heal()
        traffic.flows("a hole of 1 s")
        net.blackhole()
        time.sleep(7)
        eventually(lambda: rig.lost() >= 1, "the server noticed")
        net.heal()
        traffic.flows("a hole of 7 s")
        eventually(lambda: rig.returns() >= 1, "the return")
        assert all(flow.went_on() for flow in traffic.of(Flow))
    rig.back_to(before)


def test_half_open(quick, net, record_property):
    """One direction is lost and the other one works: both ends find out all the same."""
    before = quick.resources()
    with Traffic(quick, record_property) as traffic:
        for turn, deafen in enumerate((net.deafen_server, net.deafen_client)):
            deafen()
            eventually(lambda n=turn + 1: quick.lost() >= n, "the server noticed")
            net.heal()
            traffic.flows(f"half-open {turn}")
            eventually(lambda n=turn + 1: quick.returns() >= n, "the return")
    quick.back_to(before)


def test_loss(rig, net, record_property):
    """Half of all packets are lost, for seconds: slow, broken now and then, never wrong."""
    before = rig.resources()
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        net.lose(50)
        time.sleep(5)
        net.heal()
        traffic.flows("half lost")
        net.lose(5)
        time.sleep(2)
        traffic.flows("while a twentieth is lost")
        net.heal()
        traffic.flows("a twentieth lost")
    rig.back_to(before)


def test_narrow(rig, net, record_property):
    """The line becomes narrower than the traffic: everybody gets a share of it."""
    before = rig.resources()
    with Traffic(rig, record_property) as traffic:
        for host in (net.server, net.client):
            net.narrow(host, "6mbit", "300ms")
        traffic.flows("on a narrow line")
        traffic.flows("on a narrow line, still")
        net.heal()
        traffic.flows("on a wide line again")
        assert rig.lost() == 0
    rig.back_to(before)


def test_a_slow_uplink_behind_a_deep_buffer(rig, net, record_property):
    """1 Mbit/s with two seconds of buffer in front of it: while bulk goes up that way, the link is
    not taken for dead and small requests are answered."""
    before = rig.resources()
    with Traffic(rig, record_property, kinds=(Quiet, Flow, Small)) as traffic:
        net.narrow(net.client, "1mbit", "2s")
        downloads = [Download(rig, 8192).begin() for _ in range(2)]
        eventually(lambda: all(d.moved > 8 * BLOCK for d in downloads), "the line is full")
        at = [download.moved for download in downloads]
        traffic.flows("beside bulk")
        eventually(lambda: all(d.moved > was for d, was in zip(downloads, at)), "bulk goes on, too")
        net.narrow(net.client, "1gbit", "2s", "1mb")  # nothing that waits is lost by that
        for download in downloads:
            download.finish()
        (small,) = traffic.of(Small)
        record_property("longest_small_ms", round(small.waited * 1000))
        assert set(small.statuses) == {200}
        assert rig.lost() == 0 and rig.returns() == 0
    rig.back_to(before)


def test_past_the_grace(start, net, record_property):
    """The gap is longer than the grace: streams end visibly, names and ports come back."""
    rig = Rig(start, "--link-timeout", "1", "--grace", "2", net=net,
              client_args=["--link-timeout", "1"])
    before = rig.resources()
    streams = begin(rig, Download, Upload, BothWays, Echo, Quiet)
    net.blackhole()
    for stream in streams:
        stream.broken()
    eventually(lambda: "left: no connection" in rig.server.proc.text("err"), "the grace is over")
    net.heal()
    rig.await_served()
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        traffic.flows("anew")
    assert rig.returns() == 0 and not rig.upstream.wrongs()
    rig.back_to(before)


def test_visitors_of_a_gap(quick, net):
    """Who comes while there is no link waits; the gap ends and he is served, or he is told."""
    net.blackhole()
    eventually(lambda: quick.lost() == 1, "the server noticed")
    told = quick.get("/small?key=early")
    assert told.status == 503 and b"connection was lost" in told.body
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(quick.get, f"/small?key=waiting{n}") for n in range(8)]
        time.sleep(0.5)
        assert not any(one.done() for one in waiting)
        net.heal()
        got = [one.result() for one in waiting]
    # The client tries in intervals: who waited too long meanwhile was told.
    assert {one.status for one in got} <= {200, 503}
    assert all(one.body == b"waiting%d" % n * 100 for n, one in enumerate(got) if one.status == 200)
    eventually(lambda: quick.get("/small?key=late").status == 200, "all is well again")


def test_a_visitor_that_falls_silent(rig, net, record_property):
    """Nothing of him and nothing to him arrives: nobody else waits for that, and it can pass."""
    before = rig.resources()
    with Traffic(rig, record_property) as traffic:
        silent = Download(rig, 4096).begin()
        eventually(lambda: silent.moved > BLOCK, "his download")
        port = silent.conn.sock.getsockname()[1]
        net.server.run("nft", "-f", "-", text=f"""
table inet visitor {{
  chain incoming {{ type filter hook input priority 0; tcp sport {port} drop; tcp dport {port} drop; }}
}}""")
        for turn in range(3):
            traffic.flows(f"beside a silent visitor {turn}")
        net.server.run("nft", "delete", "table", "inet", "visitor")
        at = silent.moved
        eventually(lambda: silent.moved > at + 16 * BLOCK, "his download goes on")
        silent.finish()
    rig.back_to(before)
