# SPDX-License-Identifier: Apache-2.0
"""One client and several servers: it finds the one that lives, moves when one drains, and leaves."""

import hashlib
import signal
import threading
import time

from harness import HANG, eventually
from harness.net import free_port
from harness.proxy import Relay
from harness.stack import Server, app_bytes, sha256

READY = "/__tunnel__/health/ready"
POLL = 0.5  # how often the balancer of the tests looks; it believes what it has seen twice


def twins(start, *args, count=2):
    """Servers of one service: the same domain and token."""
    first = start.server(*args)
    return [first, *(start.server(*args, token=first.token) for _ in range(count - 1))]


def link(*servers):
    return ",".join(s.link if isinstance(s, Server) else f"ws://127.0.0.1:{s}" for s in servers)


def serves(server):
    """Whether visitors of the server reach the app now."""
    try:
        return server.status("/hello") == 200
    except OSError:
        return False


def test_the_first_is_down(start, app):
    server = start.server()
    client = start.client(server, app, "--verbose", link=link(free_port(), free_port(), server))
    assert server.status("/hello") == 200
    assert client.proc.alive()


def test_one_that_is_killed_is_left(start, app):
    a, b = twins(start)
    client = start.client(a, app, link=link(a, b))
    assert serves(a) and not serves(b)
    a.proc.kill()
    # Long before the grace of 30 s is over.
    eventually(lambda: serves(b), "visitors of the other one are served", timeout=15)
    # And back: what works is kept, until it does not work any more.
    a = start.server(token=b.token, port=a.port)
    time.sleep(1)
    assert serves(b) and not serves(a)
    b.proc.kill()
    eventually(lambda: serves(a), "visitors of the first one are served again", timeout=15)
    assert client.proc.alive()


def test_one_that_refuses_us_does_not_end_it(start, app):
    stranger, server = start.server(), start.server()
    start.client(server, app, link=link(stranger, server))
    assert serves(server)


def test_a_certificate_that_is_not_trusted_does_not_end_it(start, app, authority, local_pair):
    secure, plain = start.server(tls=[local_pair]), start.server()
    both = f"wss://localhost:{secure.tls_port},{link(plain)}"
    start.client(plain, app, link=both)
    assert serves(plain)
    # And where it is, plain and TLS go together.
    client = start.client(secure, app, "--ca", authority.cert, subdomain="other", link=both)
    assert client.label() == "other"
    assert secure.status("/hello", "other") == 200


def test_refused_by_all(start, app):
    a, b = start.server(), start.server()
    client = start.client(a, app, token="nobody's", link=link(a, b), wait=False)
    assert client.proc.wait(HANG) == 1
    first, last = client.proc.text("err").splitlines()
    assert first.startswith(f"no tunnel through {a.link}: AUTH_FAILED")
    assert last.startswith(f"tunnel-client: {b.link}: AUTH_FAILED: the token")


def test_streams_live_when_the_network_was_away(start, app):
    """Both servers are out of reach; whichever is found first, the streams' own one gets it."""
    a, b = twins(start, "--grace", "30")
    ways = [start.keep(Relay(s.port)) for s in (a, b)]
    client = start.client(a, app, link=link(*(w.port for w in ways)))
    with a.dial() as conn:
        conn.request("GET", "/sse?id=away", a.name("demo"))
        assert conn.read_head().status == 200
        for turn in range(3):
            app.control("emit", id="away", data=f"word {turn}")
            while f"word {turn}".encode() not in conn.read_chunk():
                pass
            for way in ways:
                way.frozen = True
                way.drop_all()
            time.sleep(1.5)
            for way in reversed(ways):
                way.frozen = False
            eventually(lambda: client.proc.text("err").count("go on") == turn + 1, "it is back")
    assert not serves(b)


# --- a server drains ------------------------------------------------------------------------------

def test_a_stream_ends_where_it_began(start, app):
    a, b = twins(start, "--drain-timeout", "60")
    start.client(a, app, link=link(a, b))
    size = 24 << 20
    with a.dial() as conn:
        conn.request("GET", f"/bytes?n={size}", a.name("demo"))
        assert conn.read_head().status == 200
        a.proc.deliver(signal.SIGTERM)
        eventually(lambda: serves(b), "the client has moved")
        assert a.proc.alive()
        digest, got = hashlib.sha256(), 0
        while got < size:
            piece = conn.read_exactly(min(size - got, 256 * 1024))
            digest.update(piece)
            got += len(piece)
    assert digest.hexdigest() == sha256(app_bytes(size))
    assert a.proc.wait(HANG) == 0
    assert serves(b)


