# SPDX-License-Identifier: Apache-2.0
"""tunnel-client as a developer sees it: what it prints, what it forwards to, when it gives up."""

import json
import re
import signal

import pytest

from harness import eventually
from harness.net import Listener, dial, free_port
from harness.stack import values_of
from harness.tls import Authority

LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"


def final_error(client, code=1):
    """The one clear line of a client that gave up."""
    assert client.proc.wait() == code, client.proc.transcript()
    err = client.proc.err()
    assert err and len([line for line in err if line.strip()]) == 1, client.proc.transcript()
    assert not any(line.startswith("public:") for line in client.proc.out())
    return err[0]


# -- what it prints -----------------------------------------------------------------------------

def test_says_where_visitors_go(start, app):
    server = start.server()
    client = start.client(server, app)
    assert client.public() == f"http://demo.localhost:{server.port}"
    # The line promises that visitors can come: no waiting, no second try.
    assert server.status("/hello") == 200


def test_a_line_per_request(start, app):
    server = start.server()
    client = start.client(server, app)
    line = r"^\d\d:\d\d:\d\d {} {} {} \d+(\.\d+)?ms$"
    assert server.status("/hello") == 200
    client.proc.wait_line(line.format("GET", "/hello", 200), kind="out")
    assert server.status("/status?code=204", method="DELETE") == 204
    client.proc.wait_line(line.format("DELETE", r"/status(\?code=204)?", 204), kind="out")
    assert server.status("/nothing-here", method="POST", body=b"x") == 404
    client.proc.wait_line(line.format("POST", "/nothing-here", 404), kind="out")
    with server.dial() as conn:  # kept-alive requests count one by one
        for n in range(5):
            conn.fetch("GET", f"/echo/{n}", server.name("demo"))
    for n in range(5):
        client.proc.wait_line(line.format("GET", f"/echo/{n}", 404), kind="out")
    assert sum("/echo/3" in text for text in client.proc.out()) == 1


