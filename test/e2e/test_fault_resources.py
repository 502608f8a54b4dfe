# SPDX-License-Identifier: Apache-2.0
"""Out of descriptors, out of memory: what is under way goes on, what is new is refused, and it passes.

That every single allocation may fail is tested in the unit tests (*_nomem_test.c) and in the
simulation of the mux; here the kernel refuses them to the running programs.
"""

import collections
import concurrent.futures
import contextlib
import resource
import signal
import time

import pytest

from harness import SANITIZED, eventually
from harness.net import Truncated
from harness.proxy import Relay
from harness.traffic import BothWays, Download, Echo, Flow, Quiet, Rig, Traffic, Upload

SURVIVORS = (Download, Upload, BothWays, Echo, Quiet, Flow)


@contextlib.contextmanager
def limited(proc, what, limit):
    """The process has no more of this than limit, or than it has now and this much more."""
    was = resource.prlimit(proc.pid, what)
    resource.prlimit(proc.pid, what, (limit, was[1]))
    try:
        yield
    finally:
        if proc.alive():
            resource.prlimit(proc.pid, what, was)


def highest(proc):
    """The least limit of descriptors that leaves no room for another one."""
    return proc.descriptors()


def answers(rig, count):
    """What this many visitors are answered, at the same time: statuses, or "cut"."""
    def visit(number):
        try:
            got = rig.get(f"/small?key=visit{number}")
        except (OSError, Truncated) as error:
            assert not isinstance(error, TimeoutError), "left hanging"
            return "cut"
        if got.status == 200:
            assert got.body == b"visit%d" % number * 100
        return got.status
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return collections.Counter(pool.map(visit, range(count)))


def test_a_server_without_descriptors(start, record_property):
    """Nobody new comes in, and nobody is left hanging; a client that lost its link comes back to it
    when there is room again."""
    rig = Rig(start, between=Relay)
    before = rig.resources()
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        with limited(rig.server.proc, resource.RLIMIT_NOFILE, highest(rig.server.proc)):
            got = answers(rig, 20)
            record_property("refused", dict(got))
            assert set(got) <= {"cut", 200, 503} and got["cut"] + got[503] > 0, got
            traffic.flows("without descriptors at the server")
            rig.relay.drop_all()
        rig.await_served()
        traffic.flows("with descriptors again")
        eventually(lambda: rig.returns() >= 1, "the return")
    rig.back_to(before)


def test_a_client_without_descriptors(start, record_property):
    """It cannot reach its upstream: visitors are told; what is connected goes on, over a new link too."""
    rig = Rig(start, between=Relay)
    before = rig.resources()
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        with limited(rig.client.proc, resource.RLIMIT_NOFILE, highest(rig.client.proc)):
            got = answers(rig, 20)
            record_property("refused", dict(got))
            # A connection to the upstream that was kept serves some of them.
            assert set(got) <= {200, 502, 503} and got[502] + got[503] > 0, got
            traffic.flows("without descriptors at the client")
            rig.relay.drop_all()
            traffic.flows("without descriptors, over another link")
        rig.await_served()
        traffic.flows("with descriptors again")
    rig.back_to(before)


def grow_tables(rig):
    """The table that libuv keeps of descriptors is as large as it has to be here: where that cannot
    grow libuv itself ends the process, and it is not ours to say how."""
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            conn = stack.enter_context(rig.dial(rig.tcp_port))
            conn.send(b"greeting")
            assert conn.read_exactly(8) == b"greeting"


@pytest.mark.skipif(SANITIZED, reason="sanitizers need address space without end")
@pytest.mark.parametrize("which", ["server", "client"])
def test_without_memory(start, record_property, which):
    """The kernel gives no more memory: whatever gets through is right, the rest is refused or cut
    short, and afterwards all is well; a process that cannot go on ends with one line, not a crash."""
    rig = Rig(start, between=Relay)
    rig.await_served()
    grow_tables(rig)
    proc = getattr(rig, which).proc
    with open(f"/proc/{proc.pid}/statm", encoding="ascii") as sizes:
        size = int(sizes.read().split()[0]) * resource.getpagesize()
    with limited(proc, resource.RLIMIT_AS, size):
        streams = [kind(rig, rate=8192).begin() for kind in (Download, Upload, BothWays)
                   for _ in range(20)]
        # Nobody takes what they say: all of it has to be kept somewhere.
        rig.upstream.proc.deliver(signal.SIGSTOP)
        time.sleep(1)
        rig.upstream.proc.deliver(signal.SIGCONT)
        got = collections.Counter()
        for _ in range(3):
            got += answers(rig, 30)
        rig.relay.drop_all()
        got += answers(rig, 30)
        record_property("answers", dict(got))
        print(f"without memory: {dict(got)}", flush=True)
        # A session that has no memory for its own frames is over: its name is nobody's until the
        # client is back.
        assert set(got) <= {"cut", 200, 404, 500, 502, 503, 504}, got
    if proc.alive():
        rig.await_served()
    for stream in streams:
        stream.over.set()
        if isinstance(stream, Download) and not stream.failure:
            rig.ask("stop", stream.key)
        stream.join()
        # A wrong byte is a ValueError; an answer that is a refusal is an AssertionError.
        assert stream.failure is None or isinstance(
            stream.failure, (OSError, Truncated, AssertionError)), stream.failure
    print("streams:", collections.Counter(type(s.failure).__name__ for s in streams), flush=True)
    assert not rig.upstream.wrongs()
    if not proc.alive():
        assert proc.wait() == 1 and len(proc.err()) <= 2, proc.transcript()
        record_property("ended", proc.text("err"))
        return
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        traffic.flows("with memory again")
    eventually(lambda: rig.get("/small?key=after").status == 200)
