# SPDX-License-Identifier: Apache-2.0
"""TLS tunnels by name: bytes that pass untouched, TLS that ends at the client, and names that are
nobody's."""

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import struct

import pytest

from harness import CLIENT_BIN, HANG, MIB, SANITIZED, eventually
from harness.net import Conn, Listener, dial, free_port, tls_trusting
from harness.proc import run
from harness.proxy import Tap
from harness.stack import Client, app_bytes, curl, need, sha256
from harness.tls import Authority

BULK = (4 if SANITIZED else 24) * MIB
UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"


# --- a site behind a TLS tunnel -------------------------------------------------------------------

class Site:
    """nginx with TLS and HTTP/2 in front of the app, with a certificate of its own authority."""

    def __init__(self, start, folder, app, *names):
        self.authority = Authority(folder / "site-ca", name="the site's CA")
        self.pair = self.authority.issue(*names)
        self.port = free_port()
        start.nginx(f"""
  server {{
    listen 127.0.0.1:{self.port} ssl http2 backlog=1024;
    ssl_certificate {self.pair.cert}; ssl_certificate_key {self.pair.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_client_certificate {self.authority.cert}; ssl_verify_client optional;
    location = /who {{ return 200 "$ssl_client_verify $ssl_client_s_dn $ssl_server_name\\n"; }}
    location / {{
      proxy_pass http://127.0.0.1:{app.port}; proxy_http_version 1.1;
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}""", self.port)

    def context(self, *protocols):
        made = tls_trusting(self.authority.cert)
        if protocols:
            made.set_alpn_protocols(list(protocols))
        return made

    def holds(self, conn):
        """Whether this connection's other end has the site's certificate."""
        return conn.sock.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
            self.pair.cert.read_text())


@pytest.fixture(name="site", scope="module")
def _site(session_start, session_folder, app):
    return Site(session_start, session_folder, app, "secure.localhost", "*.wild.localhost",
                "*.ports.localhost", "both.localhost", "app.example.test")


def tls_client(start, server, upstream, name, *args, **kw):
    return start.program_client(server, ["tls", str(upstream), *args], subdomain=name, **kw)


@pytest.fixture(name="secure", scope="module")
def _secure(session_start, edge, site):
    """The site published as secure on the shared server."""
    return tls_client(session_start, edge, site.port, "secure")


@pytest.fixture(name="door", params=["tls", "plain"])
def _door(request, edge, secure):
    """A port of the shared server where visitors come: the one for TLS, or the other one."""
    del secure
    return edge.tls_port if request.param == "tls" else edge.port


def visit(port, name, context, **kw):
    return dial("127.0.0.1", port, tls=context, sni=name, **kw)


def hello_for(name):
    """A ClientHello as OpenSSL sends it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    obj = tls_trusting().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        obj.do_handshake()
    return outgoing.read()


class ByHand:
    """TLS over a socket where every byte goes through our hands."""

    def __init__(self, port, name, context, send_hello):
        self.conn = dial("127.0.0.1", port)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.obj = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.obj.do_handshake()
        send_hello(self.conn, self.outgoing.read())
        self.run(self.obj.do_handshake)

    def run(self, what, *args):
        while True:
            try:
                done = what(*args)
            except ssl.SSLWantReadError:
                done = None
                want = True
            else:
                want = False
            if self.outgoing.pending:
                self.conn.send(self.outgoing.read())
            if not want:
                return done
            data = self.conn.sock.recv(65536)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def fetch(self, target, host):
        self.run(self.obj.write, f"GET {target} HTTP/1.1\r\nHost: {host}\r\n"
                                 "Connection: close\r\n\r\n".encode())
        return self.rest()

    def rest(self):
        """What comes until the other end ends properly."""
        data = b""
        try:
            while part := self.run(self.obj.read, 65536):
                data += part
        except ssl.SSLZeroReturnError:
            pass
        return data

    def end(self):
        """Our close_notify, and the end of our direction."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.obj.unwrap()
        self.conn.send(self.outgoing.read())
        self.conn.half_close()

    def close(self):
        self.conn.close()


def whole(conn, hello):
    conn.send(hello)


