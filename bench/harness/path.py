# SPDX-License-Identifier: Apache-2.0
"""A tunnel over a network of its own (c/wan.c): the origin and the client at one end of it, the
server and the visitors at the other."""

import ctypes
import os
import socket

from harness.proc import BenchError, Process, free_ports
from harness.subjects import READY_TIMEOUT, TOKEN
from harness.wan import Wan

CLONE_NEWNET = 0x40000000
NEAR, FAR = 0, 1  # the client's end, the server's


def socket_in(path):
    """A TCP socket of a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise BenchError(f"entering {path}: {os.strerror(ctypes.get_errno())}")
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            libc.setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
        os.close(there)


class FarTunnel:
    """The wan, the origin c/peer.c, a server and clients; a context manager that ends them all.

    Each of `count` clients publishes the origin as a tcp tunnel: ports[i] of 127.0.0.1 at the
    server's end. `direct` is the origin itself as seen from there.
    """

    def __init__(self, directory, tools, *commands, count=1, options=()):
        self.directory = directory
        self.tools = tools
        self.wan = Wan(tools["wan"], *commands)
        self.count = count
        self.options = list(options)
        self.processes = []
        self.server = None
        self.clients = []
        self.ports = []
        self.direct = None

    def __enter__(self):
        self.wan.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        while self.processes:
            self.processes.pop().stop()
        self.wan.__exit__()

    def spawn(self, end, name, argv):
        process = Process(name, self.wan.enter(end, argv), self.directory)
        self.processes.append(process)
        return process

    def _start(self):
        near, far = self.wan.address
        origin = self.spawn(NEAR, "origin", [self.tools["peer"], "tcp", f"{near}:0"])
        match = origin.wait_output(r"^listening: (\S+)$", READY_TIMEOUT)
        self.direct = match.group(1)
        # Free here is free there too: nothing else is in that namespace.
        self.ports = free_ports(self.count)
        argv = [self.tools["tunnel-server"], "--listen", "0.0.0.0:8080", "--domain", "localhost"]
        argv += ["--token", TOKEN, "--tcp-ports", ",".join(str(port) for port in self.ports)]
        self.server = self.spawn(FAR, "server", argv)
        self.server.wait_output(r"^listening: http://", READY_TIMEOUT)
        argv = [self.tools["tunnel-client"], "tcp", self.direct, "--token", TOKEN, "--verbose"]
        argv += ["--server", f"ws://{far}:8080", "--insecure", *self.options]
        for i, port in enumerate(self.ports):
            # Each is an installation of its own, or they would take one another's sessions.
            home = os.path.join(self.directory, f"home{i}")
            os.makedirs(home)
            prefix = ["env", f"HOME={home}", f"XDG_STATE_HOME={home}"]
            self.clients.append(
                self.spawn(NEAR, f"client{i}", [*prefix, *argv, "--remote-port", str(port)])
            )
        for client in self.clients:
            client.wait_output(r"public: tcp://", READY_TIMEOUT)

    def visit(self, *words):
        """argv of c/visit.c at the server's end."""
        return self.wan.enter(FAR, [self.tools["visit"], *words])

    def dial(self, port):
        """A visitor's connection to a port of the server's end."""
        sock = socket_in(self.wan.path[FAR])
        sock.settimeout(READY_TIMEOUT)
        try:
            sock.connect(("127.0.0.1", port))
        except OSError as error:
            sock.close()
            raise BenchError(f"no visitor came to port {port}: {error}") from error
        return sock