def test_quiet(start, app):
    server = start.server()
    client = start.client(server, app, "--quiet")
    for _ in range(3):
        assert server.status("/hello") == 200
    assert client.proc.stop() == 0
    assert client.proc.out() == [f"public: http://demo.localhost:{server.port}"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_cleanly_on(start, app, number):
    server = start.server()
    client = start.client(server, app)
    assert server.status("/hello") == 200
    assert client.proc.stop(number) == 0
    # Whoever leaves in an orderly way is gone: no visitor waits for its return.
    eventually(lambda: server.status("/hello") in (404, 503), "the name is gone")


def test_stops_while_the_server_is_away(start, app):
    server = start.server()
    client = start.client(server, app)
    server.proc.stop()
    assert client.proc.stop() == 0


# -- what it forwards to ------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["{port}", "localhost:{port}", "127.0.0.1:{port}"])
def test_upstream_on_ipv4(start, edge, app, form):
    client = start.client(edge, form.format(port=app.port), subdomain=None)
    assert edge.get("/hello", client.label()).body == b"hello\n"


@pytest.mark.parametrize("form", ["{port}", "localhost:{port}", "[::1]:{port}"])
def test_upstream_on_ipv6(start, edge, form):
    app = start.node("--host", "::1")
    client = start.client(edge, form.format(port=app.port), subdomain=None)
    assert edge.get("/hello", client.label()).body == b"hello\n"


def test_upstream_on_a_unix_socket(start, edge, folder):
    path = folder / "app.sock"
    start.node("--unix", path)
    client = start.client(edge, f"unix:{path}", subdomain=None)
    for _ in range(3):
        assert edge.get("/hello", client.label()).body == b"hello\n"


def test_upstream_over_https(start, edge, authority, local_pair):
    app = start.node("--cert", local_pair.cert, "--key", local_pair.key)
    client = start.client(edge, f"https://localhost:{app.port}", "--upstream-ca", authority.cert,
                          subdomain=None)
    label = client.label()
    assert edge.get("/hello", label).body == b"hello\n"
    echo = json.loads(edge.get("/echo", label, method="POST", body=b"x" * 300000).body)
    assert echo["bytes"] == 300000
    # What the visitor used counts, not how the app is reached.
    assert values_of(echo["headers"], "x-forwarded-proto") == ["http"]


def test_https_upstream_on_this_machine_may_be_self_signed(start, edge, local_pair):
    """As development servers are: nobody is between here and there."""
    app = start.node("--cert", local_pair.cert, "--key", local_pair.key)
    client = start.client(edge, f"https://localhost:{app.port}", subdomain=None)
    assert edge.get("/hello", client.label()).body == b"hello\n"


def test_https_upstream_by_another_authority_is_502(start, edge, local_pair, folder):
    """Once the user has said whom to trust, nobody else is."""
    app = start.node("--cert", local_pair.cert, "--key", local_pair.key)
    other = Authority(folder / "other", "another CA")
    client = start.client(edge, f"https://localhost:{app.port}", "--upstream-ca", other.cert,
                          subdomain=None)
    got = edge.get("/hello", client.label())
    assert got.status == 502 and b"certificate" in got.body.lower()


def test_plain_upstream_that_should_be_https_is_502(start, edge, app):
    client = start.client(edge, f"https://localhost:{app.port}", subdomain=None)
    assert edge.status("/hello", client.label()) == 502
    assert client.proc.alive()


def test_upstream_that_comes_up_later(start):
    server = start.server()
    port = free_port()
    client = start.client(server, port)
    for _ in range(3):
        got = server.get("/hello")
        assert got.status == 502 and str(port).encode() in got.body
    start.node("--port", str(port))
    assert server.get("/hello").body == b"hello\n"
    assert client.proc.alive()
    assert not any("public:" in line for line in client.proc.out()[1:])  # never left


def test_upstream_that_restarts(start):
    server = start.server()
    first = start.node()
    start.client(server, first)
    assert server.status("/hello") == 200
    first.proc.kill()
    assert server.status("/hello") == 502
    start.node("--port", str(first.port))
    assert server.status("/hello") == 200
    assert server.status("/echo", method="POST", body=b"x") == 200


# -- names --------------------------------------------------------------------------------------

def test_random_names_are_readable_and_differ(start, edge, app):
    clients = [start.client(edge, app, subdomain=None) for _ in range(4)]
    labels = {client.label() for client in clients}
    assert len(labels) == 4
    for label in labels:
        assert re.fullmatch(LABEL, label) and re.search("[a-z]{3}", label)
        assert edge.status("/hello", label) == 200


def test_random_name_is_kept_when_the_server_restarts(start, app):
    server = start.server()
    client = start.client(server, app, subdomain=None)
    label = client.label()
    assert server.proc.stop() == 0
    again = start.server(token=server.token, port=server.port)
    eventually(lambda: again.status("/hello", label) == 200, "the same name again")
    urls = {m[1] for line in client.proc.out() if (m := re.match(r"public: (\S+)", line))}
    assert urls == {f"http://{label}.localhost:{server.port}"}


def test_root_domain(start, app):
    server = start.server()
    assert server.status("/hello", "@") == 404
    client = start.client(server, app, subdomain="@")
    assert client.public() == f"http://localhost:{server.port}"
    assert server.status("/hello", "@") == 200
    assert server.status("/hello", "demo") == 404  # the root is no wildcard


# -- reaching the server ------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["ws://127.0.0.1:{}", "http://127.0.0.1:{}", "ws://localhost:{}",
                                  "http://localhost:{}", "ws://127.0.0.1:{}/"])
def test_plain_server_urls(start, edge, app, form):
    client = start.client(edge, app, link=form.format(edge.port), subdomain=None)
    assert edge.status("/hello", client.label()) == 200


@pytest.mark.parametrize("form", ["wss://127.0.0.1:{}", "https://127.0.0.1:{}",
                                  "wss://localhost:{}", "https://localhost:{}"])
def test_tls_server_urls(start, edge, app, authority, form):
    client = start.client(edge, app, "--ca", authority.cert, link=form.format(edge.tls_port),
                          subdomain=None)
    assert edge.status("/hello", client.label()) == 200


