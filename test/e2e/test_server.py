# SPDX-License-Identifier: Apache-2.0
"""tunnel-server as its operator sees it: listeners, health, credentials, logs, signals."""

import json
import re
import signal
import socket

import pytest

from harness import CLIENT_BIN, SERVER_BIN, eventually
from harness.net import dial, free_port
from harness.stack import curl, values_of

HEALTH = ["/__tunnel__/health/live", "/__tunnel__/health/ready"]


def test_says_where_it_listens(start):
    server = start.server()
    assert f"listening: http://127.0.0.1:{server.port}" in server.proc.out()


def test_several_listeners_and_ipv6(start, app):
    ports = [free_port() for _ in range(3)]
    server = start.server("--listen", f"[::1]:{ports[0]}", "--listen", f"127.0.0.1:{ports[1]}",
                          "--listen", f"[::1]:{ports[2]}")
    server.proc.wait_line("^listening: ", count=4)
    said = {line for line in server.proc.out() if line.startswith("listening: ")}
    assert said == {f"listening: http://127.0.0.1:{server.port}",
                    f"listening: http://[::1]:{ports[0]}",
                    f"listening: http://127.0.0.1:{ports[1]}",
                    f"listening: http://[::1]:{ports[2]}"}
    start.client(server, app, link=f"ws://[::1]:{ports[0]}")
    for host, port in (("127.0.0.1", server.port), ("::1", ports[0]), ("127.0.0.1", ports[1]),
                       ("::1", ports[2])):
        with dial(host, port) as conn:
            assert conn.fetch("GET", "/hello", f"demo.localhost:{port}").body == b"hello\n"


def test_every_listener_says_so_once_it_accepts(start, local_pair):
    server = start.server(tls=[local_pair])
    assert f"listening: https://127.0.0.1:{server.tls_port}" in server.proc.out()
    # No waiting in between: the line promises that a connection is taken.
    dial("127.0.0.1", server.port).close()
    dial("127.0.0.1", server.tls_port).close()


@pytest.mark.parametrize("path", HEALTH)
def test_health(edge, path):
    with edge.dial() as conn:
        got = conn.fetch("GET", path, edge.name("@"))
        assert got.status == 200 and isinstance(json.loads(got.body), dict)
        assert "json" in got.get("content-type")
        head = conn.fetch("HEAD", path, edge.name("@"))
        assert head.status == 200 and head.body == b""
        assert head.get("content-length") == str(len(got.body))
        # The connection carried no body after HEAD: it still works.
        assert conn.fetch("GET", path, edge.name("@")).status == 200


@pytest.mark.parametrize("path", HEALTH)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_health_answers_other_methods_405(edge, path, method):
    got = edge.get(path, "@", method=method, body=b"")
    assert got.status == 405
    assert {m.strip() for m in got.get("allow", "").split(",")} == {"GET", "HEAD"}


@pytest.mark.usefixtures("tunnel")
@pytest.mark.parametrize("host", ["demo.localhost", "nobody.localhost", "x.example", "10.1.2.3"])
def test_health_comes_before_routing(edge, app, host):
    before = app.stats()["requests"]
    for path in HEALTH:
        assert edge.get(path, host=host).status == 200
        assert edge.get(path + "?probe=1", host=host).status == 200
        assert edge.get(path, host=host, method="POST", body=b"x").status == 405
    assert app.stats()["requests"] == before


def test_health_without_host_on_http_1_0(edge):
    with edge.dial() as conn:  # what simple load balancers send
        conn.send("GET /__tunnel__/health/live HTTP/1.0\r\n\r\n")
        assert conn.read_response().status == 200


@pytest.mark.usefixtures("tunnel")
@pytest.mark.parametrize("path", ["/__tunnel__/", "/__tunnel__/nothing", "/__tunnel__/health",
                                  "/__tunnel__/health/other", "/__tunnel__/link"])
def test_reserved_paths_never_reach_a_tunnel(edge, app, path):
    before = app.stats()["requests"]
    assert 400 <= edge.get(path).status < 500
    assert app.stats()["requests"] == before


def test_generated_token(start, app):
    port = free_port()
    proc = start.program(SERVER_BIN, ["--listen", f"127.0.0.1:{port}", "--domain", "localhost"])
    proc.wait_line("^listening: ")
    token = proc.wait_line(r"^token: (\S+)$", kind="out")[1]
    assert len(token) >= 16
    other = start.program(SERVER_BIN, ["--listen", f"127.0.0.1:{free_port()}",
                                       "--domain", "localhost"])
    assert other.wait_line(r"^token: (\S+)$", kind="out")[1] != token
    server = start.server()  # only for its shape
    server.port, server.token = port, token
    start.client(server, app)
    assert server.status("/hello") == 200
    refused = start.client(server, app, token=token + "x", subdomain="other", wait=False)
    assert refused.proc.wait() == 1