def byte_by_byte(conn, hello):
    for value in hello:
        conn.send(bytes([value]))


def records(size):
    """The hello in records of so many bytes."""
    def send(conn, hello):
        kind, message = hello[:3], hello[5:]
        assert len(message) == struct.unpack("!H", hello[3:5])[0]
        conn.send(b"".join(kind + struct.pack("!H", len(message[at:at + size])) +
                           message[at:at + size] for at in range(0, len(message), size)))
    send.__name__ = f"records_of_{size}"
    return send


# --- passing through ------------------------------------------------------------------------------

@pytest.mark.parametrize("protocols, chosen", [
    ((), None), (("http/1.1",), "http/1.1"), (("h2",), "h2"), (("h2", "http/1.1"), "h2")])
def test_the_visitor_meets_the_site_itself(door, site, protocols, chosen):
    with visit(door, "secure.localhost", site.context(*protocols)) as conn:
        assert site.holds(conn)
        assert conn.sock.selected_alpn_protocol() == chosen
        if chosen != "h2":
            assert conn.fetch("GET", "/bytes?n=100000", "secure.localhost").body == \
                app_bytes(100000)


def test_the_name_is_told_to_people(secure, edge):
    assert secure.public() == f"tls://secure.localhost:{edge.tls_port}"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_curl(door, edge, site, version, http):
    got = edge.curl("/bytes?n=300000", http, "--cacert", site.authority.cert, f"--tlsv{version}",
                    "--tls-max", version, "-w", "%{stderr}%{http_version}", "--connect-to",
                    f"secure.localhost::127.0.0.1:{door}", label="secure", tls=True)
    assert got.stdout == app_bytes(300000), got.stderr
    assert got.stderr.endswith(b"2" if http == "--http2" else b"1.1")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl(door, site, version):
    got = run([need("openssl"), "s_client", "-connect", f"127.0.0.1:{door}", "-servername",
               "SECURE.localhost", version, "-alpn", "h2,http/1.1", "-CAfile",
               site.authority.cert, "-verify_return_error", "-verify_hostname",
               "secure.localhost"], input=b"", timeout=HANG)
    text = (got.stdout + got.stderr).decode(errors="replace")
    assert got.returncode == 0, text
    assert "ALPN protocol: h2" in text
    assert "Verification: OK" in text


@pytest.mark.parametrize("send_hello", [whole, byte_by_byte, records(1), records(7), records(100)],
                         ids=lambda f: f.__name__)
def test_a_hello_in_pieces(door, site, send_hello):
    by_hand = ByHand(door, "secure.localhost", site.context(), send_hello)
    assert by_hand.obj.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
        site.pair.cert.read_text())
    assert b"200 OK" in by_hand.fetch("/hello", "secure.localhost")
    by_hand.close()


def test_sessions_resume(door, site):
    context = site.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with visit(door, "secure.localhost", context) as conn:
        assert conn.fetch("GET", "/hello", "secure.localhost").status == 200
        session = conn.sock.session
    sock = socket.create_connection(("127.0.0.1", door), timeout=HANG)
    with context.wrap_socket(sock, server_hostname="secure.localhost", session=session) as again:
        assert again.session_reused


def test_the_visitors_certificate_reaches_the_site(door, site, folder):
    mine = Authority(folder / "others").issue("visitor.test", usage="clientAuth")
    known = site.authority.issue("known.test", usage="clientAuth")
    for pair, word in ((None, b"NONE"), (known, b"SUCCESS CN=known.test"), (mine, None)):
        context = site.context()
        if pair:
            context.load_cert_chain(pair.cert, pair.key)
        with visit(door, "secure.localhost", context) as conn:
            got = conn.fetch("GET", "/who", "secure.localhost")
            if word:
                assert got.body.startswith(word) and b"secure.localhost" in got.body
            else:
                assert got.status == 400  # nginx's word for a certificate that it cannot verify


