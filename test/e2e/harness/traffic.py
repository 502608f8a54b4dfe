# SPDX-License-Identifier: Apache-2.0
"""Traffic of several kinds at once, and a tunnel for it: what must live through faults.

Every stream's bytes are its own (pattern.py) and both ends check them. What is counted as moved is
what has come through the tunnel, not what somebody took into a buffer.
"""

import collections
import contextlib
import json
import os
import secrets
import select
import socket
import struct
import threading
import time

from . import CLIENT_BIN, HANG, SANITIZED, UPSTREAMS, eventually, pattern, ws
from .net import Truncated, dial, free_port
from .stack import Client

RATE = 256 if SANITIZED else 768  # KiB/s of each stream, each way


class Upstream:
    """upstreams/streams.py, running; its ports, and what it finds wrong."""

    def __init__(self, start, *ports):
        self.proc = start.spawn(["/usr/bin/python3", "-B", UPSTREAMS / "streams.py", *ports],
                                name="streams")
        ready = self.proc.wait_line(r"^ready (\d+) (\d+) (\d+)$")
        self.http, self.tcp, self.udp = (int(ready[n]) for n in (1, 2, 3))

    def wrongs(self):
        return [line for line in self.proc.out() if line.startswith("wrong")]


class Rig:
    """A server, a client with three tunnels and an upstream; with a Net each at its own end of it.

    between: makes what the link goes through out of the server's port, such as a Relay."""

    def __init__(self, start, *server_args, net=None, between=None, client_args=(), token=None,
                 ports=None):
        self.start, self.net = start, net
        self.client_args = client_args
        self.instance = secrets.token_hex(16)
        with self.at_server():
            self.ports = ports or [free_port() for _ in range(4)]
            self.link_port, self.http_port, self.tcp_port, self.udp_port = self.ports
            self.server_args = ["--verbose", *server_args,
                                "--listen", f"{net.SERVER if net else '127.0.0.1'}:{self.link_port}",
                                "--tcp-ports", str(self.tcp_port), "--udp-ports", str(self.udp_port)]
            self.token = token
            self.server = self.run_server()
        self.relay = start.keep(between(self.link_port)) if between else None
        with self.at_client():
            self.upstream = Upstream(start)
            self.client = self.run_client()

    def at_server(self):
        return self.net.server.entered() if self.net else contextlib.nullcontext()

    def at_client(self):
        return self.net.client.entered() if self.net else contextlib.nullcontext()

    def run_server(self):
        with self.at_server():
            server = self.start.server(*self.server_args, port=self.http_port, token=self.token)
        self.token = server.token
        return server

    def run_client(self, *args, wait=True, instance=None):
        """A client for these tunnels: the same instance unless another one is named."""
        where = (f"{self.net.SERVER}:{self.link_port}" if self.net else
                 f"127.0.0.1:{self.relay.port if self.relay else self.link_port}")
        path = self.start.folder_for("config") / "tunnel.yml"
        path.write_text(f"""
server: ws://{where}
token: {self.token}
insecure: yes
instance: {instance or self.instance}
tunnels:
  web: {{type: http, to: {self.upstream.http}, subdomain: demo}}
  tcp: {{type: tcp, to: {self.upstream.tcp}, remote-port: {self.tcp_port}}}
  udp: {{type: udp, to: {self.upstream.udp}, remote-port: {self.udp_port}}}
""")
        path.chmod(0o600)
        with self.at_client():
            client = Client(self.start.program(
                CLIENT_BIN, ["start", "--config", path, "--quiet", "--verbose", *self.client_args,
                             *args]))
        if wait:
            client.proc.wait_line("public: ", kind="out", count=3)
        return client

    def run_upstream(self):
        """The upstream again, at the ports that it had."""
        was = self.upstream
        with self.at_client():
            self.upstream = Upstream(self.start, was.http, was.tcp, was.udp)

    def await_served(self, key="served"):
        """Until a request is answered, and the other tunnels are there, too."""
        eventually(lambda: self.get(f"/small?key={key}").status == 200, "the name is served")

        def greeted():
            with self.dial(self.tcp_port) as conn:
                conn.send(b"greeting")
                return conn.read_exactly(8) == b"greeting"
        eventually(greeted, "the port is served")

    def dial(self, port=None, **kw):
        with self.at_server():
            return dial("127.0.0.1", port or self.http_port, **kw)

    def get(self, target):
        with self.dial() as conn:
            return conn.fetch("GET", target, self.server.name("demo"))

    def ask(self, what, key):
        """What the upstream says of a stream, past the tunnel."""
        with self.at_client(), dial("127.0.0.1", self.upstream.http) as conn:
            return json.loads(conn.fetch("GET", f"/{what}?key={key.decode()}", "up").body)["bytes"]

    def returns(self):
        """How often the client came back to its session."""
        return self.client.proc.text("err").count("streams go on")

    def lost(self):
        """How often the server lost all connections of the client."""
        return self.server.proc.text("err").count("lost its connection")

    def resources(self):
        procs = [self.server.proc, self.client.proc]
        return [(proc.descriptors(), proc.rss()) for proc in procs]

    def back_to(self, before):
        """Descriptors and memory of server and client are where they were."""
        procs = [self.server.proc, self.client.proc]
        for proc, (descriptors, rss) in zip(procs, before):
            # One of their connections to one another may live a little longer.
            eventually(lambda p=proc, n=descriptors: p.descriptors() <= n + 2,
                       f"{proc.name}: descriptors as before ({descriptors})")
            assert SANITIZED or proc.rss() - rss < 24 << 20, (proc.name, rss, proc.rss())


