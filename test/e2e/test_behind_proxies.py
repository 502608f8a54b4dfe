# SPDX-License-Identifier: Apache-2.0
"""The link and its lanes behind proxies as people have them, and behind some that nobody wants."""

import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import threading

import pytest

from harness import HANG, SANITIZED, eventually, ws
from harness.net import Listener, dial, free_port, tls_trusting
from harness.proxy import ConnectProxy
from harness.stack import app_bytes, need, sha256

BIG = (3 if SANITIZED else 12) << 20
LANE = b"GET /__tunnel__/lane "
LINK = b"GET /__tunnel__/link "
ACCEPTED = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tunnel-lane.v1\r\n"
            b"Connection: Upgrade\r\n\r\n")


class Way:
    """One connection that goes through a Watch."""

    def __init__(self, conn, out):
        self.ends = (conn.sock, out)
        self.kind = "other"
        self.up = self.down = 0
        self.open = True

    def cut(self):
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Watch(Listener):
    """Stands in front of the server and sees what each connection is for, and how much it takes.

    odd(watch, way, conn, out) is what becomes of a connection that asks for a lane.
    """

    def __init__(self, port, odd=None):
        self.behind = port
        self.odd = odd
        self.ways = []
        self.frozen = False  # new connections are turned away
        self.gate = threading.Event()  # or wait for this
        self.gate.set()
        super().__init__(self._serve)

    def of(self, kind, is_open=False):
        return [w for w in list(self.ways) if w.kind == kind and (w.open or not is_open)]

    def bulk(self, kind):
        return sum(w.up + w.down for w in self.of(kind))

    def pump(self, way, source, sink, up, most=None):
        """most: bytes that pass before all others are lost."""
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if up:
                    self._look(way, piece)
                    way.up += len(piece)
                else:
                    way.down += len(piece)
                if most is not None:
                    piece, most = piece[:most], max(most - len(piece), 0)
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    @staticmethod
    def _look(way, piece):
        """A proxy may have kept the connection from a request before."""
        if way.kind == "other" and LANE in piece:
            way.kind = "lane"
        elif way.kind == "other" and LINK in piece:
            way.kind = "link"

    def both(self, way, conn, out, down=None):
        back = threading.Thread(target=self.pump, args=(way, out, conn.sock, False, down),
                                daemon=True)
        back.start()
        self.pump(way, conn.sock, out, True)
        back.join()

    def _serve(self, conn):
        self.gate.wait(HANG)
        if self.frozen:
            return
        with socket.create_connection(("127.0.0.1", self.behind)) as out:
            conn.sock.settimeout(None)
            way = Way(conn, out)
            self.ways.append(way)
            try:
                if self.odd:
                    head = conn.read_until(b"\r\n\r\n")
                    self._look(way, head)
                    if way.kind == "lane":
                        self.odd(self, way, conn, (out, head))
                        return
                    out.sendall(head + conn.buffer)
                self.both(way, conn, out)
            finally:
                way.open = False