def test_large_bodies_both_ways(door, edge, site, folder):
    way = ["--cacert", site.authority.cert, "--connect-to",
           f"secure.localhost::127.0.0.1:{door}"]
    got = edge.curl(f"/bytes?n={BULK}", *way, label="secure", tls=True, timeout=3 * HANG)
    assert sha256(got.stdout) == sha256(app_bytes(BULK)), got.stderr
    body = os.urandom(BULK)
    (folder / "up").write_bytes(body)
    sent = edge.curl("/echo", *way, "--http2", "-T", folder / "up", label="secure", tls=True,
                     timeout=3 * HANG)
    assert json.loads(sent.stdout)["sha256"] == sha256(body), sent.stderr


@pytest.mark.heavy
def test_two_hundred_at_once(edge, secure, site):
    del secure
    context = site.context()

    def one(number):
        conn = visit(edge.tls_port, "secure.localhost", context)
        assert conn.fetch("GET", f"/bytes?n={number}", "secure.localhost").body == app_bytes(number)
        return conn
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        conns = list(pool.map(one, range(200)))
    # All are open now.
    for number, conn in enumerate(conns):
        with conn:
            assert conn.fetch("GET", "/hello", "secure.localhost").status == 200, number


@pytest.mark.heavy
def test_chromium(start, edge, secure, site):
    del secure, site
    program = shutil.which("chromium") or need("chromium-browser")
    profile = start.folder_for("profile")
    got = run([program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
               "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
               "--no-proxy-server", "--ignore-certificate-errors", f"--user-data-dir={profile}",
               "--dump-dom", f"https://secure.localhost:{edge.tls_port}/who"], env=start.env(),
              timeout=3 * HANG)
    assert b"NONE  secure.localhost" in got.stdout, got.stderr[-2000:]


# --- bytes of whatever kind -----------------------------------------------------------------------

def test_early_bytes_ends_and_resets_pass(start, edge):
    """What follows the hello in the same segment, half-close both ways, resets: as TCP."""
    hello = hello_for("bytes.localhost")
    seen = []

    def serve(conn):
        data = conn.read_exactly(len(hello) + 5)
        seen.append(data)
        if data.endswith(b"reset"):
            conn.abort()
            return
        conn.send(b"early answer")
        rest = conn.read_all()
        conn.send(b"after your end: " + rest)

    listener = start.keep(Listener(serve))
    tls_client(start, edge, listener.port, "bytes")
    with dial("127.0.0.1", edge.tls_port) as conn:
        conn.send(hello + b"and m")
        assert conn.read_exactly(12) == b"early answer"
        conn.send(b"ore")
        conn.half_close()
        assert conn.read_all() == b"after your end: ore"
    with dial("127.0.0.1", edge.port) as conn:
        conn.send(hello + b"reset")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while conn.sock.recv(100):
                pass
    assert seen == [hello + b"and m", hello + b"reset"]


def test_a_visitor_who_resets_resets_the_upstream(start, edge):
    ends = []

    def serve(conn):
        try:
            while conn.sock.recv(1000):
                pass
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")

    listener = start.keep(Listener(serve))
    tls_client(start, edge, listener.port, "resets")
    conn = dial("127.0.0.1", edge.tls_port)
    conn.send(hello_for("resets.localhost"))
    eventually(lambda: listener.accepted, "the upstream is reached")
    conn.abort()
    assert eventually(lambda: ends, "the upstream sees its end") == ["reset"]


