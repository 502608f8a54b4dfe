# SPDX-License-Identifier: Apache-2.0
"""TCP tunnels byte by byte: ends, resets, order, slowness, numbers, between peers of our own.

What runs with `reach` runs without a tunnel as well: what is asked of the tunnel is what a plain
connection does.
"""

import concurrent.futures
import hashlib
import os
import queue
import random
import select
import socket
import threading

import pytest

from harness import HANG, MIB, SANITIZED, eventually
from harness.net import Listener, dial, free_port, port_range

BULK = (4 if SANITIZED else 24) * MIB


def ending(conn):
    """What came, and how it ended."""
    data = bytearray()
    try:
        while part := conn.sock.recv(1 << 18):
            data += part
    except ConnectionResetError:
        return bytes(data), "reset"
    return bytes(data), "end"


def echo(conn):
    while data := conn.sock.recv(65536):
        conn.send(data)


@pytest.fixture(name="peer")
def _peer(start):
    """Makes an upstream: serve(conn) runs for each connection, what it returns comes out of
    .told.get(), and nothing it raises is lost."""
    def make(serve, **kw):
        told = queue.Queue()

        def run(conn):
            try:
                told.put(serve(conn))
            except BaseException as error:
                told.put(error)
                raise
        listener = start.keep(Listener(run, **kw))
        listener.told = told
        listener.tell = lambda: told.get(timeout=HANG)
        return listener
    return make


# -- ends -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 100_000, 3 * MIB])
def test_half_close_by_the_visitor(peer, reach, size):
    """The upstream sees the end, and everything it then says still arrives."""
    data, answer = os.urandom(size), os.urandom(3 * MIB)

    def serve(conn):
        got = ending(conn)
        conn.send(answer)
        return got
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        visitor.send(data)
        visitor.half_close()
        assert ending(visitor) == (answer, "end")
    assert upstream.tell() == (data, "end")


@pytest.mark.parametrize("size", [0, 1, 100_000, 3 * MIB])
def test_half_close_by_the_upstream(peer, reach, size):
    data, answer = os.urandom(3 * MIB), os.urandom(size)

    def serve(conn):
        conn.send(answer)
        conn.half_close()
        return ending(conn)
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        assert ending(visitor) == (answer, "end")
        visitor.send(data)
        visitor.half_close()
        assert upstream.tell() == (data, "end")


def test_half_closed_stays_open(peer, reach):
    """The end of one direction is no reason to give up the other, however slow it is."""
    go = threading.Event()

    def serve(conn):
        got = ending(conn)
        for i in range(5):
            go.wait(0.3)
            conn.send(b"%d" % i)
        return got
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        visitor.half_close()
        assert ending(visitor) == (b"01234", "end")


def test_both_end_at_once(peer, reach):
    data = os.urandom(300_000)

    def serve(conn):
        sender = threading.Thread(target=lambda: (conn.send(data), conn.half_close()))
        sender.start()
        got = ending(conn)
        sender.join()
        return got
    upstream = peer(serve)
    for _ in range(20):
        with dial(*reach.tcp(upstream.port)) as visitor:
            sender = threading.Thread(target=lambda v=visitor: (v.send(data), v.half_close()))
            sender.start()
            assert ending(visitor) == (data, "end")
            sender.join()
        assert upstream.tell() == (data, "end")


def test_nothing_said(peer, reach):
    """A connection that is opened and closed without a byte is opened and closed upstream."""
    upstream = peer(ending)
    dial(*reach.tcp(upstream.port)).close()
    assert upstream.tell() == (b"", "end")


def test_upstream_speaks_first(peer, reach):
    def serve(conn):
        conn.send(b"220 ready\r\n")
        return conn.read_exactly(6)
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        assert visitor.read_exactly(11) == b"220 ready\r\n"
        visitor.send(b"QUIT\r\n")
        assert ending(visitor) == (b"", "end")
    assert upstream.tell() == b"QUIT\r\n"


