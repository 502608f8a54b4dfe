# SPDX-License-Identifier: Apache-2.0
"""TLS at the edge: https visitors and wss links on one port, SNI, reload, half handshakes."""

import json
import shutil
import signal
import socket
import ssl

import pytest

from harness import SERVER_BIN, eventually
from harness.net import dial, free_port, tls_trusting
from harness.stack import app_bytes, sha256, values_of
from harness.tls import Authority, Pair


def serial(server, sni):
    """The serial number of the certificate the server shows for this name."""
    with server.dial(tls=tls_trusting(), sni=sni) as conn:
        der = conn.sock.getpeercert(binary_form=True)
    return sha256(der)


def fingerprint(pair):
    return sha256(ssl.PEM_cert_to_DER_cert(pair.cert.read_text()))


def test_visitors_and_link_on_one_port(start, app, authority, local_pair):
    server = start.server(plain=False, tls=[local_pair])
    client = start.client(server, app, "--ca", authority.cert,
                          link=f"wss://localhost:{server.tls_port}")
    assert client.public() == f"https://demo.localhost:{server.tls_port}"
    context = tls_trusting(authority.cert)
    with server.dial(tls=context, sni="demo.localhost") as conn:
        host = server.name("demo", tls=True)
        echo = json.loads(conn.fetch("GET", "/echo", host).body)
        assert values_of(echo["headers"], "x-forwarded-proto") == ["https"]
        assert conn.fetch("GET", "/bytes?n=3000000", host).body == app_bytes(3000000)
        assert conn.fetch("GET", "/__tunnel__/health/live", host).status == 200


@pytest.mark.usefixtures("tunnel")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_versions(edge, authority, version):
    got = edge.curl("/bytes?n=100000", "--cacert", authority.cert, f"--tlsv{version}",
                    "--tls-max", version, tls=True)
    assert got.stdout == app_bytes(100000), got.stderr


@pytest.mark.usefixtures("tunnel")
def test_old_versions_are_refused(edge):
    got = edge.curl("/hello", "-k", "--tlsv1.0", "--tls-max", "1.1", "--ciphers",
                    "DEFAULT:@SECLEVEL=0", tls=True)
    assert got.returncode == 35, got.stderr


@pytest.mark.usefixtures("tunnel")
def test_alpn_is_http_1_1(edge):
    context = tls_trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with edge.dial(tls=context, sni="demo.localhost") as conn:
        assert conn.sock.selected_alpn_protocol() in (None, "http/1.1")
        assert conn.fetch("GET", "/hello", edge.name("demo", tls=True)).status == 200


@pytest.mark.usefixtures("tunnel")
def test_sessions_resume(edge):
    context = tls_trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host = edge.name("demo", tls=True)
    with edge.dial(tls=context, sni="demo.localhost") as conn:
        assert conn.fetch("GET", "/hello", host).status == 200
        session = conn.sock.session
    sock = socket.create_connection(("127.0.0.1", edge.tls_port), timeout=30)
    with context.wrap_socket(sock, server_hostname="demo.localhost", session=session) as again:
        assert again.session_reused


def test_large_bodies_over_tls_both_ways(start, app, authority, local_pair, folder):
    server = start.server(tls=[local_pair])
    start.client(server, app, "--quiet", "--ca", authority.cert,
                 link=f"wss://127.0.0.1:{server.tls_port}")
    size = 24 << 20
    body = app_bytes(size)
    got = server.curl(f"/bytes?n={size}", "--cacert", authority.cert, tls=True)
    assert sha256(got.stdout) == sha256(body)
    (folder / "up").write_bytes(body)
    sent = server.curl("/echo", "--cacert", authority.cert, "-T", folder / "up", tls=True)
    assert json.loads(sent.stdout)["sha256"] == sha256(body), sent.stderr


@pytest.mark.parametrize("rsa", [False, True])
def test_certificate_by_name(start, authority, rsa):
    first = authority.issue("one.test", "*.one.test", rsa=rsa)
    second = authority.issue("two.test", "*.two.test")
    server = start.server(tls=[first, second])
    assert serial(server, "one.test") == serial(server, "a.one.test") == fingerprint(first)
    assert serial(server, "two.test") == serial(server, "A.Two.Test") == fingerprint(second)
    assert serial(server, "b.two.test") == fingerprint(second)
    # The server's own domain, which no certificate has, or no name at all: the first one given.
    assert serial(server, "localhost") == serial(server, None) == fingerprint(first)
    # Other names are nobody's; a wildcard is one label.
    for name in ("three.test", "a.b.two.test"):
        with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
            serial(server, name)


def test_exact_name_beats_wildcard(start, authority):
    wild = authority.issue("*.one.test")
    exact = authority.issue("app.one.test")
    server = start.server(tls=[wild, exact])
    assert serial(server, "app.one.test") == fingerprint(exact)
    assert serial(server, "other.one.test") == fingerprint(wild)


def test_reload_on_sighup(start, app, authority, folder):
    old, new = authority.issue("localhost"), authority.issue("localhost", "127.0.0.1")
    cert, key = folder / "live.pem", folder / "live.key"
    shutil.copy(old.cert, cert)
    shutil.copy(old.key, key)
    server = start.server(tls=[Pair(cert, key)])
    start.client(server, app)
    assert serial(server, "localhost") == fingerprint(old)
    with server.dial(tls=tls_trusting(), sni="localhost") as kept:
        host = server.name("demo", tls=True)
        assert kept.fetch("GET", "/hello", host).status == 200
        shutil.copy(new.cert, cert)
        shutil.copy(new.key, key)
        assert serial(server, "localhost") == fingerprint(old)  # not before it is told
        server.proc.deliver(signal.SIGHUP)
        eventually(lambda: serial(server, "localhost") == fingerprint(new), "the new certificate")
        assert kept.fetch("GET", "/hello", host).status == 200  # and nobody was cut off
    assert server.status("/hello") == 200

    # A bad file at reload: said, and the one in use stays.
    lines = len(server.proc.err())
    cert.write_text("not a certificate")
    server.proc.deliver(signal.SIGHUP)
    eventually(lambda: len(server.proc.err()) > lines, "a line about the bad certificate")
    assert str(cert) in "\n".join(server.proc.err()[lines:])
    assert serial(server, "localhost") == fingerprint(new)
    assert server.status("/hello") == 200


