# SPDX-License-Identifier: Apache-2.0
"""Several clients behind one name or port: turns, members that fail, come and go."""

import contextlib
import secrets
import socket
import ssl
import threading

import pytest

from harness import eventually
from harness.net import Listener, Truncated, dial, free_port, free_range
from harness.proxy import Relay
from harness.services import Redis

class Pool:
    """Members of one name, each before an app of its own."""

    def __init__(self, start, server, members=3, args=()):
        self.start, self.server, self.args = start, server, args
        self.apps, self.clients = [], []
        for _ in range(members):
            self.join()

    def join(self, app=None, **kw):
        self.apps.append(app or self.start.node())
        self.clients.append(self.start.client(self.server, self.apps[-1], "--pool", "--quiet",
                                              *self.args, **kw))
        return self.clients[-1]

    def counts(self):
        return [app.stats()["requests"] for app in self.apps]


class Load(threading.Thread):
    """Visitors who ask without pause while a test runs; what they got other than 200."""

    def __init__(self, server, target="/hello", method="GET"):
        super().__init__(daemon=True)
        self.server, self.target, self.method = server, target, method
        self.done, self.wrong = 0, []
        self._over = threading.Event()

    def _ask(self):
        try:
            got = self.server.get(self.target, method=self.method)
            return None if got.status == 200 else (got.status, got.body)
        except (OSError, Truncated) as error:
            return error

    def run(self):
        while not self._over.is_set():
            wrong = self._ask()
            if wrong:
                self.wrong.append(wrong)
            self.done += 1

    def end(self):
        self._over.set()
        self.join()


@contextlib.contextmanager
def load(server, visitors=4, **kw):
    """Many of them; each must have been answered a few times more before it ends."""
    many = [Load(server, **kw) for _ in range(visitors)]
    for one in many:
        one.start()
    eventually(lambda: all(one.done > 5 for one in many), "load")
    try:
        yield many
        before = [one.done for one in many]
        eventually(lambda: all(one.done > n + 20 for one, n in zip(many, before)), "more load")
    finally:
        for one in many:
            one.end()
    assert not [w for one in many for w in one.wrong]


def test_requests_are_spread_evenly(start):
    pool = Pool(start, start.server())
    for _ in range(30):
        assert pool.server.status("/hello") == 200
    assert pool.counts() == [10, 10, 10]


def test_requests_of_one_connection_are_spread_too(start):
    pool = Pool(start, start.server())
    with pool.server.dial() as conn:
        for _ in range(30):
            assert conn.fetch("GET", "/hello", pool.server.name("demo")).status == 200
    assert pool.counts() == [10, 10, 10]


def test_the_least_loaded_is_taken(start):
    pool = Pool(start, start.server(), args=("--balance", "least-loaded"))
    with contextlib.ExitStack() as stack:
        for i in range(3):  # two busy with one each, the third is found by who is not
            if i < 2:
                conn = stack.enter_context(pool.server.dial())
                conn.request("GET", f"/stall?id=busy{i}", pool.server.name("demo"))
                assert conn.read_head().status == 200
        busy = [n > 0 for n in pool.counts()]
        assert busy.count(True) == 2
        before = pool.counts()
        for _ in range(10):
            assert pool.server.status("/hello") == 200
        gained = [now - then for now, then in zip(pool.counts(), before)]
        assert sorted(gained) == [0, 0, 10]
        assert gained[busy.index(False)] == 10


def test_a_member_that_is_killed_costs_no_request(start):
    pool = Pool(start, start.server())
    with load(pool.server):
        pool.clients[1].proc.kill()
    assert pool.server.status("/hello") == 200


def test_the_requests_of_a_member_that_is_killed(start):
    """They wait at a service that does not answer: another member gets them."""
    server = start.server()
    mute = start.keep(Listener(lambda conn: conn.read_all()))
    silent = start.client(server, mute.port, "--pool", "--quiet")
    pool = Pool(start, server, 1)
    with contextlib.ExitStack() as stack:
        visitors = [stack.enter_context(server.dial()) for _ in range(10)]
        for conn in visitors:
            conn.request("GET", "/hello", server.name("demo"))
        eventually(lambda: mute.accepted == 5 and pool.counts() == [5], "half of them are served")
        silent.proc.kill()
        assert {conn.read_response().status for conn in visitors} == {200}
    assert pool.counts() == [10]


def test_members_come_and_go_under_load(start):
    pool = Pool(start, start.server(), 2)
    with load(pool.server):
        for _ in range(3):
            pool.join()
            pool.clients.pop(0).proc.stop()
            pool.apps.pop(0)


def test_a_dead_service_costs_no_request(start):
    pool = Pool(start, start.server(), 2)
    dead = start.client(pool.server, free_port(), "--pool")
    with load(pool.server):
        pass
    with load(pool.server, target="/echo", method="DELETE"):
        pass
    # A request without a body that nobody has seen may be anything.
    for _ in range(10):
        assert pool.server.status("/echo", method="POST", headers=[("Content-Length", "0")]) == 200
    assert dead.proc.alive()