# -- resets ---------------------------------------------------------------------------------------

def test_reset_by_the_visitor(peer, reach):
    upstream = peer(ending)
    with dial(*reach.tcp(upstream.port)) as visitor:
        visitor.send(b"hello")
        eventually(lambda: upstream.accepted, "the upstream accepts")
        visitor.abort()
    assert upstream.tell()[1] == "reset"


def test_reset_by_the_upstream(peer, reach):
    def serve(conn):
        got = conn.read_exactly(5)
        conn.abort()
        return got
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        visitor.send(b"hello")
        assert ending(visitor) == (b"", "reset")
    assert upstream.tell() == b"hello"


def test_reset_at_once_by_the_upstream(peer, reach):
    upstream = peer(lambda conn: conn.abort())
    where = reach.tcp(upstream.port)
    for _ in range(10):
        try:
            with dial(*where) as visitor:
                assert ending(visitor) == (b"", "reset")
        except ConnectionResetError:
            pass  # so soon that connecting itself is told


def test_close_with_unread_bytes_is_a_reset(peer, reach):
    """The kernel resets when a program closes without having read all; that too is passed on."""
    def serve(conn):
        select.select([conn.sock], [], [], HANG)
        conn.close()
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        visitor.send(b"never read")
        assert ending(visitor) == (b"", "reset")


def test_reset_by_the_visitor_in_mid_download(peer, reach):
    def serve(conn):
        block = bytes(65536)
        try:
            while True:
                conn.send(block)
        except (ConnectionResetError, BrokenPipeError) as error:
            return type(error)
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        visitor.read_exactly(MIB)
        visitor.abort()
    assert upstream.tell() in (ConnectionResetError, BrokenPipeError)


def test_reset_by_the_upstream_in_mid_upload(peer, reach):
    def serve(conn):
        conn.read_exactly(MIB)
        conn.abort()
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        block = bytes(65536)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                visitor.send(block)


def test_reset_after_the_visitors_end(peer, reach):
    """A visitor that half-closed and then vanished: the upstream finds out when it answers."""
    gone = threading.Event()

    def serve(conn):
        got = ending(conn)
        gone.wait(HANG)
        try:
            while True:
                conn.send(bytes(65536))
        except (ConnectionResetError, BrokenPipeError):
            return got
    upstream = peer(serve)
    with dial(*reach.tcp(upstream.port)) as visitor:
        visitor.send(b"bye")
        visitor.half_close()
        eventually(lambda: upstream.accepted, "the upstream accepts")
        visitor.abort()
        gone.set()
    assert upstream.tell() == (b"bye", "end")


# -- order ----------------------------------------------------------------------------------------

def send_randomly(conn, size, seed):
    """Sends size bytes in pieces of every size; returns their digest."""
    rng, digest, left = random.Random(seed), hashlib.sha256(), size
    while left:
        piece = rng.randbytes(min(left, rng.choice((1, 7, 100, 1460, 4096, 65535, 200_000))))
        conn.send(piece)
        digest.update(piece)
        left -= len(piece)
    conn.half_close()
    return digest.hexdigest()


def digest_of_all(conn, seed):
    rng, digest, size = random.Random(seed), hashlib.sha256(), 0
    while data := conn.sock.recv(rng.choice((1, 10, 1000, 65536, 1 << 18))):
        digest.update(data)
        size += len(data)
    return size, digest.hexdigest()