def ws_upstream(conn):
    """A WebSocket that sends back what it gets."""
    key = conn.read_head().get("sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(
        key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              f"Sec-WebSocket-Accept: {accept}\r\n\r\n")
    while True:
        first, second = conn.read_exactly(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(conn.read_exactly(2 if size == 126 else 8), "big")
        mask = conn.read_exactly(4)
        data = conn.read_exactly(size)
        conn.send(ws.frame(first & 15, bytes(b ^ mask[i & 3] for i, b in enumerate(data)),
                           masked=False))


# -- proxies --------------------------------------------------------------------------------------

def nginx(start, port, behind, pair, extra):
    """extra: (what goes into location, which Upgrade is passed on)."""
    inside, upgrades = extra
    tls = f"ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};" if pair else ""
    return start.nginx(f"""
  map $http_upgrade $up {{ {upgrades} }}
  map $up $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port} {"ssl" if pair else ""}; {tls}
    location / {{
      proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header Upgrade $up;
      proxy_set_header Connection $connection_upgrade; {inside}
    }}
  }}""", port).proc


def await_port(proc, port):
    def up():
        assert proc.alive(), proc.transcript()
        dial("127.0.0.1", port).close()
        return True
    eventually(up, "the proxy listens")
    return proc


def haproxy(start, port, behind, pair, rule):
    base = start.folder_for("haproxy")
    crt = ""
    if pair:
        (base / "both.pem").write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
        crt = f"ssl crt {base}/both.pem"
    (base / "haproxy.cfg").write_text(f"""
global
  log stderr format raw daemon err
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout tunnel 1h
frontend in
  bind 127.0.0.1:{port} {crt}
  {rule}
  default_backend tunnel
backend tunnel
  server one 127.0.0.1:{behind}
""")
    return await_port(start.spawn([need("haproxy"), "-db", "-f", base / "haproxy.cfg"],
                                  name="haproxy"), port)


def caddy(start, port, behind, pair, rule):
    base = start.folder_for("caddy")
    tls = f"tls {pair.cert} {pair.key}" if pair else ""
    (base / "Caddyfile").write_text(f"""
{{
  admin off
  auto_https off
}}
http{"s" if pair else ""}://:{port} {{
  bind 127.0.0.1
  {tls}
  {rule}
  reverse_proxy 127.0.0.1:{behind}
}}
""")
    return await_port(start.spawn(
        [need("caddy"), "run", "--adapter", "caddyfile", "--config", base / "Caddyfile"],
        env=start.env(), name="caddy"), port)


ANY = "default $http_upgrade;"
ONLY_WEBSOCKET = "default ''; websocket websocket;"

# what it is started with, and whether it lets lanes through
PROXIES = {
    "nginx": (nginx, ("proxy_buffering off; proxy_read_timeout 1h;", ANY), True),
    "nginx-defaults": (nginx, ("", ANY), True),
    "nginx-websocket": (nginx, ("", ONLY_WEBSOCKET), False),
    "haproxy": (haproxy, "", True),
    "haproxy-websocket": (
        haproxy, "http-request deny deny_status 400 if { req.hdr(upgrade) -m found } "
        "!{ req.hdr(upgrade) -i websocket }", False),
    "caddy": (caddy, "", True),
    "caddy-websocket": (caddy, """@other {
    header Upgrade *
    not header Upgrade websocket
  }
  respond @other 404""", False),
}


class Stack:
    """A client, a proxy, a watch and a server, and who visits through the proxy."""

    def __init__(self, start, which, pair, authority):
        self.start, self.pair = start, pair
        self.make, self.extra, self.lanes = PROXIES[which]
        self.port = free_port()
        self.tls = tls_trusting(authority.cert) if pair else None
        scheme = "https" if pair else "http"
        self.server = start.server("--public-url", f"{scheme}://tunnel.test:{self.port}",
                                   domain="tunnel.test")
        self.watch = start.keep(Watch(self.server.port))
        self.proxy = self.make(start, self.port, self.watch.port, pair, self.extra)
        self.link = f"ws{'s' if pair else ''}://127.0.0.1:{self.port}"
        self.args = ["--ca", authority.cert] if pair else []

    def client(self, upstream, **kw):
        return self.start.client(self.server, upstream, "--quiet", *self.args, link=self.link, **kw)

    def host(self, label="demo"):
        return f"{label}.tunnel.test:{self.port}"

    def dial(self):
        return dial("127.0.0.1", self.port, tls=self.tls, sni="demo.tunnel.test")

    def restart(self):
        self.proxy.kill()
        self.proxy = self.make(self.start, self.port, self.watch.port, self.pair, self.extra)


@pytest.fixture(name="make", params=["plain", "tls"])
def _make(request, start, authority):
    pair = None
    if request.param == "tls":
        pair = authority.issue("tunnel.test", "*.tunnel.test", "127.0.0.1")
    return lambda which: Stack(start, which, pair, authority)


def transfers(dial_in, host):
    """Small and big ones both ways."""
    body = app_bytes(BIG)
    with dial_in() as conn:
        for _ in range(20):
            assert conn.fetch("GET", "/hello", host).status == 200
        got = conn.fetch("GET", f"/bytes?n={BIG}", host)
        assert sha256(got.body) == sha256(body)
        got = json.loads(conn.fetch("POST", "/echo", host, body=body).body)
        assert (got["bytes"], got["sha256"]) == (BIG, sha256(body))


@pytest.mark.parametrize("which", PROXIES)
def test_a_proxy_in_front(make, which, start, app):
    stack = make(which)
    client = stack.client(app)
    assert client.public() == f"http{'s' if stack.tls else ''}://{stack.host()}"
    with stack.dial() as conn:
        assert conn.fetch("GET", "/hello", stack.host()).status == 200
    if stack.lanes:
        eventually(lambda: any(w.down > 200 for w in stack.watch.of("lane")), "a lane")
    transfers(stack.dial, stack.host())
    stack.client(start.keep(Listener(ws_upstream)).port, subdomain="chat")
    with stack.dial() as conn:
        assert ws.upgrade(conn, stack.host("chat"), "/chat").status == 101
        for size in (1, 126, 70000):
            message = os.urandom(size)
            conn.send(ws.frame(ws.BINARY, message))
            assert ws.read_frame(conn) == (ws.BINARY, message)
    most, least = ("lane", "link") if stack.lanes else ("link", "lane")
    assert stack.watch.bulk(most) > BIG
    assert stack.watch.bulk(least) < BIG // 8
    assert len(stack.watch.of("link")) == 2 and "go on" not in client.proc.text()


@pytest.mark.parametrize("which", PROXIES)
def test_the_proxy_restarts_in_a_download(make, which, app):
    stack = make(which)
    client = stack.client(app)
    # This visitor does not come through the proxy: its own connection is not what is cut.
    with stack.server.dial(receive_buffer=65536) as conn:
        conn.request("GET", f"/bytes?n={BIG}", stack.host())
        assert conn.read_head().status == 200
        got = hashlib.sha256(conn.read_exactly(BIG // 4))
        stack.restart()
        got.update(conn.read_exactly(BIG // 4))
        stack.restart()
        got.update(conn.read_exactly(BIG - 2 * (BIG // 4)))
    assert got.hexdigest() == sha256(app_bytes(BIG))
    assert "go on" in client.proc.text("err")
    with stack.dial() as conn:
        assert conn.fetch("GET", "/hello", stack.host()).status == 200


# -- proxies that nobody wants --------------------------------------------------------------------

def swallow(conn):
    while conn.sock.recv(65536):
        pass


def says(text, then=swallow):
    """A proxy that answers a lane's request by itself."""
    def odd(_watch, _way, conn, _out):
        conn.send(text)
        then(conn)
    return odd


def flood(conn):
    with contextlib.suppress(OSError):
        for _ in range(1000):
            conn.send(os.urandom(1000))
    swallow(conn)


def mirror(conn):
    while piece := conn.sock.recv(65536):
        conn.send(piece)


def endless(conn):
    with contextlib.suppress(OSError):
        while True:
            conn.send(b"X-More: of it\r\n")


def hang_up(conn):
    conn.close()


REFUSALS = {
    "garbage": says(ACCEPTED, flood),
    "mirror": says(ACCEPTED, mirror),
    "closes-after-101": says(ACCEPTED, hang_up),
    "other-101": says(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    "200": says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    "301": says(b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
    "400": says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", hang_up),
    "closes": says(b"", hang_up),
    "endless-head": says(b"HTTP/1.1 101 Switching Protocols\r\n", endless),
    "no-http": says(b"\x15\x03\x01\x00\x02\x02\x46"),
}


def one_way(watch, way, conn, out):
    """The request and what follows goes on; the server's bytes stay here, but for its 101."""
    sock, head = out
    sock.sendall(head)
    watch.both(way, conn, sock, down=len(ACCEPTED))


SILENCES = {
    "101-and-silence": says(ACCEPTED),
    "no-answer": says(b""),
    "half-a-head": says(b"HTTP/1.1 101 Switching"),
    "keeps-the-answers": one_way,
}


class Odd:
    """A client behind a watch that does something odd to lanes."""

    def __init__(self, start, app, odd, *args):
        self.server = start.server("--verbose", *args)
        self.watch = start.keep(Watch(self.server.port, odd))
        self.client = start.client(self.server, app, "--quiet", *args,
                                   link=f"ws://127.0.0.1:{self.watch.port}")

    def transfers(self):
        transfers(self.server.dial, self.server.name("demo"))

    def is_well(self):
        """Whatever became of lanes, the link was not touched."""
        assert len(self.watch.of("link", True)) == len(self.watch.of("link")) == 1
        assert not self.watch.failures
        assert self.client.proc.err() == []


@pytest.mark.parametrize("which", REFUSALS)
def test_a_lane_that_is_refused(start, app, which):
    odd = Odd(start, app, REFUSALS[which])
    assert odd.server.status("/hello") == 200
    eventually(lambda: odd.watch.of("lane") and not odd.watch.of("lane", True), "given up")
    odd.transfers()
    assert len(odd.watch.of("lane")) < 4  # and not again at once
    odd.is_well()


def test_lanes_that_hang_hold_nothing_up(start, app):
    """All at a time, as each of them takes as long as a lane may take to join."""
    stages = {which: Odd(start, app, odd) for which, odd in SILENCES.items()}
    for which, stage in stages.items():
        assert stage.server.status("/hello") == 200
        eventually(lambda s=stage: s.watch.of("lane"), "an attempt")
        for _ in range(20):
            assert stage.server.status("/hello") == 200
        assert len(stage.watch.of("lane", True)) == 1, f"{which} had to be given up first"
    for which, stage in stages.items():
        stage.transfers()
        eventually(lambda s=stage: not s.watch.of("lane", True), f"{which} is given up")
        assert stage.server.status("/hello") == 200
        assert len(stage.watch.of("lane")) < 4
        stage.is_well()


def test_a_lane_that_falls_silent(start, app):
    """Enough comes through to join and to be proven; then nothing. It is not tried again soon."""
    def odd(watch, way, conn, out):
        out[0].sendall(out[1])
        watch.both(way, conn, out[0], down=4000)
    stage = Odd(start, app, odd, "--link-timeout", "1")
    for _ in range(5):
        stage.transfers()
    assert len(stage.watch.of("lane")) < 4 and stage.watch.bulk("lane") > 4000
    stage.is_well()


def test_lanes_that_are_cut_soon(start, app):
    def odd(watch, way, conn, out):
        out[0].sendall(out[1])
        back = threading.Thread(target=watch.pump, args=(way, out[0], conn.sock, False),
                                daemon=True)
        back.start()
        while way.up < 100000:
            piece = conn.sock.recv(65536)
            if not piece:
                break
            way.up += len(piece)
            out[0].sendall(piece)
        way.cut()
        back.join()
    stage = Odd(start, app, odd)

    def three_are_cut():
        assert sha256(stage.server.get(f"/bytes?n={BIG // 4}").body) == want
        return len(stage.watch.of("lane")) >= 3 and not stage.watch.of("lane", True)
    want = sha256(app_bytes(BIG // 4))
    # The app's connections are used again: a lane that was lost is replaced for them too.
    eventually(three_are_cut, "three lanes are cut", pause=0)
    for _ in range(3):
        stage.transfers()
    assert len(stage.watch.of("lane")) < 8
    stage.is_well()


# -- lanes where nothing is odd -------------------------------------------------------------------

@pytest.fixture(name="plain")
def _plain(start, app):
    return Odd(start, app, None)


def pouring(stage, name="pour"):
    conn = stage.server.dial(receive_buffer=65536)
    conn.request("GET", f"/pour?id={name}", stage.server.name("demo"))
    assert conn.read_head().status == 200
    conn.read_exactly(1 << 20)
    return conn


def read_until(conn, probe, what):
    """Reads on, for what happens only while bytes flow."""
    def turn():
        conn.read_exactly(1 << 18)
        return probe()
    eventually(turn, what, pause=0)


def test_a_lane_is_cut_and_the_link_lives(plain):
    with pouring(plain) as conn:
        for _ in range(2):
            read_until(conn, lambda: any(w.up > 100000 for w in plain.watch.of("lane", True)),
                       "a lane carries it")
            seen = plain.watch.bulk("link")
            # The next lane would come at once.
            plain.watch.gate.clear()
            plain.watch.of("lane", True)[0].cut()
            read_until(conn, lambda before=seen: plain.watch.bulk("link") > before + 100000,
                       "the link carries it")
            plain.watch.gate.set()
            assert plain.server.status("/hello") == 200
    plain.is_well()


def test_the_link_is_cut_and_a_lane_lives(plain):
    with pouring(plain) as conn:
        read_until(conn, lambda: any(w.up > 100000 for w in plain.watch.of("lane", True)),
                   "a lane carries it")
        plain.watch.frozen = True
        plain.watch.of("link")[0].cut()
        eventually(lambda: not plain.watch.of("link", True), "cut")
        conn.read_exactly(8 << 20)
        assert plain.server.status("/hello") == 200
        assert len(plain.watch.of("lane", True)) == len(plain.watch.of("lane")) == 1
        plain.watch.frozen = False
        eventually(lambda: plain.watch.of("link", True), "the link again")
        conn.read_exactly(8 << 20)
        assert len(plain.watch.of("lane", True)) == len(plain.watch.of("lane")) == 1
    eventually(lambda: "go on" in plain.client.proc.text("err"), "the return")
    assert "lost its connection" not in plain.server.proc.text("err")


def test_no_lanes(start, app):
    server = start.server()
    watch = start.keep(Watch(server.port))
    start.client(server, app, "--quiet", "--lanes", "0", link=f"ws://127.0.0.1:{watch.port}")
    transfers(server.dial, server.name("demo"))
    assert not watch.of("lane") and len(watch.of("link")) == 1


@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_lane_over_tls(start, app, authority, by_proxy):
    """wss to the server's own TLS, by way of an outbound proxy too: two connections, no more."""
    server = start.server(tls=[authority.issue("edge.invalid", "127.0.0.1")])
    watch = start.keep(Watch(server.tls_port))
    args, host = ["--ca", authority.cert], "127.0.0.1"
    if by_proxy:
        proxy = start.keep(ConnectProxy())
        args += ["--proxy", f"http://127.0.0.1:{proxy.port}"]
        host = "edge.invalid"
    start.client(server, app, "--quiet", *args, link=f"wss://{host}:{watch.port}")
    assert server.status("/hello") == 200
    eventually(lambda: len(watch.ways) == 2 and watch.ways[1].down > 200, "a lane")
    transfers(server.dial, server.name("demo"))
    link, lane = watch.ways
    assert lane.up + lane.down > BIG and link.up + link.down < BIG // 8
    if by_proxy:
        assert proxy.targets == [f"edge.invalid:{watch.port}"] * 2 and not proxy.other


def test_a_lane_through_a_connect_proxy(start, app):
    server = start.server()
    watch = start.keep(Watch(server.port))
    proxy = start.keep(ConnectProxy(user="ann", password="pw"))
    start.client(server, app, "--quiet", "--proxy", f"http://ann:pw@127.0.0.1:{proxy.port}",
                 link=f"ws://127.0.0.1:{watch.port}")
    assert server.status("/hello") == 200
    transfers(server.dial, server.name("demo"))
    assert watch.bulk("lane") > BIG and len(proxy.targets) == 2


def test_a_client_that_sleeps_longer_than_the_link_may_be_silent(start, app):
    stage = Odd(start, app, None, "--link-timeout", "1")
    with stage.server.dial(receive_buffer=65536) as conn:
        conn.request("GET", f"/bytes?n={BIG}", stage.server.name("demo"))
        assert conn.read_head().status == 200
        got = hashlib.sha256(conn.read_exactly(BIG // 3))
        for turn in (1, 2):
            stage.client.proc.deliver(signal.SIGSTOP)
            stage.server.proc.wait_line("lost its connection", kind="err", count=turn)
            stage.client.proc.deliver(signal.SIGCONT)
            got.update(conn.read_exactly(BIG // 3))
        got.update(conn.read_exactly(BIG - 3 * (BIG // 3)))
    assert got.hexdigest() == sha256(app_bytes(BIG))
    assert stage.server.status("/hello") == 200