def test_a_service_that_comes_back_is_asked_again(start):
    server, port = start.server(), free_port()
    start.client(server, port, "--pool", "--quiet")
    app = start.node()
    start.client(server, app, "--pool", "--quiet")
    for _ in range(4):
        assert server.status("/hello") == 200
    assert app.stats()["requests"] == 4
    with socket.create_server(("127.0.0.1", port)) as late:
        seen = []

        def serve():
            conn, _ = late.accept()
            with conn:
                seen.append(conn.recv(4096))
                conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate")
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        eventually(lambda: server.get("/hello").body == b"late", "the late one")
        thread.join()
        assert seen[0].startswith(b"GET /hello ")


def test_what_has_a_body_is_sent_once(start):
    """To a dead service now and then: 502, and the living one never sees it."""
    pool = Pool(start, start.server(), 1)
    start.client(pool.server, free_port(), "--pool", "--quiet")
    statuses = [pool.server.status("/echo", method="POST", body=b"x" * 100) for _ in range(6)]
    assert set(statuses) <= {200, 502} and 200 in statuses
    assert statuses.count(502) == 1  # then the dead one is passed over
    assert pool.counts() == [statuses.count(200)]


def test_a_member_whose_network_is_gone(start):
    """Half of the pool loses its connections: visitors notice nothing, and it is a member again
    when it is back."""
    server = start.server("--grace", "60")
    relay = start.keep(Relay(server.port))
    pool = Pool(start, server, 1)
    pool.join(link=f"ws://127.0.0.1:{relay.port}")
    with load(server):
        relay.frozen = True
        relay.drop_all()
    before = pool.counts()[1]
    for _ in range(6):
        assert server.status("/hello") == 200
    assert pool.counts()[1] == before
    relay.frozen = False

    def back():
        assert server.status("/hello") == 200
        return pool.counts()[1] > before
    eventually(back, "it is asked again")


def test_nobody_else_gets_in(start):
    server = start.server("--token", "second-credential")
    pool = Pool(start, server, 1)
    thief = start.client(server, pool.apps[0], "--pool", token="second-credential", wait=False)
    assert thief.proc.wait() == 1
    assert "another account" in thief.proc.text("err")
    alone = start.client(server, pool.apps[0], "--instance", secrets.token_hex(16), wait=False)
    assert alone.proc.wait() == 1
    assert "--pool" in alone.proc.text("err")
    assert server.status("/hello") == 200


def test_who_does_not_share_is_told_how(start):
    server = start.server()
    app = start.node()
    start.client(server, app)
    late = start.client(server, app, "--pool", wait=False)
    assert late.proc.wait() == 1
    assert "--pool" in late.proc.text("err")


def test_a_port_with_redis(start):
    """Two clients before one Redis: one dies, the port stays, connections of the other go on."""
    port = free_range(1)
    server, redis = start.server("--tcp-ports", str(port), "--verbose"), Redis(start)
    where = ("127.0.0.1", port)

    def member():
        return start.tcp(server, redis.port, "--pool", "--quiet", "--remote-port", str(port))
    first, second = member(), member()
    with dial(*where) as one, dial(*where) as two:
        for conn in one, two:
            conn.send(b"PING\r\n")
            assert conn.read_exactly(7) == b"+PONG\r\n"
        first.proc.stop(patience=1)
        for i in range(10):
            assert redis.cli(where, "INCR", "n") == b"%d\n" % (i + 1)
        two.send(b"INCR n\r\n")  # the second in turn: it went to the second client
        assert two.read_exactly(5) == b":11\r\n"
    member()
    second.proc.kill()
    server.proc.wait_line("lost its connection")
    for _ in range(10):
        assert redis.cli(where, "PING") == b"PONG\n"


def client_hello(name):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_a_tls_name(start):
    """What is passed through as it is, by the name in it: in turn as well."""
    server = start.server()
    hello = client_hello("secure.localhost")

    def service(answer):
        def serve(conn):
            assert conn.read_exactly(len(hello)) == hello
            conn.send(answer)
        return start.keep(Listener(serve))
    services = [service(b"one"), service(b"two")]
    for one in services:
        start.program_client(server, ["tls", str(one.port), "--pool", "--quiet"],
                             subdomain="secure")
    for expected in (b"one", b"two") * 3:
        with server.dial() as visitor:
            visitor.send(hello)
            assert visitor.read_all() == expected
    assert not any(one.failures for one in services)


@pytest.mark.parametrize("members", [5])
def test_what_goes_on_stays_where_it_is(start, members):
    """Streams of events are spread as well; who joins or leaves meanwhile does not touch them."""
    pool = Pool(start, start.server(), members)
    with contextlib.ExitStack() as stack:
        conns = [stack.enter_context(pool.server.dial()) for _ in range(members)]
        for i, conn in enumerate(conns):
            conn.request("GET", f"/sse?id=x{i}", pool.server.name("demo"))
            assert conn.read_head().status == 200
            assert conn.read_chunk() == b": hi\n\n"
        assert pool.counts() == [1] * members
        pool.join()
        pool.clients[0].proc.kill()
        for _ in range(members):
            assert pool.server.status("/hello") == 200
        for conn in conns[1:]:
            assert conn.is_quiet()