def both_ways(conn, size, seed):
    """(digest sent, size and digest received), both directions moving at the same time."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send_randomly, conn, size, seed)
        got = digest_of_all(conn, seed)
        return sent.result(), got


def test_order_both_ways_at_once(peer, reach):
    size = BULK // 6
    upstream = peer(lambda conn: both_ways(conn, size, 1))
    where = reach.tcp(upstream.port)

    def visit(seed):
        with dial(*where) as visitor:
            return both_ways(visitor, size, seed)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        visits = list(pool.map(visit, range(100, 104)))
    serves = [upstream.tell() for _ in visits]
    assert {got for _, got in visits} == {(size, serves[0][0])}
    assert sorted(got for _, got in serves) == sorted((size, sent) for sent, _ in visits)


def test_byte_by_byte(peer, reach):
    upstream = peer(echo)
    with dial(*reach.tcp(upstream.port)) as visitor:
        for i in range(500):
            visitor.send(bytes([i & 255]))
            assert visitor.read_exactly(1) == bytes([i & 255])


# -- slowness -------------------------------------------------------------------------------------

def until_blocked(conn, data):
    """Sends as much of data as is taken; returns how much, once nothing moved for a second."""
    view, sent = memoryview(data), 0
    while sent < len(data) and select.select([], [conn.sock], [], 1)[1]:
        conn.sock.setblocking(False)
        try:
            sent += conn.sock.send(view[sent:sent + 65536])
        except BlockingIOError:
            pass
        conn.sock.settimeout(HANG)
    return sent


def small_buffers(conn):
    """So that the kernel's own buffers hide nothing."""
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)


@pytest.fixture(name="roomy", scope="module")
def _roomy():
    return random.Random(5).randbytes(48 * MIB)


def test_visitor_that_does_not_read(peer, reach, roomy):
    """The upstream is held back instead of anybody buffering; another visitor is not; in the end
    every byte comes."""
    def serve(conn):
        if conn.read_exactly(1) == b"e":
            return echo(conn)
        small_buffers(conn)
        sent = until_blocked(conn, roomy)
        told.put(sent)
        conn.send(memoryview(roomy)[sent:])
        conn.half_close()
        return ending(conn)
    told = queue.Queue()
    upstream = peer(serve)
    where = reach.tcp(upstream.port)
    with dial(*where, receive_buffer=65536) as slow, dial(*where) as other:
        slow.send(b"d")
        assert told.get(timeout=HANG) < len(roomy) * 2 // 3
        other.send(b"e" + roomy[:MIB])
        assert other.read_exactly(MIB) == roomy[:MIB]
        assert hashlib.sha256(ending(slow)[0]).digest() == hashlib.sha256(roomy).digest()


def test_upstream_that_does_not_read(peer, reach, roomy):
    go = threading.Event()

    def serve(conn):
        if conn.read_exactly(1) == b"e":
            return echo(conn)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        go.wait(HANG)
        return ending(conn)
    upstream = peer(serve)
    where = reach.tcp(upstream.port)
    with dial(*where) as fast, dial(*where) as other:
        small_buffers(fast)
        fast.send(b"u")
        sent = until_blocked(fast, roomy)
        assert sent < len(roomy) * 2 // 3
        other.send(b"e" + roomy[:MIB])
        assert other.read_exactly(MIB) == roomy[:MIB]
        other.half_close()
        go.set()
        fast.send(memoryview(roomy)[sent:])
        fast.half_close()
        results = [upstream.tell(), upstream.tell()]
    assert (roomy, "end") in results


def test_memory_stays_bounded(start, peer, roomy):
    """Many visitors who do not read cost their windows, not what the upstream would send."""
    server = start.server("--tcp-ports", port_range(8))
    upstream = peer(lambda conn: conn.send(roomy))
    client = start.tcp(server, upstream.port)
    before = {p: p.rss() for p in (server.proc, client.proc)}
    visitors = [start.keep(dial("127.0.0.1", client.port, receive_buffer=65536))
                for _ in range(20)]
    for visitor in visitors:
        visitor.read_exactly(MIB)
    if not SANITIZED:  # 20 times 48 MiB wait upstream
        for proc, rss in before.items():
            assert proc.rss() - rss < 64 * MIB
    assert server.proc.alive() and client.proc.alive()


# -- numbers --------------------------------------------------------------------------------------