class Stream:
    """One visitor, in a thread of its own."""

    def __init__(self, rig, kind):
        self.rig = rig
        self.key = (kind[:3] + secrets.token_hex(4))[:pattern.KEY].encode()
        self.name = f"{kind} {self.key.decode()}"
        self.moved = 0
        self.failure = None
        self.conn = None
        self.over = threading.Event()  # it is asked to come to its end
        self._thread = threading.Thread(target=self._main, daemon=True)

    def begin(self):
        self._thread.start()
        return self

    def _main(self):
        try:
            self.run()
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error
        finally:
            if self.conn:
                self.conn.close()

    def run(self):
        raise NotImplementedError

    def progress(self):
        return self.moved

    def ended(self):
        return not self._thread.is_alive()

    def join(self):
        self._thread.join(2 * HANG)
        assert not self._thread.is_alive(), f"{self.name} is stuck at {self.moved}"

    def finish(self):
        """Comes to its end, and all of it was right."""
        self.over.set()
        self.join()
        if self.failure:
            raise AssertionError(f"{self.name} failed at {self.moved}: "
                                 f"{self.failure!r}") from self.failure

    def break_off(self):
        """The visitor leaves, whatever is under way."""
        self.over.set()
        if self.conn:
            with contextlib.suppress(OSError):
                self.conn.sock.shutdown(socket.SHUT_RDWR)
        self.join()

    def broken(self):
        """It was cut off, visibly: that is no failure of the test, but anything else is."""
        self.join()
        assert isinstance(self.failure, (OSError, Truncated)) and not isinstance(
            self.failure, TimeoutError), f"{self.name}: {self.failure!r}"


class Download(Stream):
    def __init__(self, rig, rate=RATE):
        super().__init__(rig, "download")
        self.rate = rate
        self._checker = pattern.Checker(self.key)

    def run(self):
        self.conn = self.rig.dial()
        self.conn.request("GET", f"/down?key={self.key.decode()}&rate={self.rate}",
                          self.rig.server.name("demo"))
        head = self.conn.read_head()
        assert head.status == 200, head
        while data := self.conn.read_chunk():
            self._checker.feed(data)
            self.moved = self._checker.count
        self.conn.read_trailers()
        self._checker.finish()

    def finish(self):
        count = self.rig.ask("stop", self.key)
        super().finish()
        # The last block may have been on its way when it was asked.
        assert 0 <= self.moved - count <= pattern.BLOCK


