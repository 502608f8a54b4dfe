# SPDX-License-Identifier: Apache-2.0
"""Bulk, concurrency and memory: what each process may cost at most."""

import hashlib
import json
import selectors
import socket
import subprocess
import threading
import time

import pytest

from harness import GIB, HANG, MIB, SANITIZED, eventually
from harness.net import Conn, dial
from harness.proc import clean_env

pytestmark = pytest.mark.heavy

BULK = 64 * MIB if SANITIZED else GIB


@pytest.fixture(name="big", scope="session")
def _big(session_folder):
    """A file of 1 GiB, no two blocks of it alike, and its SHA-256."""
    root = session_folder / "bulk"
    root.mkdir()
    (root / "index.html").write_text("small\n")
    path = root / "big.bin"
    block = bytearray(hashlib.shake_256(b"e2e").digest(MIB))
    digest = hashlib.sha256()
    with open(path, "wb") as out:
        for n in range(BULK // MIB):
            block[:8] = n.to_bytes(8, "big")
            out.write(block)
            digest.update(block)
    yield path, digest.hexdigest()
    path.unlink()


class Memory:
    """What processes had before, and how far they may go."""

    def __init__(self, *procs):
        self.procs = procs
        self.before = [p.rss() for p in procs]
        for proc in procs:
            proc.reset_peak()

    def grown(self):
        return [p.peak_rss() - b for p, b in zip(self.procs, self.before)]

    def within(self, limit, what):
        for proc, grown in zip(self.procs, self.grown()):
            assert SANITIZED or grown <= limit, (
                f"{proc.name} grew by {grown / MIB:.2f} MiB over {what}: at most "
                f"{limit / MIB:.2f} are allowed")


def warm(server, label="demo"):
    """Small traffic first: libraries load, pools fill."""
    for _ in range(50):
        assert server.status("/", label) in (200, 404)  # the Node app has no index


def shell(command, **env):
    done = subprocess.run(["bash", "-c", "set -o pipefail; " + command], env=clean_env(**env),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=10 * HANG,
                          check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def curl_line(server, rest):
    return (f"curl -q -sS --http1.1 --noproxy '*' --connect-to ::127.0.0.1:{server.port} {rest}")


def test_1_gib_down(start, big):
    path, digest = big
    server = start.server()
    client = start.client(server, start.nginx_files(path.parent), "--quiet")
    warm(server)
    memory = Memory(server.proc, client.proc)
    got = shell(curl_line(server, server.url(f"/{path.name}")) + " | sha256sum")
    assert got.split()[0] == digest
    memory.within(16 * MIB, "1 GiB down")


def test_1_gib_up(start, app, big):
    path, digest = big
    server = start.server()
    client = start.client(server, app, "--quiet")
    warm(server)
    memory = Memory(server.proc, client.proc)
    got = json.loads(shell(curl_line(server, f"-T {path} {server.url('/echo')}")))
    assert (got["bytes"], got["sha256"]) == (BULK, digest)
    memory.within(16 * MIB, "1 GiB up")


def test_both_ways_at_once(start, app, big):
    """An eighth of it down and up at the same time, with small requests in between."""
    path, _ = big
    server = start.server()
    client = start.client(server, app, "--quiet")
    warm(server)
    memory = Memory(server.proc, client.proc)
    size = BULK // 8
    down = subprocess.Popen(["bash", "-c", curl_line(server, server.url(f"/bytes?n={size}")) +
                             " | wc -c"], stdout=subprocess.PIPE, env=clean_env())
    up = subprocess.Popen(["bash", "-c", f"head -c {size} {path} | " + curl_line(
        server, f"-T - {server.url('/echo')}")], stdout=subprocess.PIPE, env=clean_env())
    served = 0
    while down.poll() is None or up.poll() is None:
        assert server.status("/hello") == 200
        served += 1
    assert int(down.communicate()[0]) == size
    assert json.loads(up.communicate()[0])["bytes"] == size
    assert served > 0
    memory.within(16 * MIB, "both ways at once")


@pytest.mark.parametrize("visitors", [1, 8])
def test_slow_visitor(start, big, visitors):
    """Each slow visitor on a big download costs each process at most 1 MiB, and nobody waits
    for them: neither visitors of the same client nor of another one."""
    path, _ = big
    nginx = start.nginx_files(path.parent)
    server = start.server()
    client = start.client(server, nginx, "--quiet")
    other = start.client(server, nginx, "--quiet", subdomain="other")
    warm(server)
    warm(server, "other")
    memory = Memory(server.proc, client.proc)
    slow = []
    stop = threading.Event()
    try:
        for _ in range(visitors):
            conn = dial("127.0.0.1", server.port, receive_buffer=4096)
            slow.append(conn)
            conn.request("GET", f"/{path.name}", server.name("demo"))
            head = conn.read_head()
            assert head.status == 200 and head.get("content-length") == str(BULK)

        def sip():  # a few KiB a second: they are slow, not stopped
            while not stop.wait(0.1):
                for conn in slow:
                    conn.read_exactly(1000)
        sipping = threading.Thread(target=sip, daemon=True)
        sipping.start()
        for round_ in range(100):
            assert server.status("/" if round_ % 2 else "/nothing") == (200 if round_ % 2 else 404)
            assert server.status("/", "other") == 200
        memory.within(visitors * MIB, f"{visitors} slow visitors")
        # And bulk for others, at the same time, through the same client.
        for label in ("demo", "other"):
            got = shell(curl_line(server, f"-r 0-{32 * MIB - 1} "
                                          f"{server.url(f'/{path.name}', label)}") + " | wc -c")
            assert int(got) == 32 * MIB
        assert sipping.is_alive()
        stop.set()
        sipping.join(HANG)
    finally:
        stop.set()
        for conn in slow:
            conn.abort()
    assert other.proc.alive()
    eventually(lambda: server.status("/") == 200, "goes on")


def test_visitors_that_never_read(start, big):
    """Two hundred of them stop dead: the others are served, and memory stays in bounds."""
    path, _ = big
    server = start.server()
    client = start.client(server, start.nginx_files(path.parent), "--quiet")
    warm(server)
    memory = Memory(server.proc, client.proc)
    stuck = []
    try:
        for _ in range(200):
            conn = dial("127.0.0.1", server.port, receive_buffer=4096)
            conn.request("GET", f"/{path.name}", server.name("demo"))
            stuck.append(conn)
        for conn in stuck:
            assert conn.read_head().status == 200
        for _ in range(50):
            assert server.status("/nothing") == 404
        memory.within(200 * MIB, "200 stuck visitors")
    finally:
        for conn in stuck:
            conn.abort()
    eventually(lambda: server.status("/nothing") == 404, "goes on")


def test_1000_concurrent_requests(start):
    """All are held by the app until the last one is there: they really are concurrent. Both
    programs start with the 1,024 descriptors that a shell gives them."""
    count = 1000
    app = start.node()
    server = start.server(soft_files=1024)
    client = start.client(server, app, "--quiet", soft_files=1024)
    warm(server)
    memory = Memory(server.proc, client.proc)
    conns = []
    try:
        for _ in range(count):
            conn = server.dial()
            conns.append(conn)
            conn.request("GET", f"/barrier?n={count}", server.name("demo"))
        eventually(lambda: app.stats()["waiting"] in (0, count), "all of them at the app")
        for number, conn in enumerate(conns):
            got = conn.read_response()
            assert (got.status, got.body) == (200, b"hello\n"), number
        memory.within(64 * MIB, "1,000 concurrent requests")
        # Once more on the same connections.
        for conn in conns:
            conn.request("GET", f"/barrier?n={count}", server.name("demo"))
        for conn in conns:
            assert conn.read_response().status == 200
    finally:
        for conn in conns:
            conn.close()
    assert server.status("/hello") == 200


def test_1000_concurrent_downloads(start, app):
    """A thousand bodies at once, each whole and its own."""
    server = start.server()
    start.client(server, app, "--quiet")
    selector = selectors.DefaultSelector()
    wanted = {}
    for n in range(1000):
        size = 20000 + n
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=HANG)
        conn = Conn(sock)
        conn.request("GET", f"/bytes?n={size}", server.name("demo"), [("Connection", "close")])
        sock.setblocking(False)
        wanted[sock] = (size, bytearray())
        selector.register(sock, selectors.EVENT_READ)
    deadline = time.monotonic() + 3 * HANG
    while wanted:
        assert time.monotonic() < deadline, f"{len(wanted)} downloads never ended"
        for key, _ in selector.select(1):
            size, got = wanted[key.fileobj]
            data = key.fileobj.recv(1 << 16)
            got += data
            if not data:
                head, _, body = bytes(got).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ") and len(body) == size
                selector.unregister(key.fileobj)
                del wanted[key.fileobj]
                key.fileobj.close()


def test_memory_does_not_creep(start, app):
    """Ten thousand small requests leave both processes as they were after the first thousand."""
    server = start.server()
    client = start.client(server, app, "--quiet")

    def thousands(count):
        with server.dial() as conn:
            for n in range(count * 1000):
                if n % 100 == 0:
                    with server.dial() as fresh:
                        fresh.fetch("POST", "/echo", server.name("demo"), body=b"x" * 100)
                conn.request("GET", "/hello", server.name("demo"))
                assert conn.read_response().status == 200
    thousands(1)
    memory = Memory(server.proc, client.proc)
    thousands(3 if SANITIZED else 9)
    memory.within(2 * MIB, "9,000 more requests")