@pytest.mark.parametrize("version, start_of", [("v1", b"PROXY TCP4 127.0.0.1 127.0.0.1 "),
                                               ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11")])
def test_proxy_protocol(start, edge, version, start_of):
    got = []

    def serve(conn):
        got.append(conn.read_exactly(150))

    listener = start.keep(Listener(serve))
    tls_client(start, edge, listener.port, f"proxied-{version}", "--proxy-protocol", version)
    hello = hello_for(f"proxied-{version}.localhost")
    with dial("127.0.0.1", edge.tls_port) as conn:
        conn.send(hello)
        eventually(lambda: got, "the upstream got it")
    assert got[0].startswith(start_of)
    assert hello[:40] in got[0]


# --- names ----------------------------------------------------------------------------------------

def answer_to(port, data):
    with dial("127.0.0.1", port) as conn:
        conn.send(data)
        return conn.read_all()  # a reset would raise


@pytest.mark.parametrize("send", [whole, byte_by_byte, records(3)], ids=lambda f: f.__name__)
def test_an_unknown_name_gets_an_alert(door, send):
    for name in ("nobody.test", "secure.localhost.example", "localhost.evil.test"):
        with dial("127.0.0.1", door) as conn:
            send(conn, hello_for(name))
            assert conn.read_all() == UNRECOGNIZED_NAME


def test_clients_understand_the_alert(door):
    got = curl("-k", "--connect-to", f"::127.0.0.1:{door}", "https://nobody.test/")
    assert got.returncode == 35 and b"unrecognized name" in got.stderr.lower(), got.stderr
    for version in ("-tls1_2", "-tls1_3"):
        got = run([need("openssl"), "s_client", "-connect", f"127.0.0.1:{door}", "-servername",
                   "nobody.test", version], input=b"", timeout=HANG)
        assert b"unrecognized name" in got.stderr
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
        visit(door, "nobody.test", tls_trusting())


def test_what_is_no_proper_hello_gets_an_alert(door):
    hello = hello_for("secure.localhost")
    at = hello.index(b"secure.localhost")
    for wrong, alert in ((hello.replace(b"secure.localhost", b"secure/localhost"), 112),
                         (hello.replace(b"secure.localhost", b"secure\0localhost"), 112),
                         (hello[:at - 1] + bytes([hello[at - 1] + 1]) + hello[at:], 50),
                         (b"\x16\x03\x01\xff\xff" + bytes(100), 22),
                         (b"\x16\x03\x01\0\0" + hello, 50),
                         (b"\x16\x03\x01\0\x04\x02\0\0\0", 10)):
        assert answer_to(door, wrong) == UNRECOGNIZED_NAME[:-1] + bytes([alert])


@pytest.mark.parametrize("name", [None, "localhost", "free.localhost", "a.b.localhost",
                                  "demo.localhost"])
def test_other_names_of_the_server_are_its_own(door, edge, tunnel, local_pair, name):
    del tunnel
    with visit(door, name, tls_trusting()) as conn:
        assert conn.sock.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
            local_pair.cert.read_text())
        status = conn.fetch("GET", "/hello", edge.name("demo", tls=True)).status
        assert status == 200


@pytest.mark.parametrize("send", [byte_by_byte, records(40)], ids=lambda f: f.__name__)
def test_own_tls_takes_a_hello_in_pieces_too(door, edge, tunnel, authority, send):
    del tunnel
    context = tls_trusting(authority.cert)
    if send is not byte_by_byte:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    by_hand = ByHand(door, "demo.localhost", context, send)
    assert b"200 OK" in by_hand.fetch("/hello", edge.name("demo"))
    by_hand.close()


def test_a_name_can_be_both(start, edge, site, app):
    """http and tls tunnels of one name: TLS goes to the latter, what is plain to the former."""
    tls_client(start, edge, site.port, "both")
    start.client(edge, app, subdomain="both")
    with visit(edge.tls_port, "both.localhost", site.context()) as conn:
        assert site.holds(conn)
    assert edge.status("/hello", "both") == 200


def test_wildcards(start, edge, site, local_pair):
    client = tls_client(start, edge, site.port, "*.wild")
    assert client.public() == f"tls://*.wild.localhost:{edge.tls_port}"
    with visit(edge.tls_port, "any.wild.localhost", site.context()) as conn:
        assert site.holds(conn)
        assert b"any.wild.localhost" in conn.fetch("GET", "/who", "any.wild.localhost").body
    with visit(edge.tls_port, "x.y.wild.localhost", tls_trusting()) as conn:
        assert site.holds(conn)
    with visit(edge.tls_port, "wild.localhost", tls_trusting()) as conn:
        assert conn.sock.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
            local_pair.cert.read_text())


