# SPDX-License-Identifier: Apache-2.0
"""The helpers and upstreams themselves, without any tunnel: when this fails, trust nothing else."""

import hashlib
import json

import pytest

from harness import duet, eventually, ws
from harness.net import Listener, Truncated, dial, tls_trusting
from harness.proxy import ConnectProxy, Relay
from harness.stack import app_bytes, curl, header_pairs, sha256, values_of


def visit(app, target, method="GET", **kw):
    with dial("127.0.0.1", app.port) as conn:
        return conn.fetch(method, target, "app", **kw)


def test_app_framings(app):
    for path, framing in (("bytes", "length"), ("chunked", "chunked"), ("close", "close")):
        got = visit(app, f"/{path}?n=200001")
        assert got.framing == framing and got.body == app_bytes(200001)


def test_app_echo(app):
    got = json.loads(visit(app, "/echo", "POST", body=b"abc", headers=[("X-Y", "z")]).body)
    assert got["method"] == "POST" and got["bytes"] == 3 and got["sha256"] == sha256(b"abc")
    assert values_of(got["headers"], "x-y") == ["z"]
    assert ("Host", "app") in header_pairs(got["headers"])


def test_app_special_answers(app):
    assert visit(app, "/hints").interim[0].get("link")
    assert visit(app, "/trailers").trailers == [("X-Checksum", "abc123")]
    assert visit(app, "/status?code=204").status == 204
    assert visit(app, "/notmodified").get("content-length") == "12345"
    assert visit(app, "/bytes?n=10", "HEAD").get("content-length") == "10"
    assert visit(app, "/early", "POST", body=b"x" * 100).status == 413


def test_app_tells_of_leaving(app):
    with dial("127.0.0.1", app.port) as conn:
        conn.request("GET", "/hang?id=self-hang", "app")
        app.await_visit("self-hang", "seen")
        assert app.visit("self-hang")["closed"] == 0
    app.await_visit("self-hang", "closed")


def test_app_events(app):
    with dial("127.0.0.1", app.port) as conn:
        conn.request("GET", "/sse?id=self-sse", "app")
        assert conn.read_head().status == 200
        assert conn.read_chunk() == b": hi\n\n"
        app.control("emit", id="self-sse", data="one")
        assert conn.read_chunk() == b"data: one\n\n"


def test_python_app(start, files):
    for args, framing in (((), "length"), (("--http10",), "length")):
        app = start.python(files, *args)
        got = visit(app, "/small.bin")
        assert got.body == (files / "small.bin").read_bytes() and got.framing == framing
        sent = json.loads(visit(app, "/up", "POST", body=b"hello").body)
        assert sent == {"bytes": 5, "sha256": sha256(b"hello")}


def test_nginx_files(start, files):
    nginx = start.nginx_files(files)
    got = curl("-r", "10-19", f"http://127.0.0.1:{nginx.port}/small.bin")
    assert got.stdout == bytes(range(10, 20))


def test_certificates(start, authority, local_pair):
    app = start.node("--cert", local_pair.cert, "--key", local_pair.key)
    with dial("127.0.0.1", app.port, tls=tls_trusting(authority.cert), sni="localhost") as conn:
        assert conn.fetch("GET", "/hello", "localhost").body == b"hello\n"


def test_proxy_and_relay(app):
    proxy, relay = ConnectProxy(user="u", password="p"), Relay(app.port)
    try:
        base = ["-p", f"http://anywhere.test:{relay.port}/hello"]
        url = f"127.0.0.1:{proxy.port}"
        assert curl("--noproxy", "", "-x", f"http://u:p@{url}", *base).stdout == b"hello\n"
        assert proxy.targets == [f"anywhere.test:{relay.port}"]
        assert curl("--noproxy", "", "-x", f"http://u:no@{url}", *base).returncode != 0
        assert proxy.denied == 1
        with dial("127.0.0.1", relay.port) as conn:
            assert conn.fetch("GET", "/hello", "app").status == 200
            relay.drop_all()
            assert conn.at_end()
    finally:
        proxy.close()
        relay.close()


def test_conn_notices_truncation():
    def serve(conn):
        conn.read_head()
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    listener = Listener(serve)
    try:
        with dial("127.0.0.1", listener.port) as conn:
            with pytest.raises(Truncated) as cut:
                conn.fetch("GET", "/", "x")
            assert cut.value.partial == b"half"
    finally:
        listener.close()


def test_websocket_frames():
    assert ws.frame(ws.TEXT, b"hi", masked=False) == b"\x81\x02hi"
    assert ws.frame(ws.BINARY, claim=1 << 40, masked=False)[:2] == b"\x82\x7f"
    masked = ws.frame(ws.BINARY, b"x" * 300)
    assert masked[:4] == b"\x82\xfe\x01\x2c" and len(masked) == 308


def test_frames_of_raw_ends():
    """The examples of RFC 6455 section 5.7, and what is wrong on purpose."""
    key = bytes.fromhex("37fa213d")
    assert duet.frame(ws.TEXT, b"Hello").hex() == "810548656c6c6f"
    assert duet.frame(ws.TEXT, b"Hello", key=key).hex() == "818537fa213d7f9f4d5158"
    assert duet.frame(ws.TEXT, b"Hel", fin=False) + duet.frame(ws.CONTINUATION, b"lo") == \
        bytes.fromhex("010348656c80026c6f")
    assert duet.frame(ws.BINARY, bytes(256))[:4].hex() == "827e0100"
    assert duet.frame(ws.BINARY, bytes(65536))[:10].hex() == "827f0000000000010000"
    assert duet.frame(ws.TEXT, b"", form=64, rsv=5, claim=1 << 63).hex() == "d17f8000000000000000"


def test_raw_ends():
    """A duet hears what was said, and tells an end from a reset."""
    stage = duet.Stage()

    def talk(both):
        both.visitor.frame(ws.TEXT, b"hi")
        both.upstream.say(b"x" * 300000)
        both.settle()
        both.visitor.fin()
        both.ended(both.upstream, "fin")
        both.upstream.reset()
        both.ended(both.visitor, "reset")
    try:
        seen = []
        for _ in range(2):
            both = duet.begin(stage, "direct", early=b"early")
            talk(both)
            seen.append(both.transcript())
            both.close()
        assert seen[0] == seen[1] and seen[0][1][1].startswith(b"early\x81\x82")
        both = duet.begin(stage, "direct")
        both.visitor.sock.send(b"unsaid")
        both.visitor.words += b"forged"
        both.settle()
        with pytest.raises(AssertionError, match="other bytes"):
            both.transcript()
        both.close()
    finally:
        stage.close()


def test_processes(start):
    proc = start.spawn(["sh", "-c", "echo one; echo two >&2; exec sleep 600"], name="sh")
    proc.wait_line("^one$", kind="out")
    proc.wait_line("^two$", kind="err")
    with pytest.raises(AssertionError, match="said nothing"):
        proc.wait_line("^three$", timeout=0.2)
    assert proc.rss() > 0 and proc.peak_rss() >= proc.rss() and proc.descriptors() >= 3
    proc.kill()
    assert proc.verdict() is None
    eventually(lambda: not proc.alive(), "killed")
    crashed = start.spawn(["sh", "-c", "kill -ABRT $$"], name="sh")
    crashed.wait()
    assert "signal 6" in crashed.verdict()
    start.procs.remove(crashed)
    assert sha256(b"") == hashlib.sha256().hexdigest()
