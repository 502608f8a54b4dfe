# SPDX-License-Identifier: Apache-2.0
"""What of the heads travels, what is set, what is dropped."""

import json

import pytest

from harness.stack import header_pairs, values_of

pytestmark = pytest.mark.usefixtures("tunnel")


def echo(server, headers=(), label="demo", **kw):
    got = server.get("/echo", label, headers=headers, **kw)
    assert got.status == 200, got
    return json.loads(got.body)["headers"]


def test_ordinary_headers_travel(edge):
    sent = [("Accept", "text/html, */*;q=0.1"), ("Cookie", "a=1; b=2"), ("X-Empty", ""),
            ("X-Twice", "one"), ("X-Twice", "two"), ("Authorization", "Bearer abc"),
            ("X-CaSe", "KepT"), ("X_Under_Score", "yes"), ("User-Agent", "e2e"),
            ("X-Spaces", "a  b\tc"), ("X-Latin", "caf\xe9"), ("X-Long", "v" * 4000)]
    pairs = header_pairs(echo(edge, sent))
    lowered = [(n.lower(), v) for n, v in pairs]
    for name, value in sent:
        assert (name.lower(), value) in lowered, name
    assert [v for n, v in lowered if n == "x-twice"] == ["one", "two"]


def test_host_is_kept(edge):
    for host in (edge.name("demo"), "demo.localhost", "DEMO.localhost:123"):
        headers = echo(edge, host=host)
        assert values_of(headers, "host") == [host]
        assert values_of(headers, "x-forwarded-host") == [host]


def test_host_header_rewritten(start, edge, app):
    label = start.client(edge, app, "--host-header", "app.internal:8000", subdomain=None).label()
    headers = echo(edge, label=label)
    assert values_of(headers, "host") == ["app.internal:8000"]
    assert values_of(headers, "x-forwarded-host") == [edge.name(label)]


def test_forwarded_headers_are_set(edge):
    headers = echo(edge)
    assert values_of(headers, "x-forwarded-for") == ["127.0.0.1"]
    assert values_of(headers, "x-forwarded-proto") == ["http"]
    assert values_of(headers, "x-forwarded-host") == [edge.name("demo")]


SPOOFED = ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"]


@pytest.mark.parametrize("form", [
    str, str.lower, str.upper, lambda n: n.replace("-", "_"), lambda n: n.replace("-F", "_F"),
    lambda n: "X-" + n[2:].replace("-", "_"), lambda n: n.lower().replace("-", "_")])
def test_forwarded_headers_of_visitors_are_dropped(edge, form):
    headers = echo(edge, [(form(name), "6.6.6.6") for name in SPOOFED] * 2)
    assert "6.6.6.6" not in " ".join(headers)
    for name in SPOOFED:
        alike = [n for n, _ in header_pairs(headers) if n.lower().replace("_", "-") == name.lower()]
        assert len(alike) == 1, alike
    assert values_of(headers, "x-forwarded-for") == ["127.0.0.1"]


def test_forwarded_headers_cannot_be_nominated_away(edge):
    headers = echo(edge, [
        ("Connection", "x-forwarded-for, X-Forwarded-Host, x-forwarded-proto, host"),
        ("X-Forwarded-For", "6.6.6.6")])
    assert values_of(headers, "x-forwarded-for") == ["127.0.0.1"]
    assert values_of(headers, "x-forwarded-proto") == ["http"]
    assert values_of(headers, "host") == [edge.name("demo")]


def test_hop_by_hop_headers_of_requests_are_dropped(edge):
    headers = echo(edge, [("Connection", "keep-alive, X-Mine , x-other"), ("X-Mine", "hop"),
                          ("X-Other", "hop"), ("Keep-Alive", "timeout=99"),
                          ("Proxy-Connection", "keep-alive"), ("TE", "gzip"),
                          ("Upgrade", "h2c"), ("X-End", "stays")])
    names = {n.lower() for n, _ in header_pairs(headers)}
    assert not names & {"x-mine", "x-other", "keep-alive", "proxy-connection", "upgrade"}
    assert values_of(headers, "te") in ([], ["trailers"])
    assert values_of(headers, "x-end") == ["stays"]
    assert "hop" not in headers


def test_nominating_the_framing_changes_nothing(edge):
    got = edge.get("/echo", method="POST", body=b"12345",
                   headers=[("Connection", "content-length, transfer-encoding")])
    assert got.status == 400 or json.loads(got.body)["bytes"] == 5


def test_hop_by_hop_headers_of_answers_are_dropped(edge):
    with edge.dial() as conn:
        got = conn.fetch("GET", "/hopheaders", edge.name("demo"))
        names = {n.lower() for n, _ in got.headers}
        assert not names & {"x-hop", "keep-alive"}
        assert "X-Hop" not in got.get("connection", "")
        assert got.get("x-end") == "must travel"
        assert got.all("set-cookie") == ["a=1", "b=2"]
        assert conn.fetch("GET", "/hello", edge.name("demo")).status == 200


def test_connection_close_is_the_visitors_own(edge, app):
    """A visitor's Connection: close ends the visitor's connection, not the kept upstream one."""
    edge.status("/hello")
    before = app.stats()["connections"]
    for _ in range(10):
        with edge.dial() as conn:
            got = conn.fetch("GET", "/hello", edge.name("demo"), [("Connection", "close")])
            assert got.body == b"hello\n" and "close" in got.get("connection", "").lower()
            assert conn.at_end()
    assert app.stats()["connections"] - before <= 3


def test_http_1_0_visitors(edge):
    with edge.dial() as conn:
        conn.request("GET", "/bytes?n=1000", edge.name("demo"), version="HTTP/1.0")
        got = conn.read_response()
        assert got.status == 200 and len(got.body) == 1000
        assert conn.at_end()
    with edge.dial() as conn:  # no chunks for those who do not know them
        conn.request("GET", "/chunked?n=100000", edge.name("demo"), version="HTTP/1.0")
        got = conn.read_response()
        assert got.framing == "close" and len(got.body) == 100000
    with edge.dial() as conn:
        conn.send("GET /hello HTTP/1.0\r\n\r\n")  # no Host at all
        assert conn.read_response().status in (400, 404)


def test_server_and_date_are_the_apps_own(start, edge, files):
    label = start.client(edge, start.nginx_files(files), subdomain=None).label()
    got = edge.get("/", label)
    assert got.all("server") == ["nginx"] and len(got.all("date")) == 1
    assert got.get("x-server") == "nginx" and got.get("etag") and got.get("last-modified")