class Upload(Stream):
    def __init__(self, rig, rate=RATE):
        super().__init__(rig, "upload")
        self.rate = rate

    def run(self):
        self.conn = self.rig.dial()
        self.conn.send(f"POST /up?key={self.key.decode()} HTTP/1.1\r\n"
                       f"Host: {self.rig.server.name('demo')}\r\nTransfer-Encoding: chunked\r\n\r\n")
        for data in paced_blocks(self.key, self.rate, self.over):
            self.conn.send(b"%x\r\n%s\r\n" % (len(data), data))
            self.moved += len(data)
        self.conn.send(b"0\r\n\r\n")
        got = self.conn.read_response("POST")
        assert got.status == 200, got
        assert json.loads(got.body)["bytes"] == self.moved

    def progress(self):
        return self.rig.ask("count", self.key)


class BothWays(Stream):
    """A TCP connection, a pattern each way."""

    def __init__(self, rig, rate=RATE):
        super().__init__(rig, "both ways")
        self.rate, self.said = rate, 0

    def _write(self):
        try:
            for data in paced_blocks(self.key, self.rate, self.over):
                self.conn.send(data)
                self.said += len(data)
            self.conn.half_close()
        except OSError as error:
            self.failure = self.failure or error

    def run(self):
        self.conn = self.rig.dial(self.rig.tcp_port)
        self.conn.send(b"pattern " + self.key + struct.pack("!I", self.rate))
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        checker = pattern.Checker(pattern.other_way(self.key))
        block = self.conn.read_exactly(pattern.KEY)
        while block[:pattern.KEY] != pattern.END:
            checker.feed(block + self.conn.read_exactly(pattern.BLOCK - len(block)))
            self.moved = checker.count
            block = self.conn.read_exactly(pattern.KEY)
        checker.finish()
        there, = struct.unpack("!Q", self.conn.read_exactly(8))
        writer.join(HANG)
        assert there == self.said, (there, self.said)
        assert self.conn.at_end()

    def progress(self):
        return min(self.moved, self.rig.ask("count", self.key))