def test_with_one_server_it_waits_for_the_next(start, app):
    server = start.server("--drain-delay", "1")
    client = start.client(server, app)
    server.proc.deliver(signal.SIGTERM)
    time.sleep(0.5)
    assert serves(server)  # nothing changes before there is somewhere to go
    assert server.proc.wait(HANG) == 0
    again = start.server(token=server.token, port=server.port)
    eventually(lambda: serves(again), "it is back", timeout=20)
    assert client.proc.alive()
    # It has not said that there was none while visitors were served.
    said = client.proc.text("err").splitlines()
    assert said[0].startswith("draining: ") and said[1].startswith("no new tunnel through ")


class Balancer(threading.Thread):
    """Sends visitors to one of the servers, until that one has said twice that it is not ready."""

    def __init__(self, servers):
        super().__init__(daemon=True)
        self.servers, self.used, self.over = servers, 0, threading.Event()

    def ready(self, server):
        try:
            return server.status(READY, host=f"127.0.0.1:{server.port}") == 200
        except OSError:
            return False

    def run(self):
        misses = 0
        while not self.over.wait(POLL):
            misses = 0 if self.ready(self.servers[self.used]) else misses + 1
            other = 1 - self.used
            if misses >= 2 and self.ready(self.servers[other]):
                self.used, misses = other, 0


def visit(balancer, stop, body, done, lost):
    """Requests of all kinds on new connections and kept ones, one after the other."""
    while not stop.is_set():
        server = balancer.servers[balancer.used]
        try:
            with server.dial() as conn:
                for target, method, payload in (("/hello", "GET", None), ("/echo", "POST", body),
                                                ("/bytes?n=300000", "GET", None)):
                    got = conn.fetch(method, target, server.name("demo"), (), payload)
                    done.append(got.status)
                    if got.status != 200:
                        lost.append((server.port, target, got.status, got.body[:200]))
                    if got.get("connection", "").lower() == "close":
                        break
        except Exception as error:  # pylint: disable=broad-except
            lost.append((server.port, repr(error)))


def test_a_rolling_restart_loses_no_request(start, app):
    args = ("--drain-delay", "4", "--drain-timeout", "20")
    servers = twins(start, *args)
    start.client(servers[0], app, "--quiet", link=link(*servers))
    balancer = Balancer(servers)
    stop, done, lost = threading.Event(), [], []
    visitors = [threading.Thread(target=visit, daemon=True,
                                 args=(balancer, stop, app_bytes(100000), done, lost))
                for _ in range(4)]
    for thread in (balancer, *visitors):
        thread.start()
    for turn in range(4):
        old, new = turn % 2, 1 - turn % 2
        had = len(done)
        eventually(lambda: len(done) > had + 20, "visitors are served")
        servers[old].proc.deliver(signal.SIGTERM)
        eventually(lambda: balancer.used == new, "visitors go to the other one")
        assert servers[old].proc.wait(HANG) == 0
        servers[old] = start.server(*args, token=servers[new].token, port=servers[old].port)
    stop.set()
    for thread in visitors:
        thread.join(HANG)
    balancer.over.set()
    balancer.join(HANG)
    assert not lost, lost[:5]
    assert len(done) > 100


# --- the client leaves ----------------------------------------------------------------------------

def test_what_is_under_way_is_finished(start, app):
    server = start.server()
    client = start.client(server, app)
    size = 24 << 20
    with server.dial() as conn, server.dial() as events:
        events.request("GET", "/sse?id=leave", server.name("demo"))
        assert events.read_head().status == 200
        conn.request("GET", f"/bytes?n={size}", server.name("demo"))
        assert conn.read_head().status == 200
        client.proc.deliver(signal.SIGTERM)
        eventually(lambda: not serves(server), "nobody new is served")
        body = conn.read_exactly(size)
        assert sha256(body) == sha256(app_bytes(size))
        app.control("emit", id="leave", data="still there")
        while b"still there" not in events.read_chunk():
            pass
        assert client.proc.alive()
        app.control("finish", id="leave")
        assert client.proc.wait(HANG) == 0
    assert "lost" not in client.proc.text("err")


def test_a_link_that_is_lost_meanwhile(start, app):
    """A stream that is under way when the client is told to leave lives through a cut, too."""
    server = start.server("--grace", "20")
    way = start.keep(Relay(server.port))
    client = start.client(server, app, link=f"ws://127.0.0.1:{way.port}")
    with server.dial() as events:
        events.request("GET", "/sse?id=cut", server.name("demo"))
        assert events.read_head().status == 200
        client.proc.deliver(signal.SIGTERM)
        eventually(lambda: not serves(server), "nobody new is served")
        way.drop_all()
        app.control("emit", id="cut", data="after the cut")
        while b"after the cut" not in events.read_chunk():
            pass
        app.control("finish", id="cut")
        assert client.proc.wait(HANG) == 0
