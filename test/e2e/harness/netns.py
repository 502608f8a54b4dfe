# SPDX-License-Identifier: Apache-2.0
"""Two hosts with a wire between them, and what can be done to the wire.

A host is a network namespace without a name: it goes when the last descriptor and process in it do, so
nothing is left behind whatever becomes of the tests. What is started, dialled or bound inside `with
host.entered():` is on that host.
"""

import contextlib
import ctypes
import os
import subprocess
import threading

import pytest

from . import HANG
from .proc import clean_env
from .services import sbin

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result, what):
    if result:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


class Host:
    """A host of its own, with nothing but a loopback so far."""

    def __init__(self):
        made = []

        def make():  # in a thread, which leaves the others where they are
            try:
                _checked(_libc.unshare(_CLONE_NEWNET), "unshare")
                made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                made.append(error)
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        self._fd = made[0]
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self):
        """What leads other programs to it."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextlib.contextmanager
    def entered(self):
        """This thread, and what it starts, is there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(self._fd, _CLONE_NEWNET), "setns")
            try:
                yield self
            finally:
                _checked(_libc.setns(home, _CLONE_NEWNET), "setns")
        finally:
            os.close(home)

    def run(self, program, *args, text=None, accept=(0,)):
        """One of the tools that set things up; its output."""
        with self.entered():
            done = subprocess.run([sbin(program), *map(str, args)], input=text, text=True,
                                  capture_output=True, env=clean_env(), timeout=HANG, check=False)
        assert done.returncode in accept, f"{program} {args}: {done.stderr.strip()}"
        return done.stdout

    def close(self):
        os.close(self._fd)


class Net:
    """The server's host and the client's. Faults are those of the wire between them: what stays
    within a host, visitors and upstreams, does not notice."""

    SERVER, CLIENT = "10.201.7.1", "10.201.7.2"

    def __init__(self):
        self.server, self.client = Host(), Host()
        self.server.run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire",
                        "netns", self.client.path)
        for host, address in ((self.server, self.SERVER), (self.client, self.CLIENT)):
            host.run("ip", "address", "add", f"{address}/30", "dev", "wire")
            # Packets as on an ordinary network, so that losing one is not losing 64 KiB.
            host.run("ip", "link", "set", "wire", "up", "gso_max_segs", "1", "gso_max_size", "1514")

    def close(self):
        self.server.close()
        self.client.close()

    def _rules(self, incoming="accept", outgoing="accept"):
        """Rules for what comes from the client and what goes to it, seen from the server's host."""
        self.server.run("nft", "-f", "-", text=f"""
table inet fault {{}}
delete table inet fault
table inet fault {{
  chain incoming {{ type filter hook input priority 0; iifname "wire" {incoming}; }}
  chain outgoing {{ type filter hook output priority 0; oifname "wire" {outgoing}; }}
}}""")

    def heal(self):
        self._rules()
        for host in (self.server, self.client):
            host.run("tc", "qdisc", "del", "dev", "wire", "root", accept=(0, 1, 2))

    def blackhole(self):
        self._rules("drop", "drop")

    def deafen_server(self):
        """What the client says is lost, what the server says arrives."""
        self._rules("drop", "accept")

    def deafen_client(self):
        self._rules("accept", "drop")

    def lose(self, percent):
        some = f"numgen random mod 100 < {percent} drop"
        self._rules(some, some)

    def reject(self):
        """Whoever sends anything is answered with a reset."""
        self._rules("meta l4proto tcp reject with tcp reset", "meta l4proto tcp reject with tcp reset")

    def reset(self, port):
        """Ends the connections at this port of the server's, for both ends."""
        self.server.run("ss", "-K", "-t", "state", "established", f"( sport = :{port} )")

    @staticmethod
    def narrow(host, rate, latency="2s", burst="10kb"):
        """What this host sends over the wire goes no faster, and waits so long in front of it."""
        host.run("tc", "qdisc", "replace", "dev", "wire", "root", "tbf", "rate", rate,
                 "burst", burst, "latency", latency)


def make_net():
    """A Net, or a word why there can be none: loud, and a failure where the gate runs."""
    try:
        return Net()
    except PermissionError as error:
        why = f"network namespaces need root with CAP_SYS_ADMIN and CAP_NET_ADMIN: {error}"
        if os.environ.get("CI") or os.getuid() == 0:
            pytest.fail(why)
        pytest.skip(f"FAULTS OF THE NETWORK ARE NOT TESTED HERE: {why}")