class Echo(Stream):
    """A WebSocket to an echo: every block comes back."""

    def __init__(self, rig, rate=RATE // 2):
        super().__init__(rig, "echo")
        self.rate = rate

    def run(self):
        self.conn = self.rig.dial()
        self.conn.send(ws.upgrade_head(self.rig.server.name("demo"), path="/ws"))
        head = self.conn.read_head()
        assert head.status == 101, head
        for data in paced_blocks(self.key, self.rate, self.over):
            self.conn.send(data)
            got = self.conn.read_exactly(len(data))
            if got != data:
                raise ValueError(f"{self.name}: other bytes came back at {self.moved}: {got[:16]!r}")
            self.moved += len(data)
        self.conn.half_close()
        assert self.conn.at_end()


class Quiet(Stream):
    """A TCP connection that says something at its beginning and at its end."""

    def __init__(self, rig):
        super().__init__(rig, "quiet")

    def run(self):
        self.conn = self.rig.dial(self.rig.tcp_port)
        self._say(b"greeting" + self.key)
        while not self.over.wait(0.1) and not self.conn.buffer:
            if not self.conn.is_quiet(0):
                raise ConnectionResetError("a quiet connection ended")
        self._say(b"goodbye " + self.key)
        self.conn.half_close()
        assert self.conn.at_end()

    def _say(self, data):
        self.conn.send(data)
        got = self.conn.read_exactly(len(data))
        if got != data:
            raise ValueError(f"{self.name}: {got!r} came back")
        self.moved += len(data)

    def progress(self):
        return None


class Flow(Stream):
    """Questions over UDP: some get lost in faults, but no answer is another one's."""

    def __init__(self, rig):
        super().__init__(rig, "flow")
        self.asked = 0

    def run(self):
        with self.rig.at_server():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.connect(("127.0.0.1", self.rig.udp_port))
            while not self.over.wait(0.02):
                self.asked += 1
                with contextlib.suppress(ConnectionRefusedError):
                    sock.send(self.key + struct.pack("!Q", self.asked) * 20)
                while select.select([sock], [], [], 0)[0]:
                    with contextlib.suppress(ConnectionRefusedError):
                        self._heard(sock.recv(65536))

    def _heard(self, data):
        number, = struct.unpack("!Q", data[pattern.KEY:pattern.KEY + 8])
        if data != self.key + struct.pack("!Q", number) * 20 or not 0 < number <= self.asked:
            raise ValueError(f"{self.name}: heard {data[:16]!r}")
        self.moved += 1

    def went_on(self):
        """To the upstream it was one flow from beginning to end."""
        return self.rig.ask("count", self.key) == 1


class Small(Stream):
    """Small requests one after another, each on a connection of its own."""

    def __init__(self, rig, pause=0.05):
        super().__init__(rig, "small")
        self.pause = pause
        self.statuses = collections.Counter()
        self.waited = 0  # the longest that one took, in seconds

    def run(self):
        number = 0
        while not self.over.wait(self.pause):
            number += 1
            key = f"{self.key.decode()}-{number}"
            begun = time.monotonic()
            got = self.rig.get(f"/small?key={key}")
            self.waited = max(self.waited, time.monotonic() - begun)
            self.statuses[got.status] += 1
            if got.status == 200:
                if got.body != key.encode() * 100:
                    raise ValueError(f"{self.name}: another's answer: {got.body[:40]!r}")
                self.moved += 1


def paced_blocks(key, rate, over):
    """Blocks of the pattern, rate KiB a second, until over is set."""
    number, due = 0, 0
    while not over.is_set():
        yield pattern.block(key, number)
        number += 1
        due = max(due, time.monotonic() - 0.05) + pattern.BLOCK / (rate * 1024)
        time.sleep(max(0, due - time.monotonic()))


def begin(rig, *kinds):
    """One of each kind, under way."""
    streams = [kind(rig).begin() for kind in kinds]

    def moves():
        for stream in streams:
            assert not stream.failure, (stream.name, stream.failure)
        return all(stream.moved for stream in streams)
    eventually(moves, "traffic is under way")
    return streams


class Traffic:
    """All kinds at once. As a context: at its end all streams came to theirs, whole."""

    KINDS = (Download, Upload, BothWays, Echo, Quiet, Flow, Small)

    def __init__(self, rig, record=None, *, times=1, kinds=KINDS, **kw):
        self.rig = rig
        self.record = record or (lambda name, value: None)
        self.streams = [kind(rig, **(kw if kind in (Download, Upload, BothWays) else {}))
                        for _ in range(times) for kind in kinds]

    def __enter__(self):
        for stream in self.streams:
            stream.begin()
        try:
            self.flows("at the start", 1)
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if kind:
            self._abandon()
            return
        try:
            for stream in self.streams:
                stream.over.set()
            for stream in self.streams:
                stream.finish()
            assert not self.rig.upstream.wrongs()
        finally:
            self._abandon()

    def _abandon(self):
        for stream in self.streams:
            with contextlib.suppress(AssertionError):
                stream.break_off()

    def of(self, kind):
        return [stream for stream in self.streams if isinstance(stream, kind)]

    def check(self):
        """Nothing has gone wrong so far."""
        for stream in self.streams:
            if stream.failure or stream.ended():
                raise AssertionError(f"{stream.name} ended at {stream.moved}: "
                                     f"{stream.failure!r}") from stream.failure
        assert not self.rig.upstream.wrongs(), self.rig.upstream.wrongs()

    def flows(self, what, least=None):
        """Waits until every stream has moved on from where it is now. How long that took is noted."""
        begun = time.monotonic()
        # More than what buffers on the way from the server to the visitor could hold back.
        least = least or 4 * pattern.BLOCK
        before = {s: s.progress() for s in self.streams}
        waiting = [s for s, at in before.items() if at is not None]

        def moved(stream):
            step = least if isinstance(stream, (Download, Upload, BothWays, Echo)) else 2
            return stream.progress() >= before[stream] + step

        def all_moved():
            self.check()
            waiting[:] = [s for s in waiting if not moved(s)]
            return not waiting
        try:
            eventually(all_moved, f"traffic flows {what}", timeout=2 * HANG)
        except AssertionError as error:
            stuck = ", ".join(f"{s.name} at {s.moved}" for s in waiting)
            raise AssertionError(
                f"{error}; waiting for: {stuck}\n{self.rig.client.proc.transcript()}\n"
                f"{self.rig.server.proc.transcript()}") from error
        took = time.monotonic() - begun
        self.record("recovered_ms " + what, round(took * 1000))
        print(f"{what}: all streams move {took * 1000:.0f} ms after", flush=True)