def test_the_servers_own_name_is_not_to_be_had(start, edge, site, local_pair):
    """Clients connect to it: a tunnel there would cut all others off."""
    client = tls_client(start, edge, site.port, "@", wait=False)
    assert client.proc.wait() == 1
    assert "reach the server itself" in client.proc.text("err")
    with visit(edge.tls_port, "localhost", tls_trusting()) as conn:
        assert not site.holds(conn)
    # Where the server has no TLS of its own it is nobody else's.
    server = start.server()
    tls_client(start, server, site.port, "@")
    with visit(server.port, "localhost", tls_trusting()) as conn:
        assert site.holds(conn)
    # So is the public name of a server that routes by another domain.
    server = start.server("--public-url", "https://front.example.test", domain="example.test",
                          tls=[local_pair])
    client = tls_client(start, server, site.port, "front", wait=False)
    assert client.proc.wait() == 1
    assert "reach the server itself" in client.proc.text("err")


def test_a_domain_of_ones_own(start, site, app):
    server = start.server("--allow-domain", "*.example.test")
    client = start.program_client(server, ["tls", str(site.port), "--domain", "app.example.test"])
    assert client.public() == f"tls://app.example.test:{server.port}"
    with visit(server.port, "app.example.test", site.context()) as conn:
        assert site.holds(conn)
    assert answer_to(server.port, hello_for("other.example.test")) == UNRECOGNIZED_NAME
    del app


def test_ports_by_name(start, edge, site):
    other = start.keep(Listener(lambda conn: conn.send(b"not for you")))
    client = start.program_client(
        edge, ["ports", "--tls", "--allow-ports", f"{site.port},1"], subdomain="ports")
    assert client.public() == f"tls://pPORT.ports.localhost:{edge.tls_port}"
    with visit(edge.tls_port, f"p{site.port}.ports.localhost", site.context()) as conn:
        assert site.holds(conn)
        assert conn.fetch("GET", "/hello", "x").status == 200
    for port in (other.port, 1):
        with dial("127.0.0.1", edge.tls_port) as conn:
            with contextlib.suppress(ConnectionResetError):
                conn.send(hello_for(f"p{port}.ports.localhost"))
                assert conn.read_all() == b""
    client.proc.wait_line(f"tls 127.0.0.1 0 in 0 out .*{other.port} .*--allow-ports", kind="out")
    assert other.accepted == 0


def test_a_name_that_is_given_back(start, edge, site):
    client = tls_client(start, edge, site.port, "passing")
    with visit(edge.tls_port, "passing.localhost", tls_trusting()) as conn:
        assert site.holds(conn)
    assert client.proc.stop() == 0

    def own():
        with visit(edge.tls_port, "passing.localhost", tls_trusting()) as conn:
            return not site.holds(conn)
    eventually(own, "the server answers for it again")


def test_an_upstream_that_is_not_up_yet(start, edge, site):
    port = free_port()
    client = tls_client(start, edge, port, "later")
    with pytest.raises((ssl.SSLError, OSError)):
        visit(edge.tls_port, "later.localhost", site.context())
    client.proc.wait_line(r"the local service cannot be reached", kind="err")
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(HANG)
        with dial("127.0.0.1", edge.tls_port) as conn:
            hello = hello_for("later.localhost")
            conn.send(hello)
            with Conn(listener.accept()[0]) as up:
                assert up.read_exactly(len(hello)) == hello


def test_slow_hellos_hold_up_nobody(edge, secure, site):
    del secure
    hello = hello_for("secure.localhost")
    held = []
    try:
        for count in range(60):
            conn = dial("127.0.0.1", edge.tls_port if count % 2 else edge.port)
            conn.send(hello[:1 + count])
            held.append(conn)
        with visit(edge.tls_port, "secure.localhost", site.context()) as conn:
            assert conn.fetch("GET", "/hello", "x").status == 200
        # The last one may still finish.
        held[-1].send(hello[60:])
        assert held[-1].sock.recv(5)[:1] == b"\x16"
    finally:
        for conn in held:
            conn.abort()


@pytest.mark.heavy
def test_a_hello_that_never_ends_is_given_up(edge, secure):
    del secure
    hello = hello_for("secure.localhost")
    conns = [dial("127.0.0.1", port) for port in (edge.tls_port, edge.port)]
    for conn in conns:
        conn.send(hello[:-1])
    for conn in conns:
        with conn:
            assert conn.read_all() == b""