def test_sighup_without_tls_changes_nothing(start, app):
    server = start.server()
    start.client(server, app)
    server.proc.deliver(signal.SIGHUP)
    for _ in range(5):
        assert server.status("/hello") == 200


@pytest.mark.usefixtures("tunnel")
def test_half_hello_and_garbage_hurt_nobody(edge):
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    halfway = context.wrap_bio(incoming, outgoing, server_hostname="demo.localhost")
    with pytest.raises(ssl.SSLWantReadError):
        halfway.do_handshake()
    hello = outgoing.read()
    held = []
    try:
        for data in (hello[:1], hello[:5], hello[:len(hello) // 2], hello[:-1]):
            conn = dial("127.0.0.1", edge.tls_port)
            conn.send(data)
            held.append(conn)
        for data in (b"\x16\x03\x01\xff\xff" + b"\xff" * 300, b"GET / HTTP/1.1\r\n\r\n",
                     b"\x00" * 64, hello[:40] + b"\xee" * len(hello),
                     b"\x15\x03\x01\x00\x02\x02\x28"):
            with dial("127.0.0.1", edge.tls_port) as conn:
                conn.send(data)
                conn.half_close()
                assert len(conn.read_all()) < 4096  # at most an alert or an error page
        with edge.dial(tls=tls_trusting(), sni="demo.localhost") as conn:
            assert conn.fetch("GET", "/hello", edge.name("demo", tls=True)).status == 200
        assert edge.status("/hello") == 200
    finally:
        for conn in held:
            conn.abort()
    assert edge.proc.alive()


@pytest.mark.usefixtures("tunnel")
def test_tls_to_the_plain_port_is_tls_where_there_is_a_certificate(edge, authority):
    with dial("127.0.0.1", edge.port, tls=tls_trusting(authority.cert),
              sni="demo.localhost") as conn:
        echo = json.loads(conn.fetch("GET", "/echo", edge.name("demo")).body)
        assert values_of(echo["headers"], "x-forwarded-proto") == ["https"]
    assert edge.status("/hello") == 200


def test_tls_to_the_plain_port_without_a_certificate_is_an_alert(start, app):
    server = start.server()
    start.client(server, app)
    for name in ("demo.localhost", "other.test", None):
        with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
            dial("127.0.0.1", server.port, tls=tls_trusting(), sni=name)
    assert server.status("/hello") == 200


@pytest.mark.usefixtures("tunnel")
def test_plain_http_to_the_tls_port_is_told_so(edge):
    with dial("127.0.0.1", edge.tls_port) as conn:
        answer = conn.fetch("GET", "/hello", edge.name("demo", tls=True))
        assert answer.status == 400
        assert b"https" in answer.body
        assert answer.get("connection") == "close"
        assert conn.at_end()
    # However it comes, and with whatever behind it.
    with dial("127.0.0.1", edge.tls_port) as conn:
        for byte in b"POST / HT":
            conn.send(bytes([byte]))
        conn.send(b"TP/1.1\r\nContent-Length: 100000\r\n\r\n" + bytes(100000))
        assert conn.read_response().status == 400
    for garbage in (b"SSH-2.0-OpenSSH_9.2\r\n", b"get / HTTP/1.0\r\n\r\n", b"\x80\x2e\x01\x03\x01"):
        with dial("127.0.0.1", edge.tls_port) as conn:
            conn.send(garbage)
            assert conn.read_all() == b""


def fails_to_start(start, cert, key, names):
    proc = start.program(SERVER_BIN, [
        "--tls-listen", f"127.0.0.1:{free_port()}", "--tls-cert", cert, "--tls-key", key,
        "--domain", "localhost", "--token", "t" * 16])
    assert proc.wait() == 1
    assert len(proc.err()) == 1, proc.transcript()
    assert any(str(n) in proc.err()[0] for n in names), proc.err()
    assert proc.out() == []


def test_bad_certificate_files(start, authority, folder):
    good, other = authority.issue("localhost"), authority.issue("localhost")
    junk, empty, missing = folder / "junk.pem", folder / "empty.pem", folder / "missing.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    empty.write_text("")
    fails_to_start(start, missing, good.key, [missing])
    fails_to_start(start, good.cert, missing, [missing])
    fails_to_start(start, junk, good.key, [junk])
    fails_to_start(start, empty, good.key, [empty])
    fails_to_start(start, good.cert, junk, [junk])
    fails_to_start(start, folder, good.key, [folder])
    fails_to_start(start, good.cert, other.key, [good.cert, other.key])  # do not belong together


def test_chain_file(start, folder):
    """A certificate file may carry the chain: a client that knows only the root accepts it."""
    root = Authority(folder / "root", "e2e root")
    middle = root.sub(folder / "middle")
    leaf = middle.issue("localhost", "127.0.0.1")
    chain = folder / "chain.pem"
    chain.write_text(leaf.cert.read_text() + middle.cert.read_text())
    server = start.server(tls=[Pair(chain, leaf.key)])
    with server.dial(tls=tls_trusting(root.cert), sni="localhost") as conn:
        assert conn.fetch("GET", "/__tunnel__/health/live", "x").status == 200
