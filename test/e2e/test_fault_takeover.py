# SPDX-License-Identifier: Apache-2.0
"""Who takes over while the server still believes in the old connection: the wire to the first client
is cut without a word, and the second one comes from elsewhere (the server's own host)."""

import contextlib
import secrets
import threading
import time

import pytest

from harness import eventually
from harness.netns import make_net
from harness.traffic import BothWays, Download, Echo, Flow, Quiet, Rig, Traffic, Upload, Upstream, begin

SURVIVORS = (Download, Upload, BothWays, Echo, Quiet, Flow)


@pytest.fixture(name="rig")
def _rig(start):
    """A server that bears a long silence, so that it takes nobody for dead by itself."""
    net = start.keep(make_net())
    rig = Rig(start, "--link-timeout", "60", "--grace", "30", net=net)
    rig.first, rig.far = rig.client, rig.upstream
    return rig


def second(rig, *args, instance=None, wait=True):
    """Another client, at the server's host, with an upstream of its own there."""
    def here():
        return rig.net.server.entered()
    rig.at_client = here
    with here():
        rig.upstream = Upstream(rig.start)
    rig.client = rig.run_client(*args, wait=wait, instance=instance)
    return rig.client


class Knocking(threading.Thread):
    """Connects to a port again and again: it must never be closed."""

    def __init__(self, rig, port):
        super().__init__(daemon=True)
        self.rig, self.port, self.refused, self.count = rig, port, 0, 0
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(0.002):
            self.count += 1
            try:
                self.rig.dial(self.port).close()
            except ConnectionRefusedError:
                self.refused += 1
            except OSError:
                pass

    def __enter__(self):
        self.start()
        eventually(lambda: self.count > 5, "knocking")
        return self

    def __exit__(self, *exc):
        self._over.set()
        self.join()


def test_the_same_instance_comes_from_elsewhere(rig, record_property):
    """It wins at once, with name and ports; the streams of before end, and the old one finds nothing
    to come back to."""
    streams = begin(rig, *SURVIVORS[:-1])
    rig.net.blackhole()
    with Knocking(rig, rig.tcp_port) as knocking:
        second(rig)
        for stream in streams:
            stream.broken()
        rig.await_served()
    # The port stays open from the old session to the new one.
    assert knocking.refused == 0
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        traffic.flows("at the second one")
        assert rig.lost() == 0
        # Killed unheard: what its kernel says of it after the return comes too late for anything.
        rig.first.proc.kill()
        rig.net.heal()
        traffic.flows("and the first one's wire is whole again")
    assert rig.client.proc.alive()


def test_another_instance_and_a_holder_that_is_cut_off(rig, record_property):
    """The holder misses the probe and is displaced; back again, it is told, and does not fight."""
    rig.net.blackhole()
    second(rig, instance=secrets.token_hex(16))
    rig.await_served()
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        rig.net.heal()
        assert rig.first.proc.wait() == 1
        assert "replaced" in rig.first.proc.text("err").lower()
        traffic.flows("at the second one")
    assert rig.client.proc.alive()


def test_another_instance_and_a_holder_that_lives(rig, record_property):
    """It is refused, clearly, whatever the traffic; with --force it is not, and the first one leaves."""
    first, far, at_first = rig.client, rig.upstream, rig.at_client
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        late = second(rig, instance=secrets.token_hex(16), wait=False)
        assert late.proc.wait() == 1
        assert "--force" in late.proc.text("err")
        rig.client, rig.upstream, rig.at_client = first, far, at_first
        traffic.flows("at the first one")
    streams = begin(rig, *SURVIVORS[:-1])
    with Knocking(rig, rig.tcp_port) as knocking:
        second(rig, "--force", instance=secrets.token_hex(16))
        assert first.proc.wait() == 1
        rig.await_served()
    assert knocking.refused == 0
    for stream in streams:
        with contextlib.suppress(AssertionError):
            stream.break_off()
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        traffic.flows("at the second one")


def test_a_holder_that_returns_after_its_session(start, record_property):
    """Gone for longer than the grace, its name is another's by then: it hears so and ends, and the
    other one is not disturbed."""
    net = start.keep(make_net())
    rig = Rig(start, "--link-timeout", "1", "--grace", "1", net=net, client_args=["--link-timeout", "1"])
    first = rig.client
    net.blackhole()
    eventually(lambda: rig.lost() == 1, "the server noticed")
    second(rig, instance=secrets.token_hex(16))
    rig.await_served()
    time.sleep(1)
    with Traffic(rig, record_property, kinds=SURVIVORS) as traffic:
        net.heal()
        assert first.proc.wait() == 1
        assert "taken" in first.proc.text("err").lower() or "replaced" in first.proc.text("err").lower()
        traffic.flows("at the second one")