def test_ca_from_the_environment(start, edge, app, authority):
    client = start.client(edge, app, link=f"wss://127.0.0.1:{edge.tls_port}", subdomain=None,
                          env={"TUNNEL_CA": authority.cert})
    assert edge.status("/hello", client.label()) == 200


def test_unknown_ca_is_refused(start, edge, app):
    client = start.client(edge, app, link=f"wss://127.0.0.1:{edge.tls_port}", wait=False)
    said = client.gets_nowhere()
    assert "certificate" in said.lower()
    assert "127.0.0.1, ::1" in said  # the names it has, addresses of both kinds too


def test_certificate_for_another_name_is_refused(start, app, authority):
    server = start.server(tls=[authority.issue("elsewhere.test")])
    client = start.client(server, app, "--ca", authority.cert,
                          link=f"wss://localhost:{server.tls_port}", wait=False)
    assert "certificate" in client.gets_nowhere().lower()


def test_expired_certificate_is_refused(start, app, authority):
    server = start.server(tls=[authority.issue("localhost", days=-1)])
    client = start.client(server, app, "--ca", authority.cert,
                          link=f"wss://localhost:{server.tls_port}", wait=False)
    assert "certificate" in client.gets_nowhere().lower()


def test_nothing_is_published_on_an_unverified_server(start, app, authority):
    """The token stays home when the certificate is somebody else's."""
    pair = authority.issue("elsewhere.test")
    server = start.server(tls=[pair])
    client = start.client(server, app, link=f"wss://localhost:{server.tls_port}", wait=False)
    client.gets_nowhere()
    assert server.status("/hello") == 404


def test_plain_ws_to_a_tls_port_hints_at_wss(start, edge, app):
    client = start.client(edge, app, link=f"ws://127.0.0.1:{edge.tls_port}", wait=False)
    client.proc.wait_line(r"HTTP 400.*wss://", kind="err")


def test_a_port_that_another_program_has(start):
    other = start.keep(Listener(lambda conn: None))
    server = start.server("--tcp-ports", f"{other.port}")
    client = start.tcp(server, 1, "--remote-port", str(other.port), wait=False)
    assert client.proc.wait() == 1
    assert len(client.proc.err()) == 1
    assert f"{other.port} is in use" in client.proc.err()[0]
    assert "choose another --remote-port" in client.proc.err()[0]


def test_a_name_that_the_server_has_no_certificate_for(start, app, authority):
    server = start.server(domain="tunnel.test", tls=[authority.issue("tunnel.test")])
    client = start.client(server, app, "--ca", authority.cert,
                          link=f"wss://localhost:{server.tls_port}", wait=False)
    client.proc.wait_line(r"no certificate for this name", kind="err")


@pytest.mark.parametrize("link", ["ws://192.0.2.1:80", "http://192.0.2.1", "ws://tunnel.example"])
def test_plain_ws_beyond_loopback_needs_insecure(start, edge, app, link):
    client = start.client(edge, app, link=link, wait=False)
    assert client.proc.wait() in (1, 2)
    err = client.proc.err()
    assert len(err) == 1 and "--insecure" in err[0]


def test_server_that_is_not_there_yet(start, app):
    port = free_port()
    shape = start.server(wait=False, port=free_port())
    client = start.client(shape, app, link=f"ws://127.0.0.1:{port}", wait=False)
    client.proc.wait_line(rf"{port}")  # says so
    assert client.proc.alive()
    assert not any("public:" in line for line in client.proc.out())
    server = start.server(port=port, token=shape.token)
    assert client.public() == f"http://demo.localhost:{port}"
    assert server.status("/hello") == 200


def test_comes_back_after_the_server_restarts(start, app):
    server = start.server()
    client = start.client(server, app)
    for _ in range(2):
        assert server.proc.stop() == 0
        server = start.server(port=server.port, token=server.token)
        eventually(lambda s=server: s.status("/hello") == 200, "the tunnel again")
    server.proc.kill()  # not only after a goodbye
    server = start.server(port=server.port, token=server.token)
    eventually(lambda: server.status("/hello") == 200, "the tunnel again")
    assert client.proc.alive()