def test_it_is_counted(start, site):
    server = start.server("--verbose")
    tls_client(start, server, site.port, "secure")
    with visit(server.port, "secure.localhost", site.context()) as conn:
        assert conn.fetch("GET", "/hello", "x").status == 200
    assert answer_to(server.port, hello_for("nobody.test")) == UNRECOGNIZED_NAME
    assert server.proc.stop() == 0
    line = [line for line in server.proc.err() if line.startswith("counted: ")][-1]
    got = {name: int(n) for n, name in re.findall(r"(\d+) ([^,]+)", line)}
    assert got["failed TLS handshakes"] == 1
    assert got["TCP and TLS tunnel connections"] == 1


# --- TLS that ends at the client ------------------------------------------------------------------

class Ended:
    """A tls tunnel to the plain app, whose TLS the client ends, over a link that is listened to."""

    def __init__(self, start, folder, edge, app, name="ended"):
        self.name = f"{name}.localhost"
        self.authority = Authority(folder / f"{name}-ca")
        self.pair = self.authority.issue(self.name)
        self.tap = start.keep(Tap(edge.port))
        argv = ["tls", str(app.port), "--tls-cert",
                str(self.pair.cert), "--tls-key", str(self.pair.key), "--subdomain", name,
                "--lanes", "0", "--server", f"ws://127.0.0.1:{self.tap.port}",
                "--token", edge.token]
        self.client = Client(start.program(CLIENT_BIN, argv))
        self.client.public()
        self.port = edge.tls_port

    def context(self):
        return tls_trusting(self.authority.cert)

    def visit(self):
        return visit(self.port, self.name, self.context())

    def up(self):
        """What the client sent, unmasked."""
        data = bytes(self.tap.up)
        at = data.index(b"\r\n\r\n") + 4
        said = b""
        while at + 2 <= len(data):
            size = data[at + 1] & 0x7F
            head = {126: 4, 127: 10}.get(size, 2)
            if head > 2:
                size = int.from_bytes(data[at + 2:at + head], "big")
            mask = data[at + head:at + head + 4]
            body = data[at + head + 4:at + head + 4 + size]
            said += bytes(b ^ mask[i & 3] for i, b in enumerate(body))
            at += head + 4 + size
        return said


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_client_ends_tls(start, folder, edge, app, version):
    ended = Ended(start, folder, edge, app)
    got = edge.curl("/bytes?n=200000", "--cacert", ended.authority.cert, f"--tlsv{version}",
                    "--tls-max", version, label="ended", tls=True)
    assert got.stdout == app_bytes(200000), got.stderr
    with ended.visit() as conn:
        assert conn.sock.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
            ended.pair.cert.read_text())
        for _ in range(3):
            assert conn.fetch("GET", "/hello", ended.name).status == 200
    ended.client.proc.wait_line(r"tls 127\.0\.0\.1 ")


def test_the_server_never_sees_plaintext(start, folder, edge, app):
    ended = Ended(start, folder, edge, app, name="private")
    marker = "the-marker-" + os.urandom(8).hex()
    with ended.visit() as conn:
        echo = json.loads(conn.fetch("POST", f"/echo?{marker}", ended.name,
                                     [("X-Marker", marker)], marker.encode()).body)
        assert marker in echo["url"]
    assert marker.encode() not in bytes(ended.tap.down)
    assert marker.encode() not in ended.up()
    # Through a http tunnel it is there, both ways: the test sees what there is to see.
    tap = start.keep(Tap(edge.port))
    start.client(edge, app, "--lanes", "0", subdomain="open", link=f"ws://127.0.0.1:{tap.port}")
    assert marker in edge.get(f"/echo?{marker}", "open").body.decode()
    assert marker.encode() in bytes(tap.down)
    ended.tap = tap
    assert marker.encode() in ended.up()


@pytest.mark.parametrize("protocols", [("h2", "http/1.1"), ("mqtt",), ()])
def test_any_protocol_may_be_offered(start, folder, edge, app, protocols):
    """What is spoken within is not known: ALPN is left unanswered, and nobody is turned away."""
    ended = Ended(start, folder, edge, app)
    context = ended.context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    with visit(edge.tls_port, ended.name, context) as conn:
        assert conn.sock.selected_alpn_protocol() is None
        assert conn.fetch("GET", "/hello", ended.name).status == 200