def test_configured_token_is_not_printed(start):
    server = start.server()
    assert server.token not in server.proc.text()
    assert "token:" not in server.proc.text()


def test_several_tokens(start, app):
    server = start.server("--token", "second-credential")
    start.client(server, app, subdomain="a")
    start.client(server, app, subdomain="b", token="second-credential")
    assert server.status("/hello", "a") == server.status("/hello", "b") == 200


@pytest.mark.parametrize("url", ["https://tunnel.example.com", "https://tunnel.example.com:8443",
                                 "http://tunnel.example.com"])
def test_public_url(start, app, url):
    server = start.server("--public-url", url, domain="tunnel.example.com")
    scheme, rest = url.split("://")
    assert start.client(server, app).public() == f"{scheme}://demo.{rest}"
    assert start.client(server, app, subdomain="@").public() == url
    assert server.status("/hello", host="demo.tunnel.example.com") == 200
    assert server.status("/hello", host=f"tunnel.example.com:{server.port}") == 200


def test_behind_a_tls_terminating_proxy(start, app, authority):
    """nginx in front speaks TLS to visitors and to the client: the link passes as WebSocket."""
    pair = authority.issue("tunnel.test", "*.tunnel.test", "127.0.0.1")
    port = free_port()
    server = start.server("--public-url", f"https://tunnel.test:{port}", domain="tunnel.test")
    start.nginx(f"""
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};
    location / {{
      proxy_pass http://127.0.0.1:{server.port}; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade; proxy_read_timeout 1h;
    }}
  }}""", port)
    client = start.client(server, app, "--ca", authority.cert, link=f"wss://127.0.0.1:{port}")
    assert client.public() == f"https://demo.tunnel.test:{port}"
    got = curl("--cacert", authority.cert, "--resolve", f"demo.tunnel.test:{port}:127.0.0.1",
               client.public() + "/bytes?n=300000")
    assert len(got.stdout) == 300000
    got = curl("--cacert", authority.cert, "--resolve", f"demo.tunnel.test:{port}:127.0.0.1",
               client.public() + "/echo")
    # What visitors use is known from the public URL: the app makes its links with it.
    assert values_of(json.loads(got.stdout)["headers"], "x-forwarded-proto") == ["https"]


def test_settings_from_the_environment(start, app):
    port = free_port()
    env = {"TUNNEL_LISTEN": f"127.0.0.1:{port}", "TUNNEL_DOMAIN": "env.test",
           "TUNNEL_TOKEN": "from-the-environment", "TUNNEL_PUBLIC_URL": "https://env.test",
           "TUNNEL_ACCESS_LOG": "-"}
    proc = start.program(SERVER_BIN, [], env=env)
    proc.wait_line(rf"^listening: http://127\.0\.0\.1:{port}$")
    client = start.program(CLIENT_BIN, ["http", str(app.port)], env={
        "TUNNEL_SERVER": f"ws://127.0.0.1:{port}", "TUNNEL_TOKEN": "from-the-environment",
        "TUNNEL_SUBDOMAIN": "fromenv", "TUNNEL_HOST_HEADER": "rewritten.example",
        "TUNNEL_QUIET": "1"})
    assert client.wait_line(r"^public: (\S+)$")[1] == "https://fromenv.env.test"
    with dial("127.0.0.1", port) as conn:
        echo = json.loads(conn.fetch("GET", "/echo", "fromenv.env.test").body)
    assert "rewritten.example" in echo["headers"]
    proc.wait_line("GET.*/echo")
    assert not any("/echo" in line for line in client.out())


def test_tls_settings_from_the_environment(start, local_pair):
    port = free_port()
    proc = start.program(SERVER_BIN, ["--token", "t" * 16], env={
        "TUNNEL_TLS_LISTEN": f"127.0.0.1:{port}", "TUNNEL_TLS_CERT": local_pair.cert,
        "TUNNEL_TLS_KEY": local_pair.key, "TUNNEL_DOMAIN": "localhost"})
    proc.wait_line(rf"^listening: https://127\.0\.0\.1:{port}$")


def test_flags_win_over_the_environment(start, app):
    port = free_port()
    server = start.server(env={"TUNNEL_DOMAIN": "env.test", "TUNNEL_TOKEN": "env-token",
                               "TUNNEL_LISTEN": f"127.0.0.1:{port}"})
    listening = [line for line in server.proc.out() if line.startswith("listening:")]
    assert listening == [f"listening: http://127.0.0.1:{server.port}"]
    refused = start.client(server, app, token="env-token", wait=False)
    assert refused.proc.wait() == 1
    client = start.client(server, app, subdomain="flag", env={
        "TUNNEL_SUBDOMAIN": "env", "TUNNEL_SERVER": "ws://127.0.0.1:1", "TUNNEL_TOKEN": "wrong"})
    assert client.public() == f"http://flag.localhost:{server.port}"


