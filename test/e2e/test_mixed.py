# SPDX-License-Identifier: Apache-2.0
"""Tunnels of several kinds in one client: one session, one link, one narrow line to the server.

What is asked here is that nobody waits for another who is slow, large or loud.
"""

import concurrent.futures
import hashlib
import os
import socket
import threading
import time

import pytest

from harness import CLIENT_BIN, HANG, MIB, SANITIZED, eventually
from harness.net import Listener, dial, free_range
from harness.services import Dnsmasq, Redis, Sshd
from harness.stack import Client, sha256
from test_udp import Upstream, Visitor


class Narrow(Listener):
    """A relay that lets so many bytes a second through, each way, and keeps few in between."""

    def __init__(self, port, rate):
        self.target = ("127.0.0.1", port)
        self.rate = rate
        super().__init__(self._serve)
        self._like_a_network(self.sock)  # inherited by what is accepted

    @staticmethod
    def _like_a_network(sock):
        """Segments as on Ethernet: loopback's of 64 KiB do not go with small buffers."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    def _pump(self, source, sink):
        due = time.monotonic()
        try:
            while data := source.recv(4096):
                due = max(due, time.monotonic() - 0.05) + len(data) / self.rate
                time.sleep(max(0, due - time.monotonic()))
                sink.sendall(data)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _serve(self, conn):
        with socket.socket() as out:
            self._like_a_network(out)
            out.connect(self.target)
            conn.sock.settimeout(None)
            back = threading.Thread(target=self._pump, args=(out, conn.sock), daemon=True)
            back.start()
            self._pump(conn.sock, out)
            back.join()


class Many:
    """A client with a tunnel for each (kind, upstream's port); .port[i] is where visitors go."""

    def __init__(self, start, server, tunnels, link=None):
        lines = [f"server: {link or server.link}", f"token: {server.token}", "tunnels:"]
        self.port = []
        for i, (kind, upstream) in enumerate(tunnels):
            self.port.append(server.first + i)
            lines.append(f"  t{i}: {{type: {kind}, to: {upstream}, "
                         + (f"remote-port: {server.first + i}}}" if kind != "http"
                            else f"subdomain: t{i}}}"))
        path = start.folder_for("config") / "tunnel.yml"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        self.client = Client(start.program(CLIENT_BIN, ["start", "--config", path, "--quiet"]))
        self.client.proc.wait_line("public: ", kind="out", count=len(tunnels))

    def tcp(self, i, **kw):
        return dial("127.0.0.1", self.port[i], **kw)

    def where(self, i):
        return "127.0.0.1", self.port[i]


@pytest.fixture(name="server")
def _server(start):
    first = free_range(8)
    server = start.server("--tcp-ports", f"{first}-{first + 7}", "--udp-ports",
                          f"{first}-{first + 7}", "--link-timeout", "30")
    server.first = first
    return server


def bulk_source(start, size):
    """An upstream that sends this much, and the digest of it."""
    data = os.urandom(MIB) * (size // MIB)
    return start.keep(Listener(lambda conn: conn.send(data))), hashlib.sha256(data).digest()


class Download:
    """Reads everything a connection has, in a thread."""

    def __init__(self, conn):
        self.conn = conn
        self.moved = 0
        self.digest = hashlib.sha256()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while data := self.conn.sock.recv(1 << 16):
            self.digest.update(data)
            self.moved += len(data)

    def finish(self):
        self.thread.join(3 * HANG)
        assert not self.thread.is_alive(), f"stuck at {self.moved} bytes"
        return self.digest.digest()


def test_real_services_at_once(start, server):
    """ssh, Redis, DNS and the web behind one client, all in use at the same time."""
    sshd, redis = Sshd(start), Redis(start)
    dns = Dnsmasq(start, "--address=/h.test/10.1.2.3")
    app = start.node()
    many = Many(start, server, [("tcp", sshd.port), ("tcp", redis.port), ("udp", dns.port),
                                ("http", app.where)])
    blob = os.urandom(4 * MIB)

    def ssh():
        return sshd.ssh(many.where(0), "cat", input=blob).stdout == blob

    def sets():
        return all(redis.cli(many.where(1), "INCR", "n") == b"%d\n" % i for i in range(1, 30))

    def asks():
        return all(dns.dig(many.where(2), "+short", "+notcp", "h.test").stdout == b"10.1.2.3\n"
                   for _ in range(30))

    def visits():
        return all(server.get("/bytes?n=100000", "t3").status == 200 for _ in range(30))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(done.result() for done in [pool.submit(w) for w in (ssh, sets, asks, visits)])


def test_stalled_visitor_holds_nobody_up(start, server):
    """One does not read what it asked for: the others of the same link are served all the same."""
    source, _ = bulk_source(start, 64 * MIB)
    service = start.keep(Upstream())
    app = start.node()
    many = Many(start, server, [("tcp", source.port), ("udp", service.port), ("http", app.where)])
    stalled = [start.keep(many.tcp(0, receive_buffer=65536)) for _ in range(8)]
    for one in stalled:
        one.read_exactly(1)
    with Visitor(many.where(1)) as visitor:
        for i in range(50):
            visitor.ask(b"%d" % i * 100)
    assert server.get("/bytes?n=3000000", "t2").status == 200
    with many.tcp(0) as reader:
        reader.read_exactly(8 * MIB)


def test_datagrams_go_ahead_of_bulk(start, server):
    """On a line that a download has filled, questions are answered long before it is over."""
    size = (2 if SANITIZED else 8) * MIB
    source, digest = bulk_source(start, size)
    service = start.keep(Upstream())
    narrow = start.keep(Narrow(server.port, MIB))
    many = Many(start, server, [("tcp", source.port), ("udp", service.port)],
                f"ws://127.0.0.1:{narrow.port}")
    with many.tcp(0) as conn:
        bulk = Download(conn)
        eventually(lambda: bulk.moved > 100_000, "the download is on its way")
        with Visitor(many.where(1)) as visitor:
            for i in range(5):
                visitor.ask(b"question %d" % i)
        assert bulk.moved < size
        assert bulk.finish() == digest


@pytest.mark.parametrize("way", ["from the visitor", "from the upstream"])
def test_flood_on_a_narrow_line(start, server, way):
    """Datagrams, many times more than the line takes, in either direction: some arrive, a download
    and an upload on the same link go on and are whole, memory stays where it is, and afterwards
    all is as before."""
    size = MIB
    source, digest = bulk_source(start, size)
    taken = []
    sink = start.keep(Listener(lambda conn: taken.append(sha256(conn.read_all()))))
    flooding = threading.Event()

    def answer(payload, source):
        if way == "from the upstream" and flooding.is_set():
            for _ in range(100):
                service.sock.sendto(payload, source)
        return [payload]
    service = start.keep(Upstream(answer))
    narrow = start.keep(Narrow(server.port, 4 * MIB))
    many = Many(start, server, [("tcp", source.port), ("udp", service.port), ("tcp", sink.port)],
                f"ws://127.0.0.1:{narrow.port}")
    before = {p: p.rss() for p in (server.proc, many.client.proc)}
    flooding.set()
    heard = 0
    with Visitor(many.where(1)) as flooder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        def flood():
            payload = os.urandom(1200)
            while flooding.is_set():
                flooder.send(payload)
                if way == "from the upstream":
                    time.sleep(0.001)  # each is answered a hundred times
        pool.submit(flood)
        try:
            def some_heard():
                nonlocal heard
                heard += flooder.receive(0) is not None
                return heard > 20
            eventually(some_heard, "some of the flood comes back", pause=0)
            upload = os.urandom(size)

            def send():
                with many.tcp(2) as conn:
                    conn.send(upload)
                    conn.half_close()
                    return conn.at_end()
            sending = pool.submit(send)
            with many.tcp(0) as conn:
                assert Download(conn).finish() == digest
            assert sending.result()
        finally:
            flooding.clear()
    assert taken == [sha256(upload)]
    if not SANITIZED:
        for proc, rss in before.items():
            assert proc.rss() - rss < 32 * MIB
    with Visitor(many.where(1)) as visitor:
        visitor.ask(b"afterwards")


def test_one_tunnels_flows_do_not_use_up_anothers(start, server):
    """Caps are each tunnel's own: one whose flows are all taken leaves the other alone."""
    services = [start.keep(Upstream()) for _ in range(2)]
    many = Many(start, server, [("udp", service.port) for service in services])
    crowd = [Visitor(many.where(0)) for _ in range(600)]  # more than one host may have
    try:
        for visitor in crowd:
            visitor.send(b"me")
        eventually(lambda: len(services[0].sources()) >= 100, "they come")
        with Visitor(many.where(1)) as visitor:
            visitor.ask(b"elsewhere")
    finally:
        for visitor in crowd:
            visitor.close()