def test_five_hundred_at_once(peer, reach):
    """All open at the same time, each with its own bytes."""
    upstream = peer(echo)
    where = reach.tcp(upstream.port)
    count = 500
    visitors = [dial(*where) for _ in range(count)]
    try:
        words = [b"%d " % i * 100 for i in range(count)]
        for visitor, word in zip(visitors, words):
            visitor.send(word)
        for visitor, word in zip(visitors, words):
            assert visitor.read_exactly(len(word)) == word
        assert upstream.accepted == count
        for visitor in visitors:
            visitor.half_close()
        assert {ending(visitor) for visitor in visitors} == {(b"", "end")}
    finally:
        for visitor in visitors:
            visitor.close()


def test_short_connections_leave_nothing(start, peer):
    """Connections come and go by the hundred; descriptors come back."""
    server = start.server("--tcp-ports", port_range(8))
    upstream = peer(echo)
    client = start.tcp(server, upstream.port)

    def visit(i):
        with dial("127.0.0.1", client.port) as visitor:
            visitor.send(b"%08d" % i)
            assert visitor.read_exactly(8) == b"%08d" % i
            if i % 3 == 0:
                visitor.abort()
            elif i % 3 == 1:
                visitor.half_close()
                assert visitor.at_end()
    visit(0)
    resting = [proc.descriptors() for proc in (server.proc, client.proc)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(600)))
    # Connections between the two ends may have been added, and stay for a while.
    eventually(lambda: all(proc.descriptors() <= before + 8 for proc, before in
                           zip((server.proc, client.proc), resting)), "descriptors come back")


# -- upstreams ------------------------------------------------------------------------------------

def ends_unanswered(port):
    try:
        with dial("127.0.0.1", port) as visitor:
            return ending(visitor)[0] == b""
    except ConnectionResetError:
        return True  # so soon that connecting itself is told


def test_upstream_that_is_not_up(start, port_edge):
    """The tunnel is there, its visitors are sent away, and once the upstream is up they are not."""
    port = free_port()
    client = start.tcp(port_edge, port)
    for _ in range(5):
        assert ends_unanswered(client.port)
    assert client.proc.alive()
    eventually(lambda: any("refused" in line for line in client.proc.err() + client.proc.out()),
               "a word about the upstream")
    with socket.create_server(("127.0.0.1", port)) as upstream:
        with dial("127.0.0.1", client.port) as visitor:
            conn = upstream.accept()[0]
            with conn:
                visitor.send(b"now")
                assert conn.recv(3) == b"now"
    assert ends_unanswered(client.port)


def test_upstream_on_a_socket_file(start, port_edge, folder):
    path = folder / "upstream.sock"
    client = start.tcp(port_edge, f"unix:{path}")
    assert ends_unanswered(client.port)
    with socket.socket(socket.AF_UNIX) as upstream:
        upstream.bind(str(path))
        upstream.listen()
        data = os.urandom(MIB)
        with dial("127.0.0.1", client.port) as visitor:
            conn = upstream.accept()[0]
            with conn, concurrent.futures.ThreadPoolExecutor(1) as pool:
                sending = pool.submit(lambda: (visitor.send(data), visitor.half_close()))
                got = bytearray()
                while part := conn.recv(65536):
                    got += part
                sending.result()
                assert got == data
                conn.sendall(b"done")
            assert ending(visitor) == (b"done", "end")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_upstream_by_host_and_port(start, port_edge, peer, host):
    upstream = peer(echo, host=host.strip("[]").replace("localhost", "127.0.0.1"))
    client = start.tcp(port_edge, f"{host}:{upstream.port}")
    with dial("127.0.0.1", client.port) as visitor:
        visitor.send(b"there")
        assert visitor.read_exactly(5) == b"there"


@pytest.mark.parametrize("upstream", ["0", "65536", "host", "host:", ":80x", "ftp://host:80",
                                      "unix:", ""])
def test_upstream_that_is_none(start, port_edge, upstream):
    client = start.tcp(port_edge, upstream, wait=False)
    assert client.proc.wait() == 2
    assert len(client.proc.err()) >= 1 and not client.proc.out()