def test_not_a_tunnel_server(start, app, files):
    """A web server answers at that address: said, and nothing is published."""
    nginx = start.nginx_files(files)
    shape = start.server()
    client = start.client(shape, app, link=f"ws://127.0.0.1:{nginx.port}", wait=False)
    client.gets_nowhere()


# -- giving up ----------------------------------------------------------------------------------

def test_refused_token_is_final(start, edge, app):
    client = start.client(edge, app, token="not-the-token", subdomain="refused", wait=False)
    assert "token" in final_error(client).lower() or "auth" in client.proc.err()[0].lower()
    assert "not-the-token" not in client.proc.text()
    assert edge.status("/hello", "refused") == 404


def test_token_refused_at_a_reconnect_is_final_too(start, app):
    server = start.server()
    client = start.client(server, app)
    server.proc.stop()
    start.server(port=server.port, token="another-credential")
    assert client.proc.wait() == 1


def test_name_of_another_credential_is_final(start, app):
    server = start.server("--token", "second-credential")
    start.client(server, app)
    client = start.client(server, app, token="second-credential", wait=False)
    assert "demo" in final_error(client)
    assert server.status("/hello") == 200


def test_killed_client_leaves_503(start, app):
    server = start.server()
    client = start.client(server, app)
    assert server.status("/hello") == 200
    with server.dial() as waiting, server.dial() as halfway:
        waiting.request("GET", "/hang?id=killed", server.name("demo"))
        halfway.request("GET", "/stall?id=killed-stall", server.name("demo"))
        app.await_visit("killed", "seen")
        assert halfway.read_head().status == 200
        client.proc.kill()
        got = waiting.read_response()
        assert got.status == 503 and got.body
        assert halfway.read_all() in (b"", b"some")  # cut short, never completed
    assert server.status("/hello") in (404, 503)
    start.client(server, app)
    assert server.status("/hello") == 200


def test_client_that_hangs_is_gone_until_it_wakes(start, app):
    """A stopped process keeps its connection: only its silence tells."""
    server = start.server("--link-timeout", "1")
    client = start.client(server, app)
    assert server.status("/hello") == 200
    client.proc.deliver(signal.SIGSTOP)
    assert server.status("/hello") == 503
    client.proc.deliver(signal.SIGCONT)
    eventually(lambda: server.status("/hello") == 200, "it is back")
    assert client.proc.alive()


def test_server_that_hangs_is_noticed(start, app):
    server = start.server()
    client = start.client(server, app, "--link-timeout", "1")
    server.proc.deliver(signal.SIGSTOP)
    client.proc.wait_line(str(server.port), kind="err")  # says that it lost the server
    server.proc.deliver(signal.SIGCONT)
    eventually(lambda: server.status("/hello") == 200, "it is back")
    assert client.proc.alive()


def test_error_pages_help_the_developer(start):
    server = start.server()
    port = free_port()
    start.client(server, port)
    refused = server.get("/")
    assert refused.status == 502 and str(port).encode() in refused.body
    lost = server.get("/", "nobody")
    assert lost.status == 404 and b"nobody" in lost.body
    for page in (refused, lost):
        assert page.get("content-type", "").startswith(("text/html", "text/plain"))
        assert len(page.body) < 8192
    with server.dial() as conn:  # HEAD of an error has no body, and the connection goes on
        assert conn.fetch("HEAD", "/", server.name("demo")).status == 502
        if conn.is_quiet():
            assert conn.fetch("GET", "/", server.name("demo")).status == 502


def test_names_in_error_pages_cannot_carry_markup(start):
    server = start.server()
    with dial("127.0.0.1", server.port) as conn:
        conn.request("GET", "/<script>alert(1)</script>", "nobody.localhost")
        assert b"<script>alert" not in conn.read_response().body
    with dial("127.0.0.1", server.port) as conn:
        conn.request("GET", "/", "<script>alert(1)</script>.localhost")
        assert b"<script>alert" not in conn.read_response().body