def test_large_bodies_both_ways_within(start, folder, edge, app):
    ended = Ended(start, folder, edge, app)
    got = edge.curl(f"/bytes?n={BULK}", "--cacert", ended.authority.cert, label="ended", tls=True,
                    timeout=3 * HANG)
    assert sha256(got.stdout) == sha256(app_bytes(BULK)), got.stderr
    body = os.urandom(BULK)
    (folder / "up").write_bytes(body)
    sent = edge.curl("/echo", "--cacert", ended.authority.cert, "-T", folder / "up", label="ended",
                     tls=True, timeout=3 * HANG)
    assert json.loads(sent.stdout)["sha256"] == sha256(body), sent.stderr


def test_half_close_within(start, folder, edge):
    def serve(conn):
        got = conn.read_all()
        conn.send(b"you said " + got)

    listener = start.keep(Listener(serve))
    ended = Ended(start, folder, edge, listener, name="half")
    by_hand = ByHand(edge.tls_port, ended.name, ended.context(), whole)
    by_hand.run(by_hand.obj.write, b"all of it")
    by_hand.end()
    assert by_hand.rest() == b"you said all of it"
    by_hand.close()


def test_a_cut_answer_is_known_as_cut(start, folder, edge):
    def serve(conn):
        conn.read_head()
        conn.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of")
        conn.abort()

    listener = start.keep(Listener(serve))
    ended = Ended(start, folder, edge, listener, name="cut")
    by_hand = ByHand(edge.tls_port, ended.name, ended.context(), whole)
    by_hand.run(by_hand.obj.write, b"GET / HTTP/1.1\r\nHost: cut\r\n\r\n")
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
        by_hand.rest()
    by_hand.close()


def test_proxy_protocol_within(start, folder, edge):
    got = []

    def serve(conn):
        got.append(conn.read_until(b"\r\n"))
        conn.read_head()
        conn.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    listener = start.keep(Listener(serve))
    authority = Authority(folder / "ca")
    pair = authority.issue("told.localhost")
    start.program_client(edge, ["tls", str(listener.port), "--tls-cert", str(pair.cert),
                                "--tls-key", str(pair.key), "--proxy-protocol", "v1"],
                         subdomain="told")
    with visit(edge.tls_port, "told.localhost", tls_trusting(authority.cert)) as conn:
        mine = conn.sock.getsockname()[1]
        assert conn.fetch("GET", "/", "told.localhost").status == 204
    assert got[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 %d " % mine), got


def test_what_is_no_tls_within_harms_nobody(start, folder, edge, app):
    ended = Ended(start, folder, edge, app)
    hello = hello_for(ended.name)
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(500)):
        with dial("127.0.0.1", edge.tls_port) as conn:
            conn.send(hello + garbage)
            conn.half_close()
            with contextlib.suppress(ConnectionResetError):
                while conn.sock.recv(65536):
                    pass
    with ended.visit() as conn:
        assert conn.fetch("GET", "/hello", ended.name).status == 200


@pytest.mark.heavy
def test_two_hundred_within_at_once(start, folder, edge, app):
    ended = Ended(start, folder, edge, app)
    context = ended.context()

    def one(number):
        conn = visit(edge.tls_port, ended.name, context)
        assert conn.fetch("GET", f"/bytes?n={number}", ended.name).body == app_bytes(number)
        return conn
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        conns = list(pool.map(one, range(200)))
    for conn in conns:
        with conn:
            assert conn.fetch("GET", "/hello", ended.name).status == 200


def test_a_certificate_that_is_no_good_is_said(start, folder, edge, app):
    pair = Authority(folder / "ca").issue("x.localhost")
    (folder / "empty.pem").write_text("")
    for cert, key, word in ((folder / "missing.pem", pair.key, "missing.pem"),
                            (folder / "empty.pem", pair.key, "empty.pem"),
                            (pair.cert, pair.cert, str(pair.cert))):
        client = start.program_client(edge, ["tls", str(app.port), "--tls-cert", str(cert),
                                             "--tls-key", str(key)], subdomain="x", wait=False)
        assert client.proc.wait() == 1
        assert word in client.proc.text("err")
        assert "public:" not in client.proc.text("out")