def test_no_access_log_unless_asked(start, app):
    server = start.server()
    start.client(server, app)
    assert server.status("/hello") == 200
    assert server.proc.stop() == 0
    assert "/hello" not in server.proc.text()


def test_access_log_on_stdout(start, app):
    server = start.server("--access-log", "-")
    start.client(server, app)
    for n in range(3):
        assert server.status(f"/hello?request={n}") == 200
    assert server.status("/status?code=204", method="DELETE") == 204
    assert server.status("/lost", "nobody") == 404
    for n in range(3):
        server.proc.wait_line(rf"\bGET\b.*/hello\?request={n}\b.*\b200\b", kind="out")
    server.proc.wait_line(r"\bDELETE\b.*/status\?code=204.*\b204\b", kind="out")
    server.proc.wait_line(r"/lost.*\b404\b", kind="out")
    assert sum("/hello?request=1" in line for line in server.proc.out()) == 1


def test_access_log_in_a_file(start, app, folder):
    path = folder / "access.log"
    server = start.server("--access-log", path)
    start.client(server, app)
    assert server.status("/hello?in=file") == 200
    eventually(lambda: path.exists() and re.search(r"GET.*/hello\?in=file.*200", path.read_text()),
               "a line in the access log")
    assert "/hello?in=file" not in server.proc.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_cleanly_on(start, app, number):
    server = start.server("--drain-timeout", "0.5")  # for events, which would never end
    start.client(server, app)
    idle, kept, events = server.dial(), server.dial(), server.dial()
    with idle, kept, events:
        assert kept.fetch("GET", "/hello", server.name("demo")).status == 200
        events.request("GET", f"/sse?id=stop-{number}", server.name("demo"))
        assert events.read_head().status == 200
        assert server.proc.stop(number) == 0
        assert kept.at_end()
    assert not any("error" in line.lower() for line in server.proc.err())
    with pytest.raises(ConnectionRefusedError):
        dial("127.0.0.1", server.port)


def test_signals_count_from_the_first_line_on(start):
    """Whoever reads `listening:` and signals at once gets what was promised, not a dead server.
    With many listeners there is time between the first line and the last."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) * 3:
        more = [word for _ in range(30) for word in ("--listen", f"127.0.0.1:{free_port()}")]
        server = start.server(*more, wait=False)
        server.proc.wait_line("^listening: ")
        server.proc.deliver(number)
        if number == signal.SIGHUP:
            server.proc.wait_line("^listening: ", count=31)
            server.proc.deliver(signal.SIGTERM)
        assert server.proc.wait() == 0


def test_restarts_on_the_same_port_at_once(start):
    server = start.server()
    with server.dial() as conn:
        assert conn.fetch("GET", HEALTH[0], "x").status == 200
        assert server.proc.stop() == 0
        again = start.server(port=server.port)
    assert again.status(HEALTH[0]) == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_one_line_and_exit_1(start, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as holder:
        port = holder.getsockname()[1]
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        proc = start.program(SERVER_BIN, ["--listen", where, "--domain", "localhost",
                                          "--token", "t" * 16])
        assert proc.wait() == 1
        assert len(proc.err()) == 1 and str(port) in proc.err()[0]
        assert "in use" in proc.err()[0] or "listens there" in proc.err()[0]
        assert proc.out() == []


def test_one_taken_port_of_several_is_fatal_too(start):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        proc = start.program(SERVER_BIN, [
            "--listen", f"127.0.0.1:{free_port()}", "--listen", f"127.0.0.1:{port}",
            "--domain", "localhost", "--token", "t" * 16])
        assert proc.wait() == 1
        assert len(proc.err()) == 1 and str(port) in proc.err()[0]
        assert not any(line.startswith("listening:") for line in proc.out())


def test_connections_leave_no_descriptors_behind(start, app):
    server = start.server()
    client = start.client(server, app)
    for _ in range(20):
        assert server.status("/hello") == 200
    base = server.proc.descriptors(), client.proc.descriptors()
    for round_ in range(100):
        with server.dial() as conn:
            if round_ % 3 == 0:
                conn.fetch("GET", "/hello", server.name("demo"))
            elif round_ % 3 == 1:
                conn.send("GET /hello HTTP/1.1\r\nHo")
            else:
                conn.request("GET", "/pour?id=descriptors", server.name("demo"))
                conn.read_head()
                conn.abort()
    # Kept-alive upstream connections may stay a while: a handful of slack, not a hundred.
    eventually(lambda: server.proc.descriptors() <= base[0] + 6, "the server's descriptors")
    eventually(lambda: client.proc.descriptors() <= base[1] + 6, "the client's descriptors")
